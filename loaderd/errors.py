"""The exceptions of loaderd: docs/reference/errors.md shows their tree.

An error crosses the socket as its class name and its text, and is raised again
in the trainer by :func:`from_wire`.
"""

from __future__ import annotations

import builtins
import functools
from typing import Any


class LoaderdError(Exception):
    """The base of all errors below."""


class InvalidArgument(LoaderdError, ValueError):
    """An argument has a value that is not allowed; the text names those that are."""


class InvalidType(InvalidArgument, TypeError):
    """An argument, or what a column holds, is of a type that is not allowed."""


class NoSuchSample(InvalidArgument, IndexError):
    """A sample number is not in the dataset."""


class NoSuchColumn(InvalidArgument, KeyError):
    """A table has no such column; the text names those that it has."""

    def __str__(self) -> str:
        return str(self.args[0])  # a KeyError's would be quoted


class RenderError(LoaderdError):
    """A sample could not be augmented, preprocessed or saved.

    The text names the sample; if a function of the user's failed, it holds that function's
    traceback. An error made by :meth:`of` is an instance of its cause's built-in exceptions,
    too, so that ``except KeyError`` catches what raised a ``KeyError``.
    """

    def __init__(self, text: str) -> None:
        # Without the built-in's __init__, which may take other arguments.
        self.args = (text,)
        if isinstance(self, (ImportError, SyntaxError)):
            self.msg = text  # shown in tracebacks of these

    @classmethod
    def of(cls, cause: BaseException, text: str) -> RenderError:
        """An error with this text that is an instance of its cause's built-in classes.

        A cause that is no ``Exception``, such as ``SystemExit``, must not end the trainer: it
        becomes a plain RenderError. ``StopIteration`` would end a loop over batches silently:
        it becomes a RuntimeError, as in generators.
        """
        if isinstance(cause, (StopIteration, StopAsyncIteration)):
            return _render_error(RuntimeError.__name__)(text)
        return _render_error(*_builtins_of(type(cause)))(text)

    def __str__(self) -> str:
        return str(self.args[0])  # a KeyError's would be quoted

    def __reduce__(self) -> Any:
        return from_wire, (type(self).__name__, str(self)), vars(self) or None


class DatasetError(LoaderdError):
    """Something is wrong with the files on disk."""


class DatasetNotFound(DatasetError, FileNotFoundError):
    """The directory is missing, not a directory, or not readable."""


class EmptyDataset(DatasetError, ValueError):
    """No image was found in the directory."""


class BadArchive(DatasetError, ValueError):
    """An archive is damaged, or was changed, or its members make no samples.

    The text names the archive and, if there is one, the member.
    """


class BadImage(DatasetError, OSError):
    """A file could not be read or decoded; the text names it and says why."""


class TooManyBadImages(BadImage):
    """More images of a dataset could not be read than ``--max-bad`` allows."""


class StorageTimeout(DatasetError, TimeoutError):
    """A disk did not answer within ``--io-timeout``; the text names the path.

    No image counts as bad. The next request continues, if the disk answers by then.
    """


class StorageRefused(DatasetError, PermissionError):
    """An object store refuses what it was asked for; the text names the URL and says why.

    Credentials are missing, wrong or expired, or the store cannot do what is needed.
    """


STORAGE_ERRORS = frozenset({StorageTimeout.__name__, StorageRefused.__name__})
"""What is wrong with storage, not with a batch: they end a stream, and the next request retries."""


class DaemonError(LoaderdError):
    """Something is wrong between client and daemon."""


class NoDaemon(DaemonError, ConnectionError):
    """No daemon listens at the address."""


class NoAnswer(NoDaemon):
    """A daemon is there but does not answer: it is stopped, or hangs.

    Attributes:
        pid: its process id; None if unknown.
    """

    def __init__(self, text: str, pid: int | None = None) -> None:
        super().__init__(text)
        self.pid = pid


class ForeignDaemon(NoDaemon):
    """The listener at the address is, or could be, another user: nothing is sent to it."""


class DaemonRunning(DaemonError):
    """Another daemon already serves the address."""


class NoCluster(DaemonError, ConnectionError):
    """There is no Ray cluster at the address, or this machine does not belong to it."""


class DaemonGone(DaemonError, ConnectionError):
    """The daemon went away while a stream was open."""


class VersionMismatch(DaemonError):
    """Client and daemon speak different versions of the protocol."""


class RequestRefused(DaemonError):
    """The daemon refused a request."""


class Draining(DaemonError):
    """The daemon finishes its work, and exits."""


class RingReclaimed(DaemonError):
    """The ring of an idle stream was reclaimed for another stream.

    Iterators reopen the stream at its place, so that trainers do not notice.
    """


class OutOfStep(DaemonError):
    """A batch is not one that a shared stream makes next; the text says where the stream is.

    Sequences read it from a stream of their own, so that trainers do not notice.
    """


class LeftBehind(DaemonError):
    """The others of a shared stream have waited too long for this trainer.

    Its sequence goes on with a stream of its own, so that trainers do not notice.
    """


class NoWorkers(DaemonError):
    """No worker can start any more; the reason is in the daemon's log, and it keeps trying."""


class WorkerCrashed(DaemonError):
    """Workers crash repeatedly on a batch, and no single sample is the cause."""


class StateError(LoaderdError, ValueError):
    """The state of a sequence cannot be saved, or belongs to another one; the text says why."""


class NoRoom(LoaderdError, MemoryError):
    """A ring or a picture does not fit in memory; the text says which argument to change."""


class RoomTaken(NoRoom):
    """A ring would fit, but other streams use the room now."""


class NoDescriptor(LoaderdError, OSError):
    """No file descriptor is left in this process or the system; the text says for what."""


class CacheError(LoaderdError, OSError):
    """The folder of the caches, or a cache in it, cannot be used; the text says which and why."""


class MissingDependency(LoaderdError, ImportError):
    """A package of an extra is not installed; the text names the extra."""


class MissingCodec(MissingDependency):
    """PIL was built without what decodes a file; the text says what to install."""


class ProtocolError(LoaderdError):
    """The other side sent a message that it must not send."""


class StreamClosed(LoaderdError):
    """The stream was used after it was closed."""


def _builtins_of(kind: type[BaseException]) -> list[str]:
    """The most derived built-in exceptions among an exception's bases; none for ``Exception``."""
    found: list[type] = []
    for base in kind.__mro__:
        if _may_be_base(base) and not any(issubclass(one, base) for one in found):
            found.append(base)
    return [base.__name__ for base in found]


def _may_be_base(kind: object) -> bool:
    """Whether a RenderError can derive from this class, and the class is informative."""
    return (
        isinstance(kind, type)
        and issubclass(kind, Exception)
        and kind.__module__ == builtins.__name__
        and not issubclass(kind, (ExceptionGroup, StopIteration, StopAsyncIteration))
        and kind is not Exception
    )


@functools.cache
def _render_error(*names: str) -> type[RenderError]:
    """The subclass of RenderError that also derives from these built-in exceptions."""
    if not names:
        return RenderError
    bases = (RenderError, *(getattr(builtins, name) for name in names))
    title = f"{RenderError.__name__}({', '.join(names)})"
    return type(title, bases, {"__module__": __name__, "__doc__": RenderError.__doc__})


def _tree(root: type[LoaderdError]) -> dict[str, type[LoaderdError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


def from_wire(kind: str, text: str) -> LoaderdError:
    """Rebuilds an error from its class name and text."""
    name, _, rest = kind.partition("(")
    if name == RenderError.__name__:
        names = [one for one in rest.removesuffix(")").split(", ") if one]
        known = all(_may_be_base(getattr(builtins, one, None)) for one in names)
        return _render_error(*names if known else ())(text)
    return _tree(LoaderdError).get(kind, RequestRefused)(text)
