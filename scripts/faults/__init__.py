"""What is done to a running loaderd, and who judges it; outside the installed packages."""
