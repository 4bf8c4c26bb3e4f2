"""What is measured, and against what; outside the installed packages."""
