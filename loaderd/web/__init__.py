"""The live page: a process of its own that watches a daemon and serves what it sees.

::

    daemon ── Snapshot, each second ──► Watcher ──► Series ──► events ──► viewers' browsers
                                           └──► Report ──► /api/report, /metrics

The daemon itself speaks no HTTP.
"""
