"""The commands ``loaderd`` and ``loaderd-stat``: a verb is the module of its name."""
