"""How a daemon's process is started, with which Python, modules and CPUs."""
