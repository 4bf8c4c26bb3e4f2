"""Callbacks for ``model.fit`` with a sequence of loaderd: training that continues after a crash."""

from __future__ import annotations

from loaderd_client.keras.callbacks import BackupAndRestore, LoaderState

__all__ = ["BackupAndRestore", "LoaderState"]
