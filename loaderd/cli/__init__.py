"""The commands ``loaderd`` and ``loaderd-stat``."""
