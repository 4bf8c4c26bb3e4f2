"""A disk that stops answering: a FUSE file system that mirrors a folder, spoken to the kernel raw.

Run as ``python -m tests.faults.fuse SOURCE MOUNTPOINT`` by :class:`tests.faults.disk.Disk`. It
takes commands on its standard input, one a line, and answers each with one line::

    hold WAY NAME    requests for paths that hold NAME are not answered; WAY says whether a process
                     that waits for one can be killed ("killable") or not ("unkillable")
    release          answers what was held, and holds nothing more
    delay SECONDS    every read takes so long
    held             how many requests wait

The file system ends with this process: whoever waits for it gets an error then.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import stat
import struct
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

_HEADER = struct.Struct("<IIQQIIIHH")
_ANSWER = struct.Struct("<IiQ")
_ATTRIBUTES = struct.Struct("<6Q10I")
_ENTRY = struct.Struct("<4Q2I")
_READ = struct.Struct("<QQIIQII")
_ENTRY_OF_FOLDER = struct.Struct("<QQII")
_SETATTR = struct.Struct("<II6Q8I")
_FALLOCATE = struct.Struct("<QQQII")

_ROOT = 1
_LONGEST = 1 << 17
_DIRECT_IO = 1
"""Of an open file: every read and write of it comes to us, and none is kept by the kernel."""
_SIZE, _MTIME, _MTIME_NOW = 8, 32, 256
"""What a SETATTR changes."""

LOOKUP, FORGET, GETATTR, SETATTR, MKDIR, UNLINK = 1, 2, 3, 4, 9, 10
OPEN, READ, WRITE, STATFS, RELEASE, FSYNC, FLUSH, INIT = 14, 15, 16, 17, 18, 20, 25, 26
OPENDIR, READDIR, RELEASEDIR, ACCESS, CREATE = 27, 28, 29, 34, 35
INTERRUPT, DESTROY, BATCH_FORGET, FALLOCATE = 36, 38, 42, 43

_UNANSWERED = (FORGET, BATCH_FORGET, DESTROY)


class Request(NamedTuple):
    """What the kernel asks."""

    opcode: int
    unique: int
    node: int
    body: bytes

    @property
    def name(self) -> bytes:
        """Of a LOOKUP, or at the end of a request of two words."""
        return self.body.rstrip(b"\0").rpartition(b"\0")[2]


class Mirror:
    """Answers requests from a folder; node numbers stand for paths.

    Args:
        source: the folder.
    """

    def __init__(self, source: bytes) -> None:
        self._paths = {_ROOT: source}
        self._nodes = {source: _ROOT}
        self._answers: dict[int, Callable[[Request], bytes]] = {
            INIT: self._init,
            LOOKUP: lambda request: self._entry(self._below(request)),
            GETATTR: lambda request: struct.pack("<QII", 0, 0, 0) + self._attributes(request.node),
            SETATTR: self._setattr,
            MKDIR: self._mkdir,
            UNLINK: self._unlink,
            OPEN: self._open,
            CREATE: self._create,
            READ: self._read,
            WRITE: self._write,
            FALLOCATE: self._fallocate,
            STATFS: self._statfs,
            OPENDIR: lambda request: struct.pack("<QII", 0, 0, 0),
            READDIR: self._readdir,
            RELEASE: self._release,
            RELEASEDIR: lambda request: b"",
            FLUSH: lambda request: b"",
            FSYNC: lambda request: b"",
            ACCESS: lambda request: b"",
        }

    def path(self, request: Request) -> bytes:
        """The path that a request is about."""
        if request.opcode in (LOOKUP, CREATE, MKDIR, UNLINK):
            return self._below(request)
        return self._paths[request.node]

    def answer(self, request: Request) -> bytes:
        """The whole answer, an error's number included."""
        try:
            handler = self._answers[request.opcode]
        except KeyError:
            return _packed(request.unique, -errno.ENOSYS)
        try:
            return _packed(request.unique, 0, handler(request))
        except OSError as error:
            return _packed(request.unique, -(error.errno or errno.EIO))

    def _below(self, request: Request) -> bytes:
        return os.path.join(self._paths[request.node], request.name)

    def _node(self, path: bytes) -> int:
        node = self._nodes.setdefault(path, len(self._nodes) + 1)
        self._paths[node] = path
        return node

    def _entry(self, path: bytes) -> bytes:
        os.lstat(path)
        node = self._node(path)
        return _ENTRY.pack(node, 0, 0, 0, 0, 0) + self._attributes(node)

    def _attributes(self, node: int) -> bytes:
        state = os.lstat(self._paths[node])
        times = (state.st_atime_ns, state.st_mtime_ns, state.st_ctime_ns)
        return _ATTRIBUTES.pack(
            node,
            state.st_size,
            state.st_blocks,
            *(ns // 10**9 for ns in times),
            *(ns % 10**9 for ns in times),
            state.st_mode,
            state.st_nlink,
            state.st_uid,
            state.st_gid,
            0,
            4096,
            0,
        )

    def _init(self, request: Request) -> bytes:
        return struct.pack("<4I2H2I2HI28x", 7, 31, 0, 0, 16, 12, _LONGEST, 1, 32, 0, 0)

    def _setattr(self, request: Request) -> bytes:
        valid, _, _, size, _, _, mtime, _, _, nanoseconds, *_ = _SETATTR.unpack(request.body[:88])
        path = self._paths[request.node]
        if valid & _SIZE:
            os.truncate(path, size)
        if valid & _MTIME_NOW:
            os.utime(path)
        elif valid & _MTIME:
            os.utime(path, ns=(mtime * 10**9 + nanoseconds,) * 2)
        return struct.pack("<QII", 0, 0, 0) + self._attributes(request.node)

    def _mkdir(self, request: Request) -> bytes:
        os.mkdir(self._below(request), struct.unpack_from("<I", request.body)[0])
        return self._entry(self._below(request))

    def _unlink(self, request: Request) -> bytes:
        os.unlink(self._below(request))
        return b""

    def _open(self, request: Request) -> bytes:
        flags = struct.unpack_from("<I", request.body)[0] & (os.O_ACCMODE | os.O_TRUNC)
        return struct.pack("<QII", os.open(self._paths[request.node], flags), _DIRECT_IO, 0)

    def _create(self, request: Request) -> bytes:
        flags, mode = struct.unpack_from("<II", request.body)
        path = self._below(request)
        fd = os.open(path, flags & (os.O_ACCMODE | os.O_EXCL) | os.O_CREAT, mode)
        return self._entry(path) + struct.pack("<QII", fd, _DIRECT_IO, 0)

    def _read(self, request: Request) -> bytes:
        fd, offset, size, *_ = _READ.unpack(request.body[: _READ.size])
        return os.pread(fd, size, offset)

    def _write(self, request: Request) -> bytes:
        fd, offset, size, *_ = _READ.unpack(request.body[: _READ.size])
        return struct.pack("<II", os.pwrite(fd, request.body[_READ.size :][:size], offset), 0)

    def _fallocate(self, request: Request) -> bytes:
        fd, offset, length, _, _ = _FALLOCATE.unpack(request.body[: _FALLOCATE.size])
        os.posix_fallocate(fd, offset, length)
        return b""

    def _statfs(self, request: Request) -> bytes:
        state = os.statvfs(self._paths[request.node])
        counts = (state.f_blocks, state.f_bfree, state.f_bavail, state.f_files, state.f_ffree)
        return struct.pack("<5Q4I24x", *counts, state.f_bsize, 255, state.f_frsize, 0)

    def _readdir(self, request: Request) -> bytes:
        _, offset, size, *_ = _READ.unpack(request.body[: _READ.size])
        out = b""
        with os.scandir(self._paths[request.node]) as entries:
            names = sorted((entry.name, entry.is_dir()) for entry in entries)
        for number, (name, folder) in enumerate(names[offset:], offset + 1):
            kind = stat.S_IFDIR >> 12 if folder else stat.S_IFREG >> 12
            entry = _ENTRY_OF_FOLDER.pack(number + 1, number, len(name), kind) + name
            entry += bytes(-len(entry) % 8)
            if len(out) + len(entry) > size:
                break
            out += entry
        return out

    def _release(self, request: Request) -> bytes:
        os.close(struct.unpack_from("<Q", request.body)[0])
        return b""


def _packed(unique: int, error: int, body: bytes = b"") -> bytes:
    return _ANSWER.pack(_ANSWER.size + len(body), error, unique) + body


class Server:
    """Requests in, answers out, now or later.

    Args:
        mirror: answers them.
        device: an open ``/dev/fuse``.
    """

    def __init__(self, mirror: Mirror, device: int) -> None:
        self._mirror = mirror
        self._device = device
        self._held: dict[int, Request] = {}
        self._delayed: list[tuple[float, Request]] = []
        self._holds: tuple[bool, bytes] | None = None
        self._delay = 0.0

    def run(self) -> None:
        """Serves until the standard input ends."""
        poll = select.poll()
        poll.register(self._device, select.POLLIN)
        poll.register(0, select.POLLIN)
        while True:
            for fd, _ in poll.poll(self._pause()):
                if fd == self._device:
                    self._take(os.read(self._device, _LONGEST + 4096))
                elif not self._handle(sys.stdin.buffer.readline().split()):
                    return
            self._answer_delayed()

    def _pause(self) -> float | None:
        """Milliseconds until an answer is due."""
        if not self._delayed:
            return None
        return max(0.0, self._delayed[0][0] - time.monotonic()) * 1000

    def _handle(self, words: list[bytes]) -> bool:
        match words:
            case []:
                return False
            case [b"hold", way, *name]:
                self._holds = way == b"killable", b" ".join(name)
            case [b"release"]:
                self._holds = None
                held, self._held = self._held, {}
                for request in held.values():
                    self._answer(request)
            case [b"delay", seconds]:
                self._delay = float(seconds)
        os.write(1, b"%d\n" % len(self._held))
        return True

    def _take(self, data: bytes) -> None:
        _, opcode, unique, node, *_ = _HEADER.unpack_from(data)
        request = Request(opcode, unique, node, data[_HEADER.size :])
        if opcode == INTERRUPT:
            self._interrupt(struct.unpack_from("<Q", request.body)[0])
        elif opcode in _UNANSWERED:
            return
        elif self._is_held(request):
            self._held[unique] = request
        elif self._delay and opcode == READ:
            self._delayed.append((time.monotonic() + self._delay, request))
        else:
            self._answer(request)

    def _is_held(self, request: Request) -> bool:
        if self._holds is None or request.opcode == INIT:
            return False
        return self._holds[1] in self._mirror.path(request)

    def _interrupt(self, unique: int) -> None:
        """A process that waits got a signal: it can be killed if it is answered."""
        if self._holds is not None and self._holds[0] and unique in self._held:
            del self._held[unique]
            self._write(_packed(unique, -errno.EINTR))

    def _answer_delayed(self) -> None:
        while self._delayed and self._delayed[0][0] <= time.monotonic():
            self._answer(self._delayed.pop(0)[1])

    def _answer(self, request: Request) -> None:
        self._write(self._mirror.answer(request))

    def _write(self, answer: bytes) -> None:
        try:
            os.write(self._device, answer)
        except FileNotFoundError:
            return  # nobody waits for it any more


def mount(mountpoint: str) -> int:
    """Mounts a file system that the returned descriptor answers for.

    Raises:
        OSError: not here, or not by this user.
    """
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    words = (b"loaderd-test", os.fsencode(mountpoint), b"fuse.loaderd-test", 0, options.encode())
    if libc.mount(*words):
        raise OSError(ctypes.get_errno(), "mount")
    return device


def unmount(mountpoint: str) -> None:
    """Takes the file system away, whoever uses it."""
    detach = 2
    ctypes.CDLL(None).umount2(os.fsencode(mountpoint), detach)


def main() -> None:
    """Mounts, says so with a line, and serves."""
    source, mountpoint = sys.argv[1:]
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # no mount outlives the tests
    device = mount(mountpoint)
    os.write(1, b"0\n")
    try:
        Server(Mirror(os.fsencode(source)), device).run()
    finally:
        unmount(mountpoint)


if __name__ == "__main__":
    main()
