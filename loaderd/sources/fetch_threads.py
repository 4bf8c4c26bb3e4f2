"""Threads that wait for object stores, shared by all that a process reads."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

THREADS = 48
"""As many requests are on their way: each waits for most of its time."""

_STACK_BYTES = 2**18
"""Of a thread: it counts towards what a worker may take."""

_tasks: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
_lock = threading.Lock()
_started: list[threading.Thread] = []


def submit(
    task: Callable[[], Any], after: Callable[[Future[Any]], None] | None = None
) -> Future[Any]:
    """Has a task done in a thread; its result, or its exception, is that of the future.

    Args:
        task: what to do.
        after: called with the future once it is done, or cancelled: nobody who waits for the
            result waits for it.
    """
    with _lock:
        if not _started:
            _start()
    future: Future[Any] = Future()
    if after is not None:
        future.add_done_callback(after)
    _tasks.put((future, task))
    return future


def _start() -> None:
    """Starts the threads. Signals stay the main thread's; nobody waits for them at the end."""
    stack = threading.stack_size(_STACK_BYTES)
    signals = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        for number in range(THREADS):
            thread = threading.Thread(target=_run, name=f"fetch-{number}", daemon=True)
            thread.start()
            _started.append(thread)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        threading.stack_size(stack)


def _run() -> None:
    while True:
        future, task = _tasks.get()
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(task())
            except BaseException as error:
                future.set_exception(error)
        del future, task  # what it holds is freed, not kept until the next one
