"""The batches of one spec, wherever their stream is at the moment.

A stream ends when its daemon goes away, when its ring is needed elsewhere, when a step of it was
interrupted, when what is asked for changes, and in a forked child. A batch is a pure function of
spec and place, so another stream gives exactly the rest, and nobody notices.

Streams are opened by a thread of their own. So no exception that a signal handler raises can
strike between the arrival of a descriptor and the object that holds it; whoever waits may be
interrupted at any time, and what was opened meanwhile is found by the next one who waits.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import weakref
from collections.abc import Callable
from time import monotonic
from typing import Any, Self

import msgspec
import numpy as np

from loaderd.errors import (
    DaemonError,
    DaemonGone,
    Draining,
    LoaderdError,
    RingReclaimed,
    StreamClosed,
)
from loaderd.ipc.bundle import Bundle, Parts
from loaderd.ipc.manifest import Manifest
from loaderd.ipc.prefetch import WHOLE, Place, Run
from loaderd.spec.source import Directory, Files
from loaderd.spec.spec import Spec
from loaderd_client.core import open_streams, spare_streams
from loaderd_client.core import session as sessions
from loaderd_client.core.array_images import ImageBundle
from loaderd_client.core.batch import Batch
from loaderd_client.core.deadline import Deadline
from loaderd_client.core.guard import Caller, Claim
from loaderd_client.core.session import Session
from loaderd_client.core.stream import Stream

_CHILD_SLOTS = 2

_LARGE = 2**22
"""Bytes of a manifest that stays in shared memory."""

_START_SECONDS = 0.05
"""A thread that has not begun by then was never started."""


class Superseded(Exception):
    """The place that was asked for means nothing any more."""


def _always() -> bool:
    return True


class Wanted:
    """What is asked for; replaced as a whole.

    Args:
        spec: what the batches are.
        parts: arrays that the spec means, by name.
        images: what the flow has of its images already, if anything.
        key: the same for all that mean the same batches.

    Attributes:
        spec: the same, with the seed that counts as soon as it is known.
        parts: the same; images where they lie now.
        key: see above.
    """

    def __init__(
        self, spec: Spec, parts: Parts, images: ImageBundle | None = None, key: object = None
    ) -> None:
        self.spec = spec
        self.parts = parts
        self.key = key or object()
        self._images = images

    def replaced(self, spec: Spec, parts: Parts) -> Wanted:
        """The same with another spec and other parts; images that are the same are not copied."""
        same = "images" in parts and parts["images"] is self.parts.get("images")
        return Wanted(spec, parts, self._images if same else None)

    def found(self, manifest: Manifest, seed: int) -> Wanted:
        """The same when a stream of it was opened: it is not listed again.

        What was found is what all epochs are made of, whatever becomes of the folder.
        """
        order = msgspec.structs.replace(self.spec.order, seed=seed)
        spec, parts = msgspec.structs.replace(self.spec, order=order), self.parts
        if isinstance(spec.source, Directory):
            spec = msgspec.structs.replace(spec, source=Files(directory=spec.source.directory))
            parts = {**parts, "manifest": np.frombuffer(manifest.table, np.uint8)}
        return Wanted(spec, parts, self._images, self.key)

    def bundles(self) -> list[Bundle]:
        """What travels with the spec. Images have a bundle of their own, which is kept."""
        light = {name: part for name, part in self.parts.items() if name != "images"}
        bundles = [Bundle(light)] if light else []
        if "images" not in self.parts:
            return bundles
        if self._images is None:
            self._images = ImageBundle(self.parts["images"])
        images = self._images.bundle()
        self.parts = {**self.parts, **images.parts}
        return [images, *bundles]

    def rest(self) -> None:
        """Keeps images that are not many in memory of our own, and no descriptor of them."""
        if self._images is not None:
            self.parts = {**self.parts, "images": self._images.rest(self.parts["images"])}


class _Opening:
    """A stream on its way, by a thread of its own."""

    def __init__(
        self, session: Session, wanted: Wanted, slots: int, run: Run, left: Deadline | None
    ) -> None:
        self.wanted = wanted
        self.pid = os.getpid()
        self.stream: Stream | None = None
        self.error: BaseException | None = None
        self.done = False
        self._given_up = False
        self._session = session
        self._slots = slots
        self._run = run
        self._left = left
        self._begun = Claim()
        self._running = False
        # Held until it is over. No descriptor: who is interrupted here must lose none.
        self._pending = _thread.allocate_lock()
        self._pending.acquire()

    def wait(self) -> None:
        """Waits until there is a stream, or an error."""
        started = -_START_SECONDS
        while not self.done and not self._given_up:
            if not self._running and monotonic() - started >= _START_SECONDS:
                started = monotonic()
                _thread.start_new_thread(self._work, ())
            # Whoever is interrupted before the release costs others a second, and no more.
            if self._pending.acquire(timeout=1 if self._running else _START_SECONDS):
                self._pending.release()

    def give_up(self) -> None:
        """Nobody wants the stream any more; whoever waits for it waits no longer."""
        self._given_up = True
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # it was released before
            self._pending.release()

    def _work(self) -> None:
        me = Caller()
        if self._begun.take(me) is not None:
            return  # somebody was interrupted after he had started a thread
        self._running = True
        try:
            self.stream = self._open()
        except BaseException as error:
            self.error = error
        self.done = True
        self._wake()

    def _open(self) -> Stream:
        bundles = self.wanted.bundles()
        if self._left is None:
            return self._session.open(self.wanted.spec, self._slots, self._run, bundles)
        while True:
            stream = self._session.reopen(
                self.wanted.spec, self._slots, self._run, bundles, self._left
            )
            if stream is not None:
                return stream
            if self._given_up:
                raise StreamClosed("the stream was closed")


class _Held:
    """The stream of a supply, which may outlive it."""

    def __init__(self) -> None:
        self.stream: Stream | None = None

    @classmethod
    def by(cls, supply: Supply) -> Self:
        """Held by a supply: what it has when it dies is left for another one.

        The finalizer keeps the stream whole. Had the supply alone held it, the garbage collector
        might have taken it apart.
        """
        held = cls()
        weakref.finalize(supply, held.leave).atexit = False
        return held

    def leave(self) -> None:
        """Nobody has the stream any more."""
        if self.stream is not None:
            spare_streams.of_process.keep(self.stream)


class Supply:
    """Batches by place, from one stream after another.

    Args:
        spec: what the batches are.
        parts: arrays that the spec means, by name.
        session: where they come from.
        slots: slots wished for in the ring.
        ahead: whether batches are made before they are asked for.

    Attributes:
        manifest: names and labels of all samples.
        samples: samples in an epoch.
        batches: batches in an epoch.

    Raises:
        LoaderdError: the stream cannot be opened.
    """

    def __init__(
        self, spec: Spec, parts: Parts, session: Session, slots: int, ahead: bool = True
    ) -> None:
        self._session: Session | None = session
        self._slots = slots
        self._ahead = ahead
        self._wanted = Wanted(spec, parts)
        self._held = _Held.by(self)
        self._opening: _Opening | None = None
        self._closed = False
        self._pid = os.getpid()
        self._shape = WHOLE
        self.manifest: Manifest
        self.samples = self.batches = 0
        self._usable((0, 0), None)

    @property
    def _stream(self) -> Stream | None:
        return self._held.stream

    @property
    def spec(self) -> Spec:
        """What is asked for, with the seed that counts."""
        return self._wanted.spec

    @property
    def parts(self) -> Parts:
        """The arrays that the spec means, where they lie now."""
        return self._wanted.parts

    def __getstate__(self) -> dict[str, Any]:
        """What a copy, or another process, needs to give the same batches."""
        kept = ("_slots", "_ahead", "_shape", "_closed", "samples", "batches")
        state = {name: getattr(self, name) for name in kept}
        wanted = self._wanted
        return state | {"spec": wanted.spec, "parts": dict(wanted.parts), "table": self._table()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Opens nothing yet."""
        self._wanted = Wanted(state.pop("spec"), state.pop("parts"))
        self.manifest = Manifest.view(state.pop("table"))
        self.__dict__.update(state)
        self._session = self._opening = None
        self._held = _Held.by(self)
        self._pid = os.getpid()

    def _table(self) -> bytes:
        return bytes(self.manifest.table)

    @property
    def session(self) -> Session:
        """Where the batches come from."""
        if self._session is None:
            self._session = sessions.current()
        return self._session

    def fetch(self, place: Place, me: Caller, still: Callable[[], bool] = _always) -> Batch:
        """The batch at a place.

        Args:
            place: (epoch, position).
            me: the call that it is for.
            still: whether the place still means what it meant.

        Raises:
            Superseded: it does not.
            BadImage: a file of the batch could not be read.
            DaemonGone: the daemon went away, and did not come back in time.
            StreamClosed: it was closed.
        """
        left: Deadline | None = None
        while True:
            stream = self._usable(place, left)
            if not still():  # asked after the stream is known: a later one may mean another order
                raise Superseded
            try:
                return stream.take(place, me)
            except (StreamClosed, RingReclaimed):
                if self._closed:
                    raise
            except (DaemonGone, Draining) as error:
                left = self._next_deadline(left, error)

    def change(self, spec: Spec, parts: Parts) -> None:
        """Goes on with another spec."""
        if (spec.order, spec.batch) != (self.spec.order, self.spec.batch):
            self._shape = WHOLE
        self._wanted = self._wanted.replaced(spec, parts).found(self.manifest, _seed(spec, self))
        self._end_stream()

    def beside(self, spec: Spec, parts: Parts, me: Caller) -> Batch:
        """The first batch of another spec over the same samples, of a stream of its own."""
        other = Supply.__new__(Supply)
        other.__dict__.update(self.__dict__, _held=_Held(), _opening=None, _slots=1, _ahead=False)
        other.change(spec, parts)
        try:
            return other.fetch((0, 0), me)
        finally:
            other.close()

    def close(self) -> None:
        """Ends the stream. Arrays that were handed out stay valid."""
        self._closed = True
        opening = self._opening
        if opening is not None and opening.pid == os.getpid():
            opening.give_up()
        self._end_stream()

    def rest(self) -> None:
        """Ends the stream until a batch is asked for again, and holds no descriptor till then."""
        self._end_stream()
        self._wanted.rest()

    @property
    def ended(self) -> bool:
        """Whether there is no stream at the moment: what was asked for was perhaps not to blame."""
        return self._stream is None or self._stream.ended

    @property
    def idle_since(self) -> float | None:
        """When a batch was last asked for; None while somebody waits, or if there is no stream."""
        stream = self._stream
        if stream is None or stream.ended or not stream.subscription.idle:
            return None
        return stream.used_at

    def _end_stream(self) -> None:
        stream, self._held.stream = self._stream, None
        if stream is not None:
            stream.close()

    def _next_deadline(self, left: Deadline | None, error: DaemonError) -> Deadline:
        """The first loss costs no wait; a daemon that is lost again and again is waited for."""
        if left is None:
            return Deadline(self.session.reconnect_timeout)
        self.session.wait(left, error)
        return left

    def _usable(self, place: Place, left: Deadline | None) -> Stream:
        """The stream that gives what is wanted now; opens one if there is none."""
        while True:
            if self._closed:
                raise StreamClosed("the stream was closed")
            stream, wanted = self._stream, self._wanted
            if stream is not None and not stream.ended:
                return stream
            if stream is not None:
                stream.check()
                self._shape = stream.subscription.shape
                stream.release_ring()  # the new ring may need the room of the old one
            opening = self._opening
            if (
                opening is None
                or opening.wanted.key is not wanted.key
                or opening.pid != os.getpid()
            ):
                opening = self._opening = self._begin(wanted, place, left)
            opening.wait()
            if opening.done:
                self._adopt(opening)

    def _begin(self, wanted: Wanted, place: Place, left: Deadline | None) -> _Opening:
        if left is None and self.samples:  # a daemon that was there is waited for
            left = Deadline(self.session.reconnect_timeout)
        if os.getpid() == self._pid:
            run = self._shape.at(place if self._ahead else None)
            return _Opening(self.session, wanted, self._slots, run, left)
        # Siblings of a forked child ask for other indices: nothing is made that was not asked for.
        return _Opening(self.session, wanted, _CHILD_SLOTS, self._shape.at(None), left)

    def _adopt(self, opening: _Opening) -> None:
        if self._opening is opening:
            self._opening = None
        error, stream = opening.error, opening.stream
        if error is not None:
            raise type(error)(*error.args) if isinstance(error, LoaderdError) else error
        assert stream is not None
        if opening.wanted.key is not self._wanted.key or self._closed:
            stream.close()  # something else is wanted meanwhile
        elif self._stream is None or self._stream.ended:
            if not self.batches:
                self.manifest = _kept(stream.manifest)
            self._wanted = self._wanted.found(self.manifest, stream.seed)
            self.samples, self.batches = stream.samples, stream.batches
            self._held.stream = stream
            open_streams.note(self)
        elif self._stream is not stream:
            stream.close()  # another thread was faster


def _seed(spec: Spec, supply: Supply) -> int:
    """The seed that was picked counts on where none is given."""
    seed = spec.order.seed
    return (supply.spec.order.seed or 0) if seed is None else seed


def _kept(manifest: Manifest) -> Manifest:
    """A manifest that may outlive its stream; a small one need not hold shared memory for that."""
    if len(manifest.table) > _LARGE:
        return manifest
    return Manifest.view(bytes(manifest.table))
