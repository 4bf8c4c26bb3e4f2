"""How a daemon's process is started, and what of its starter it is given."""
