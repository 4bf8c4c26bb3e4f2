"""What every child process of the daemon does."""
