"""Snapshots of a daemon, for people and programs."""
