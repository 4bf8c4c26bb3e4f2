"""A process that renders chunks."""
