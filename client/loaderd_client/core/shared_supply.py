"""The batches of one spec, from a stream that other trainers read too.

::

    the next in order ────────► the shared stream ── rendered once, read by all
    anything else, or         ► a stream of its own ── the same bytes, rendered again
    left behind, until it has
    caught up

A batch is a pure function of spec and place, so it does not matter where it comes from.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np

from loaderd.errors import InvalidArgument, LeftBehind, OutOfStep
from loaderd.ipc.bundle import Parts
from loaderd.ipc.messages import Join, Share
from loaderd.ipc.prefetch import ROUND, Place
from loaderd.spec.output import Shard
from loaderd.spec.source import Directory
from loaderd.spec.spec import Spec, with_seed
from loaderd_client.core import arguments, user_warnings
from loaderd_client.core.batch import Batch
from loaderd_client.core.deadline import Deadline
from loaderd_client.core.guard import Caller
from loaderd_client.core.session import Session
from loaderd_client.core.stream import warn
from loaderd_client.core.supply import Supply, Wanted

MAX_NAME = 100
"""Characters of a shared stream's name."""

_LOOKED_AT = (0, 1)
"""Positions that Keras reads before a pass to learn their shapes, and then again."""


class Sharing(NamedTuple):
    """How a sequence takes part in a shared stream.

    Attributes:
        name: of the stream.
        join: where one begins that comes late: with the next ``epoch``, or ``now``; ``alone``: it
            joins when it has a place.
        seeded: whether the seed was asked for; else the stream's is taken.
    """

    name: str
    join: Join
    seeded: bool

    @classmethod
    def of(
        cls,
        share: str | None,
        join: str,
        seed: object,
        subset: str | None,
        shard: Shard | None,
    ) -> Self | None:
        """How a dataset takes part in a stream; None for no sharing.

        Args:
            share: the name that it was given, or None.
            join: ``epoch`` or ``now``, which goes with ``share``.
            seed: that it was given, or None.
            subset: its part, which is a stream of its own; None for all.
            shard: its trainer among several, whose batches are a stream of their own; None for all.

        Raises:
            InvalidArgument: one is not allowed.
        """
        where: Join = arguments.one_of("join", join, ("epoch", "now"))
        if share is None:
            if where == "now":
                raise InvalidArgument('`join` goes with `share`: give share="name" too')
            return None
        name = arguments.text("share", share)
        if not name:
            raise InvalidArgument("`share` is empty: give a name, or None to share with nobody")
        if len(name) > MAX_NAME:
            raise InvalidArgument(
                f"`share` should be a name of at most {MAX_NAME} characters. Received: {share!r}"
            )
        parts = [name]
        if subset is not None:
            parts.append(subset)
        if shard is not None and shard.count > 1:
            parts.append(f"{shard.index}-of-{shard.count}")
        return cls("/".join(parts), where, seed is not None)


class SharedSupply(Supply):
    """Batches by place, from a shared stream while they are read in its order.

    Epochs count from where the trainer has joined: its place (0, 0) is the first batch that it got.
    Arrays are read-only, as others may have the same memory.

    Args:
        spec: decides the bytes of the batches; its seed, unless that was asked for, if it is the
            first of the stream.
        parts: arrays that the spec refers to, by name.
        session: opens the streams.
        slots: requested slots of a ring.
        sharing: which stream is shared.

    Raises:
        InvalidArgument: a stream of this name is open, and is of another spec.
        LoaderdError: the stream cannot be opened.
    """

    def __init__(
        self, spec: Spec, parts: Parts, session: Session, slots: int, sharing: Sharing
    ) -> None:
        self._share: Share | None = Share(*sharing, _digest(spec, parts))
        self._own: Supply | None = None
        self._offset: int | None = None
        self._strays = self._pause = 0
        self._told = False
        self._looked_at: dict[Place, Batch] = {}
        super().__init__(spec, parts, session, slots)
        if session.is_private and sharing.join != "alone":
            user_warnings.warn(
                f"share={sharing.name!r}: only this program reads from its private daemon: run "
                '`loaderd start` before the trainers, or use connect("auto"), which starts none'
            )
        self._tell_late()

    def __getstate__(self) -> dict[str, Any]:
        """The state from which a copy, or another process, joins at the same place."""
        return super().__getstate__() | {"_share": self._share, "_offset": self._offset}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Opens nothing yet."""
        super().__setstate__(state)
        self._own = None
        self._strays = self._pause = 0
        self._told = False
        self._looked_at = {}

    @property
    def first(self) -> Place:
        """The stream's place at which this trainer's place (0, 0) is."""
        first = self._stream.first if self._offset is None and self._stream is not None else None
        return divmod(self._offset or 0, self.batches) if first is None else first

    def seeded(self, spec: Spec) -> Spec:
        """What the trainer has asked for, with the stream's seed."""
        return with_seed(spec, self.spec.order.seed or 0)

    def fetch(self, place: Place, me: Caller, still: Callable[[], bool] = lambda: True) -> Batch:
        """The batch at a place of this trainer's; see ``Supply.fetch``."""
        if self._share is None:
            return _read_only(super().fetch(self.shifted(place), me, still))
        again = self._looked_at.get(place)
        if again is not None and still():
            return again
        self._pause = max(0, self._pause - 1)
        is_apart = self._pause or os.getpid() != self._pid
        batch = None if is_apart else self._in_step(place, me, still)
        if batch is None:
            batch = self._apart().fetch(self.shifted(place), me, still)
        return self._noted(place, _read_only(batch))

    def change(self, spec: Spec, parts: Parts) -> None:
        """Continues with another spec, and so without the others."""
        super().change(spec, parts)
        share, self._share = self._share, None
        if self._own is not None:
            self._own.close()
        if share is not None:
            user_warnings.warn(
                f"share={share.name!r}: the state of a function has changed, so this trainer has "
                "batches of its own from now on, rendered for it alone"
            )

    def begin_permuted(self) -> None:
        """Warns of a pass that does not follow the order of the stream."""
        if self._share is not None and not self.spec.order.shuffle:
            user_warnings.warn(
                f"share={self._share.name!r}: `fit` reads a dataset of shuffle=False in another "
                "order, so most batches are rendered for this trainer alone: use "
                "fit(shuffle=False), or make the dataset with shuffle=True"
            )

    def close(self) -> None:
        """Ends the streams. Arrays that were handed out stay valid."""
        super().close()
        if self._own is not None:
            self._own.close()

    def rest(self) -> None:
        """Ends the streams until the next request, and holds no descriptor until then."""
        super().rest()
        if self._own is not None:
            self._own.rest()

    @property
    def ended(self) -> bool:
        """Whether there is no open stream; see ``Supply.ended``."""
        return super().ended and (self._own is None or self._own.ended)

    def _in_step(self, place: Place, me: Caller, still: Callable[[], bool]) -> Batch | None:
        """The batch from the shared stream; None if it is not one that comes there."""
        while True:
            try:
                if self._offset is None:
                    self._usable((0, 0), None)
                batch = super().fetch(self.shifted(place), me, still)
            except OutOfStep:
                self._strays += 1
                if super().ended or self._strays > self._slots:
                    self._leave()
                return None
            except InvalidArgument as error:  # the name is another stream's meanwhile
                self._tell_alone(f"{error}; goes on alone meanwhile")
                self._leave()
                return None
            except LeftBehind:
                if self._offset is None:  # it has not begun: it may join anew
                    self._end_stream()
                    continue
                self._leave()
                return None
            self._strays = 0
            if self._own is not None and not self._own.ended:
                self._own.rest()
            return batch

    def _tell_alone(self, words: str) -> None:
        if not self._told:
            self._told = True
            warn(words)

    def _leave(self) -> None:
        """Goes on without the others; looks for them again after as many batches as a ring has."""
        if self._stream is not None and self._own is not None:
            self._own.rest()  # a stream for stray requests, which makes nothing ahead
        self._end_stream()
        self._strays, self._pause = 0, self._slots

    def _apart(self) -> Supply:
        """The supply of the batches that do not come from the shared stream."""
        if self._own is None:
            self._own = self._twin(_wanted=self._wanted.shared(self._shared_at("alone")))
        self._own._ahead = self._pause > 0
        return self._own

    def anew(self, spec: Spec) -> Supply:
        """A supply of another spec, which shares the stream of that under the same name.

        Others may still read another one of that name, and take this spec later, so it is listed by
        a stream of its own, and ``continue_at`` must follow.
        """
        if self._share is None:
            return super().anew(spec)
        sharing = Sharing(self._share.name, "alone", seeded=True)
        return SharedSupply(spec, self.listed_parts(spec), self.session, self._slots, sharing)

    @property
    def phase(self) -> int:
        """The batch of the stream's epochs with which the trainer's begin."""
        return self.first[1]

    def continue_at(self, place: Place, phase: int) -> Place:
        """Counts as the trainer of a state did; joins at its place, wherever it has joined."""
        self._offset = phase
        self._strays = self._pause = 0
        self._looked_at.clear()
        self._end_stream()
        return divmod(place[0] * self.batches + place[1] - phase, self.batches)

    def shifted(self, place: Place) -> Place:
        """The stream's place of one of this trainer's places."""
        (epoch, position), (rounds, own) = self.first, divmod(place[0], ROUND)
        over, position = divmod(position + place[1], self.batches)
        return rounds * ROUND + epoch + own + over, position

    def _noted(self, place: Place, batch: Batch) -> Batch:
        """Keeps copies of those that Keras reads twice; fixes where this trainer has begun."""
        if self._offset is None:
            epoch, position = batch.place
            self._offset = (epoch % ROUND - place[0] % ROUND) * self.batches + position - place[1]
        if place[1] in _LOOKED_AT and not place[0] // ROUND:
            for other in [other for other in self._looked_at if other[0] != place[0]]:
                self._looked_at.pop(other, None)
            self._looked_at[place] = _copied(batch)
        return batch

    def _begin(self, wanted: Wanted, place: Place, left: Deadline | None) -> Any:
        wanted.share = self._shared_at("place" if self._offset is not None else None)
        return super()._begin(wanted, place, left)

    def _shared_at(self, join: Join | None) -> Share | None:
        """What is asked for; None joins as the trainer wants to."""
        if self._share is None or not self.batches:
            return self._share
        return msgspec.structs.replace(self._share, join=join or self._share.join, seeded=True)

    def _tell_late(self) -> None:
        epoch, position = self.first
        if (epoch or position) and self._share is not None:
            at = f" at batch {position}" if position else ""
            warn(f"share={self._share.name!r}: joins the others in their epoch {epoch + 1}{at}")


def supply_of(
    spec: Spec, parts: Parts, session: Session, slots: int, sharing: Sharing | None
) -> Supply:
    """The supply of a sequence, which shares a stream with others or does not."""
    if sharing is not None:
        return SharedSupply(spec, parts, session, slots, sharing)
    # Saved pictures must be those of the batches taken, so nothing is made ahead.
    return Supply(spec, parts, session, slots, ahead=spec.output.save is None)


def _digest(spec: Spec, parts: Parts) -> bytes:
    """Of the dataset that is asked for: the listing that comes later is not a part of it."""
    source = spec.source
    if isinstance(source, Directory):
        source = msgspec.structs.replace(source, shuffle_seed=None)  # it goes with the order's seed
    digest = hashlib.blake2b(repr(source).encode(errors="backslashreplace"), digest_size=16)
    for name, part in sorted(parts.items()):
        digest.update(repr((name, part.dtype.str, part.shape)).encode())
        digest.update(np.ascontiguousarray(part).data.cast("B"))
    return digest.digest()


def _read_only(batch: Batch) -> Batch:
    for array in (batch.images, batch.labels, batch.weights, *batch.annotations.values()):
        if array is not None:
            array.flags.writeable = False
    return batch


def _copied(batch: Batch) -> Batch:
    """The batch in memory of its own, so that it holds no slot."""
    annotations = {name: array.copy() for name, array in batch.annotations.items()}
    return _read_only(
        batch._replace(
            images=batch.images.copy(),
            labels=None if batch.labels is None else batch.labels.copy(),
            weights=None if batch.weights is None else batch.weights.copy(),
            annotations=MappingProxyType(annotations),
        )
    )
