"""loaderd: a multiprocess image loader service over shared memory."""

__version__ = "0.1.0"
