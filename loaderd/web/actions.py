"""What the page can do besides watching."""

from __future__ import annotations

import asyncio
import os

from loaderd.cache import folder
from loaderd.errors import LoaderdError, NoDaemon, RequestRefused
from loaderd.ipc import channel, descriptors, dial
from loaderd.ipc.channel import Channel
from loaderd.launch import interpreter, search_path
from loaderd.web.watcher import Watcher

PREVIEW_SECONDS = 60.0
MAX_BAD = 200
"""Bad images that are listed."""


class Actions:
    """Requests to one daemon.

    Args:
        socket: the daemon's.
        watcher: knows where its caches are.
    """

    def __init__(self, socket: str, watcher: Watcher) -> None:
        self._socket = socket
        self._watcher = watcher
        self._drawing = asyncio.Lock()

    async def bad_images(self) -> list[dict[str, object]]:
        """The images that could not be read, the last ``MAX_BAD`` of them."""
        found = await asyncio.to_thread(dial.list_bad, self._socket)
        return [
            {
                "path": os.fsdecode(one.path),
                "reason": one.reason,
                "times": one.times,
                "quarantined": one.quarantined,
            }
            for one in found[-MAX_BAD:]
        ]

    async def set_workers(self, count: int) -> None:
        """Sets how many workers there are."""
        await asyncio.to_thread(dial.set_workers, self._socket, count)

    async def clear_caches(self) -> int:
        """Removes all caches on disk; returns their bytes. Streams keep those that they use."""
        report = self._watcher.report
        if report is None:
            raise NoDaemon(self._watcher.trouble)
        return await asyncio.to_thread(_clear, report.now.daemon.cache_dir)

    async def preview(self, stream: int) -> bytes:
        """A PNG of a stream's next samples; one is drawn at a time."""
        async with self._drawing:
            return await _drawn(self._socket, stream)


def _clear(cache_dir: str) -> int:
    found = folder.caches(cache_dir)
    for one in found:
        folder.remove(one)
    return sum(one.nbytes for one in found)


async def _drawn(path: str, stream: int) -> bytes:
    described, fds = await asyncio.to_thread(dial.describe, path, stream)
    ours, theirs = channel.pair()
    with theirs:
        control = Channel(ours)
        try:
            control.send(described, tuple(fds))
            process = await _started(theirs.fileno())
        finally:
            descriptors.close_all(fds)
    try:
        async with asyncio.timeout(PREVIEW_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        raise RequestRefused(f"the preview took more than {PREVIEW_SECONDS:g} seconds") from None
    finally:
        control.close()
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        text = output.decode(errors="replace").strip()
        raise RequestRefused(f"there is no preview: {text or 'its process crashed'}")
    return output


async def _started(control: int) -> asyncio.subprocess.Process:
    program = f"from loaderd.web.preview_process import main; main({control}, {os.getpid()})"
    try:
        return await asyncio.create_subprocess_exec(
            *interpreter.command(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=[control],
            env=interpreter.environment(search_path.folders(), program),
        )
    except OSError as error:
        raise LoaderdError(f"no preview could be started: {error}") from error
