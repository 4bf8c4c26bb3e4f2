"""The worker process, which renders chunks."""
