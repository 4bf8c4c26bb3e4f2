"""What a daemon does, measured and shown.

::

    dial.observe ─► Snapshot ─┐                     ┌─► terminal
                              ├─ derive ─► Report ──┼─► rows
    the one before, if any ───┘                     └─► json_lines

A renderer is a module with a function from a report to what is shown; it neither asks a daemon nor
prints. ``loaderd stat`` chooses one.
"""
