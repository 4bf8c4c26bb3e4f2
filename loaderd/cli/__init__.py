"""The commands ``loaderd`` and ``loaderd-stat``.

A verb is the module of its name. ``main`` holds the entries, ``verbs`` the parser over all verbs,
and the other modules what several verbs share.
"""
