"""Callbacks for ``model.fit`` with a sequence of loaderd.

Training that continues after a crash, and logs of how long it waits for images.
"""

from __future__ import annotations

from loaderd_client.keras.callbacks import BackupAndRestore, LoaderState
from loaderd_client.keras.monitor import LoaderMonitor

__all__ = ["BackupAndRestore", "LoaderMonitor", "LoaderState"]
