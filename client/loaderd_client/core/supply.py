"""The batches of one spec, from a succession of streams.

A stream ends when its daemon goes away, when its ring is reclaimed, when a step of it was
interrupted, when the spec changes, and in a forked child. A batch is a pure function of spec and
place, so another stream continues with the same bytes.

Streams are opened in a separate thread, where no signal handler runs: no exception can be raised
between the arrival of a descriptor and its assignment to an owner. A waiting call may be
interrupted at any time; the next one finds the stream that was opened meanwhile.
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

from loaderd.errors import DaemonGone, Draining, LoaderdError, RingReclaimed, StreamClosed
from loaderd.ipc.bundle import Bundle, Parts
from loaderd.ipc.manifest import Manifest
from loaderd.ipc.messages import Share
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
from loaderd_client.core.stream import Stream, StreamRequest, has_come

_CHILD_SLOTS = 2

_LARGE = 2**22
"""Bytes above which a manifest stays in shared memory."""

_START_SECONDS = 0.05
"""A thread that has not begun after this time was never started."""


class Superseded(Exception):
    """The order has changed, and the requested place is no longer valid."""


class Wanted:
    """The spec and the arrays that are requested; replaced as a whole.

    Args:
        spec: with its seed as soon as one is chosen.
        parts: arrays that the spec refers to, by name; the images at their present address.
        images: the bundle of the images, if it exists already.
        key: equal for requests of the same batches.
        share: the shared stream that they are read from; None for none.
    """

    def __init__(
        self,
        spec: Spec,
        parts: Parts,
        images: ImageBundle | None = None,
        key: object = None,
        share: Share | None = None,
    ) -> None:
        self.spec = spec
        self.parts = parts
        self.share = share
        self.key = key or object()
        self._images = images

    def replaced(self, spec: Spec, parts: Parts) -> Wanted:
        """A request with another spec and other parts; unchanged images are not copied."""
        same = "images" in parts and parts["images"] is self.parts.get("images")
        return Wanted(spec, parts, self._images if same else None)

    def found(self, manifest: Manifest, seed: int) -> Wanted:
        """The request after a stream of it was opened, with its seed and its listing.

        The folder is not listed again: all epochs have the same files, whatever changes in it.
        """
        order = msgspec.structs.replace(self.spec.order, seed=seed)
        spec, parts = msgspec.structs.replace(self.spec, order=order), self.parts
        if isinstance(spec.source, Directory):
            spec = msgspec.structs.replace(spec, source=Files(directory=spec.source.directory))
            parts = {**parts, "manifest": np.frombuffer(manifest.table, np.uint8)}
        return Wanted(spec, parts, self._images, self.key, self.share)

    def shared(self, share: Share | None) -> Wanted:
        """A request of the same, which takes part in a shared stream otherwise."""
        return Wanted(self.spec, self.parts, self._images, share=share)

    def bundles(self) -> list[Bundle]:
        """The bundles sent with the spec. Images have a bundle of their own, which is kept."""
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
        """Moves small images to private memory, so that no descriptor is held."""
        if self._images is not None:
            self.parts = {**self.parts, "images": self._images.rest(self.parts["images"])}


class _Opening:
    """The opening of a stream, in a separate thread."""

    def __init__(
        self, session: Session, wanted: Wanted, slots: int, run: Run, left: Deadline | None
    ) -> None:
        self.wanted = wanted
        self.pid = os.getpid()
        self.stream: Stream | None = None
        self.error: BaseException | None = None
        self.done = False
        self._cancelled = False
        self._session = session
        self._slots = slots
        self._run = run
        self._left = left
        self._begun = Claim()
        self._running = False
        # Held until the end. A lock and no eventfd: an interrupt here must lose no descriptor.
        self._pending = _thread.allocate_lock()
        self._pending.acquire()

    def wait(self) -> None:
        """Waits until there is a stream, or an error."""
        started = -_START_SECONDS
        while not self.done and not self._cancelled:
            if not self._running and monotonic() - started >= _START_SECONDS:
                started = monotonic()
                _thread.start_new_thread(self._work, ())
            # An interrupt before the release delays the others by at most the timeout.
            if self._pending.acquire(timeout=1 if self._running else _START_SECONDS):
                self._pending.release()

    def cancel(self) -> None:
        """Cancels the opening and wakes the waiting calls."""
        self._cancelled = True
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # it was released before
            self._pending.release()

    def _work(self) -> None:
        me = Caller()
        if self._begun.take(me) is not None:
            return  # a call that had started a thread was interrupted: this is the second
        self._running = True
        try:
            self.stream = self._open()
        except BaseException as error:
            self.error = error
        self.done = True
        self._wake()

    def _open(self) -> Stream:
        bundles = self.wanted.bundles()
        wanted = self.wanted
        request = StreamRequest(wanted.spec, self._slots, self._run, bundles, wanted.share)
        if self._left is None:
            return self._session.open(*request)
        while True:
            stream = self._session.reopen(request, self._left)
            if stream is not None:
                return stream
            if self._cancelled:
                raise StreamClosed("the stream was closed")


class _Held:
    """The stream of a supply, which may outlive it."""

    def __init__(self) -> None:
        self.stream: Stream | None = None

    @classmethod
    def by(cls, supply: Supply) -> Self:
        """The holder of a supply; when that is freed, its stream becomes a spare one.

        The finalizer refers to the stream: were the supply its only owner, the garbage collector
        might free parts of it first.
        """
        held = cls()
        weakref.finalize(supply, held.leave).atexit = False
        return held

    def leave(self) -> None:
        """Offers the stream to the spare streams; of a shared one takes nothing more."""
        if self.stream is not None and self.stream.first is not None:
            self.stream.close()
        elif self.stream is not None:
            spare_streams.keep(self.stream)


class Supply:
    """Batches by place, from one stream after another.

    Args:
        spec: decides the bytes of the batches.
        parts: arrays that the spec refers to, by name.
        session: opens the streams.
        slots: requested slots of the ring.
        ahead: whether batches are made before they are requested.

    Attributes:
        manifest: names and labels of all samples.
        batches, samples: in an epoch.

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
        """The requested spec, with its seed."""
        return self._wanted.spec

    def seeded(self, spec: Spec) -> Spec:
        """What the trainer has asked for, with the seed if that is a shared stream's."""
        return spec

    @property
    def parts(self) -> Parts:
        """The arrays that the spec refers to, at their present address."""
        return self._wanted.parts

    def __getstate__(self) -> dict[str, Any]:
        """The state from which a copy, or another process, gives the same batches."""
        kept = ("_slots", "_ahead", "_shape", "_closed", "samples", "batches")
        state = {name: getattr(self, name) for name in kept}
        wanted = self._wanted
        table = bytes(self.manifest.table)
        return state | {"spec": wanted.spec, "parts": dict(wanted.parts), "table": table}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Opens nothing yet."""
        self._wanted = Wanted(state.pop("spec"), state.pop("parts"))
        self.manifest = Manifest.view(state.pop("table"))
        self.__dict__.update(state)
        self._session = self._opening = None
        self._held = _Held.by(self)
        self._pid = os.getpid()

    @property
    def session(self) -> Session:
        """The session that opens the streams; the innermost open one after unpickling."""
        if self._session is None:
            self._session = sessions.current()
        return self._session

    def fetch(self, place: Place, me: Caller, still: Callable[[], bool] = lambda: True) -> Batch:
        """The batch at a place.

        Args:
            place: (epoch, position).
            me: the call that waits.
            still: whether the place is still valid.

        Raises:
            Superseded: it is not.
            BadImage: a file of the batch could not be read.
            DaemonGone: the daemon went away, and did not come back in time.
            StreamClosed: it was closed.
        """
        left: Deadline | None = None
        while True:
            stream = self._usable(place, left)
            if not still():  # checked with the stream in hand: a later one may have another order
                raise Superseded
            try:
                return stream.take(place, me)
            except (StreamClosed, RingReclaimed):
                if self._closed:
                    raise
            except (DaemonGone, Draining) as error:
                if left is None:  # the first loss reopens at once, further ones wait first
                    left = Deadline(self.session.reconnect_timeout)
                else:
                    self.session.wait(left, error)

    def change(self, spec: Spec, parts: Parts) -> None:
        """Continues with another spec."""
        if (spec.order, spec.batch) != (self.spec.order, self.spec.batch):
            self._shape = WHOLE
        chosen = self.spec.order.seed  # before, for a spec without one
        seed = chosen if spec.order.seed is None else spec.order.seed
        self._wanted = self._wanted.replaced(spec, parts).found(self.manifest, seed or 0)
        self._end_stream()

    def beside(self, spec: Spec, parts: Parts, me: Caller) -> Batch:
        """The first batch of another spec over the same samples, from a separate stream."""
        other = self._twin(_slots=1, _ahead=False)
        other.change(spec, parts)
        try:
            return other.fetch((0, 0), me)
        finally:
            other.close()

    def anew(self, spec: Spec) -> Supply:
        """A supply of another spec; a directory is listed again.

        Raises:
            LoaderdError: the stream cannot be opened.
        """
        parts = self.listed_parts(spec)
        return Supply(spec, parts, self.session, self._slots, self._ahead)

    def listed_parts(self, spec: Spec) -> Parts:
        """The parts without the listing of a directory, if that is to be listed again."""
        is_listed = isinstance(spec.source, Directory)
        return {
            name: part for name, part in self.parts.items() if name != "manifest" or not is_listed
        }

    def shifted(self, place: Place) -> Place:
        """The stream's place of one that the sequence counts."""
        return place

    def begin_permuted(self) -> None:
        """Notes that Keras permutes the indices of the pass that begins."""

    @property
    def phase(self) -> int:
        """The batch of the stream's epochs with which the trainer's begin."""
        return 0

    def continue_at(self, place: Place, phase: int) -> Place:
        """Counts as the trainer of a state did; returns where its next batch is by that count.

        Args:
            place: the stream's place of the batch.
            phase: of that trainer.
        """
        return place

    def _twin(self, **changed: Any) -> Supply:
        """Another supply of the same batches, without a stream."""
        other = Supply.__new__(Supply)
        other.__dict__.update(self.__dict__, _opening=None, _held=_Held.by(other), **changed)
        return other

    def close(self) -> None:
        """Ends the stream. Arrays that were handed out stay valid."""
        self._closed = True
        opening = self._opening
        if opening is not None and opening.pid == os.getpid():
            opening.cancel()
        self._end_stream()

    def rest(self) -> None:
        """Ends the stream until the next request, and holds no descriptor until then."""
        self._end_stream()
        self._wanted.rest()

    @property
    def ended(self) -> bool:
        """Whether there is no open stream: a failed request may not have been at fault."""
        return self._stream is None or self._stream.ended

    @property
    def idle_since(self) -> float | None:
        """When a batch was last requested; None while a call waits, or without a stream."""
        stream = self._stream
        if stream is None or stream.ended or not stream.subscription.idle:
            return None
        return stream.used_at

    def _end_stream(self) -> None:
        stream, self._held.stream = self._stream, None
        if stream is not None:
            stream.close()

    def _usable(self, place: Place, left: Deadline | None) -> Stream:
        """The open stream of the present request; opens one if there is none."""
        while True:
            if self._closed:
                raise StreamClosed("the stream was closed")
            stream, wanted = self._stream, self._wanted
            if stream is not None and not stream.ended:
                return stream
            if stream is not None:
                stream.check()
                self._shape = stream.subscription.shape
                stream.release_ring()  # the new ring may need its memory
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
        if left is None and self.samples:  # the daemon has answered before: wait for it
            left = Deadline(self.session.reconnect_timeout)
        if os.getpid() == self._pid:
            run = self._shape.at(place if self._ahead else None)
            return _Opening(self.session, wanted, self._slots, run, left)
        # Siblings of a forked child read other indices: make nothing ahead.
        return _Opening(self.session, wanted, _CHILD_SLOTS, self._shape.at(None), left)

    def _adopt(self, opening: _Opening) -> None:
        if self._opening is opening:
            self._opening = None
        error, stream = opening.error, opening.stream
        if error is not None:
            raise type(error)(*error.args) if isinstance(error, LoaderdError) else error
        assert stream is not None
        if opening.wanted.key is not self._wanted.key or self._closed:
            stream.close()  # the request was replaced meanwhile
        elif self._stream is None or self._stream.ended:
            if not self.batches:
                found = stream.manifest
                large = len(found.table) > _LARGE
                self.manifest = found if large else Manifest.view(bytes(found.table))
            self._wanted = self._wanted.found(self.manifest, stream.seed)
            self.samples, self.batches = stream.samples, stream.batches
            self._held.stream = stream
            open_streams.note(self)
        elif self._stream is not stream:
            stream.close()  # another thread was faster


def is_ready(supply: Supply, place: Place) -> bool:
    """Whether the batch at a place can be taken without waiting; False if that is not known."""
    stream = supply._stream
    return stream is not None and has_come(stream, supply.shifted(place))
