"""Who shares a stream with whom, and who is left behind.

::

    Open(share) ──► same spec? ──► join ──► Joined, Ready, Ready ...
                                     │
            the others waited ───────┴──► LeftBehind ──► what it had not read is taken back
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator

import msgspec

from loaderd.errors import InvalidArgument, LeftBehind
from loaderd.ipc import descriptors
from loaderd.ipc.messages import IDLE_SECONDS, Joined, Open, refusal
from loaderd.ipc.text import readable
from loaderd.spec import spec
from loaderd.supervisor.actions import Action
from loaderd.supervisor.clients import ClientConnection
from loaderd.supervisor.scheduler import Scheduler
from loaderd.supervisor.shared_stream import SharedStream
from loaderd.supervisor.slots import State
from loaderd.supervisor.streams import OpenStream, check_code, read_spec
from loaderd.supervisor.subscribers import Subscriber, Subscribers

log = logging.getLogger("loaderd")


def shared_name(request: Open) -> str:
    """The name of the shared stream that is asked for; empty for a stream of the client's own."""
    share = request.share
    return "" if share is None or share.join == "alone" else share.name


def check_same(stream: OpenStream, request: Open, spec_fd: int, user_code: bool) -> None:
    """Makes sure that a client wants what a shared stream has.

    Args:
        stream: the stream that is open.
        request: the client's.
        spec_fd: descriptor of its spec.
        user_code: whether workers may run it.

    Raises:
        InvalidArgument: it wants something else; the text says what.
    """
    share = request.share
    assert share is not None
    asked = check_code(spec.decode(read_spec(request, spec_fd)), user_code)
    asked = spec.unsharded(spec.fitted(asked, stream.shape.samples))  # the name has the index
    there = spec.unsharded(stream.spec)
    if not share.seeded:
        there, asked = spec.unseeded(there), spec.unseeded(asked)
    differs = list(_differences(spec.for_workers(there), spec.for_workers(asked)))
    opened_with = stream.request.share
    if opened_with is not None and opened_with.data != share.data:
        here, folder = readable(asked.source.directory), stream.folder
        is_other = f"the folder is {folder}, not {here}" if folder != here else "its samples"
        differs.insert(0, is_other)
    if differs:
        raise InvalidArgument(
            f"share={share.name!r} is the name of an open stream of something else "
            f"({'; '.join(differs)}): choose another name, or the same arguments"
        )


def _differences(there: msgspec.Struct, asked: msgspec.Struct, within: str = "") -> Iterator[str]:
    for name in there.__struct_fields__:
        one, other = getattr(there, name), getattr(asked, name)
        if one == other:
            continue
        if type(one) is type(other) and isinstance(one, msgspec.Struct):
            yield from _differences(one, other, f"{within}{name}.")
        else:
            yield f"{within}{name} is {_short(one)}, not {_short(other)}"


def _short(value: object, longest: int = 200) -> str:
    text = readable(repr(value))
    return text if len(text) <= longest else text[:longest] + "..."


class Parked(dict[ClientConnection, tuple[Open, tuple[int, ...]]]):
    """Clients that wait for a shared stream that another one opens: requests, and descriptors."""

    def taken(self, name: str) -> list[tuple[ClientConnection, tuple[Open, tuple[int, ...]]]]:
        """Takes out those that wait for a name; the descriptors are the caller's."""
        waiting = [client for client, (request, _) in self.items() if shared_name(request) == name]
        return [(client, self.pop(client)) for client in waiting]

    def drop(self, client: ClientConnection) -> None:
        """Forgets a client."""
        _, fds = self.pop(client, (None, ()))
        descriptors.close_all(fds)


class SharedStreams:
    """The subscribers of shared streams, as they come, lag and go.

    Args:
        scheduler: has the streams.
        perform: performs its actions.

    Attributes:
        scheduler: see above.
    """

    def __init__(self, scheduler: Scheduler, perform: Callable[[Iterable[Action]], None]) -> None:
        self.scheduler = scheduler
        self._perform = perform

    def of(self, stream: int) -> SharedStream | None:
        """A stream, if it is shared."""
        scheduled = self.scheduler.streams.get(stream)
        return scheduled if isinstance(scheduled, SharedStream) else None

    def join(self, stream: int, subscriber: int, request: Open) -> Joined:
        """Adds a subscriber; ``begin`` must follow.

        Raises:
            OutOfStep: the stream is not near to the place that it needs.
        """
        shared, share = self.scheduler.streams[stream], request.share
        assert isinstance(shared, SharedStream)
        assert share is not None
        return shared.join(subscriber, share.join, request.run.next or (0, 0))

    def begin(self, stream: int, subscriber: int) -> None:
        """Delivers to a new subscriber what is ready."""
        shared = self.scheduler.streams[stream]
        assert isinstance(shared, SharedStream)
        self._perform(shared.catch_up(subscriber))
        self._perform(self.scheduler.go_on())

    def detach(self, number: int, subscriber: Subscriber) -> None:
        """A subscriber has left, though its arrays may be alive."""
        shared = self.of(subscriber.stream.id)
        if shared is not None:
            subscriber.detached = True
            shared.detach(number)
            shared.reclaim(number, State.READY)
            self._perform(self.scheduler.go_on())

    def leave(self, stream: int, subscriber: int, keeps_leases: bool) -> None:
        """The connection of a subscriber has ended."""
        shared = self.of(stream)
        if shared is not None:
            shared.leave(subscriber, keeps_leases)
            self._perform(self.scheduler.go_on())

    def check(self, stream: OpenStream, subscribers: Subscribers, limit_s: float) -> None:
        """Detaches those for whom the others have waited too long; called about once a second.

        Args:
            stream: the stream; nothing is done if it is not shared.
            subscribers: of all streams.
            limit_s: how long the others wait.
        """
        shared = self.of(stream.id)
        if shared is None:
            return
        readers = subscribers.of(stream.id)
        blocking = {number: readers[number].took.batches for number in shared.blocking()}
        others = shared.cursor.firsts.keys() - blocking
        waited = {number: readers[number].took.waited_ns for number in others}
        early = shared.cursor.early()
        for number, seconds in stream.lag.update(blocking, waited, early).items():
            if seconds >= limit_s:
                self._leave_behind(stream, shared, number, readers[number], seconds)
        for number in [one for one in shared.detached if shared.held(one, State.READY)]:
            if number in readers:
                self._take_back_unread(shared, number, readers[number].client)

    def _leave_behind(
        self,
        stream: OpenStream,
        shared: SharedStream,
        number: int,
        reader: Subscriber,
        seconds: float,
    ) -> None:
        name, pid = shared_name(stream.request), reader.client.pid
        log.warning("client %d is left behind by the shared stream %r", pid, name)
        shared.detach(number)
        reader.detached = True
        text = f"the others of share={name!r} have waited {seconds:.0f} s for this trainer"
        reader.client.send(refusal(LeftBehind(text)))
        self._perform(self.scheduler.go_on())

    def _take_back_unread(
        self, shared: SharedStream, number: int, client: ClientConnection
    ) -> None:
        """Takes back what a silent client has not read: it asks before it reads after that.

        Another one has been told, and releases it itself.
        """
        while client.read():
            pass
        if client.subscriber == number and time.monotonic() - client.heard_at >= IDLE_SECONDS:
            shared.reclaim(number, State.READY)
            self._perform(self.scheduler.go_on())
