"""The one process of a daemon that decides."""
