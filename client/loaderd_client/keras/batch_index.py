"""The mapping of a sequence's indices to places.

A stream has batches by place, (epoch, position). A trainer reads in three ways:

- **by index**: index i is position i of the present epoch, for any thread and in any order. An
  index that is read again has the same samples and new random parameters
  (``loaderd.ipc.prefetch.ROUND``). ``on_epoch_end`` ends the epoch, whatever was read of it, so two
  sequences stay in step, even if only one was inspected. The enqueuers of Keras 2 read ahead by
  index, into epochs that ``fit`` may not reach.
- **by next**: position after position, endlessly, over the ends of epochs.
- **in a pass**: a loop over all indices, of Keras's (``fit``) or of the user's. ``fit(shuffle=
  True)`` permutes the indices of its passes. The batches of a shuffled epoch are exchangeable, so
  the first index of a shuffled pass gets the first batch and so on, and no permutation delays a
  read. Those of an epoch that is not shuffled come in an order drawn from (seed, epoch) then, and
  not in Keras's, which comes from a generator that a resumed program has in another state. Keras
  may read a batch to build a model (a trial), inspect some indices before a pass, abandon a pass,
  let one last for several epochs of ``fit`` (``steps_per_epoch``), and call ``on_epoch_end`` before
  the first pass and repeatedly. So an epoch ends when a pass begins after one that was complete, or
  after one of which something was read and after which Keras has called ``on_epoch_end``.

A program that is resumed begins with the batches that are left of an epoch, by ``next`` and in its
first pass.

If a call that got a place by ``next`` or by index is left by an exception before ``done``, the next
call of the same kind gets that place: no batch is lost. A pass that an exception has left is
abandoned.

Methods must be called by one thread at a time. An exception at any point within one is harmless, by
the order of its steps.
"""

from __future__ import annotations

from typing import NamedTuple

from loaderd.ipc.prefetch import ROUND, Place
from loaderd.sampling.order import Ids, batch_order
from loaderd_client.core.guard import Caller

_KEPT_PASSES = 4
"""Passes kept: as TensorFlow reads ahead, an abandoned one may overlap the next."""


class _Pending:
    """Places that were given to calls and are not done yet."""

    def __init__(self) -> None:
        self._owners: dict[Place, Caller] = {}

    def take_over(self, me: Caller, index: int | None = None) -> Place | None:
        """Takes the first place whose call has left, of ``index`` if that is given."""
        for place, owner in sorted(self._owners.items()) if self._owners else ():
            if index in (None, place[1]) and (owner.thread == me.thread or owner.left):
                self._owners[place] = me
                return place
        return None

    def give(self, place: Place, me: Caller) -> None:
        """Assigns a place to a call."""
        self._owners[place] = me

    def done(self, place: Place) -> None:
        """Removes a place that was delivered."""
        self._owners.pop(place, None)

    @property
    def places(self) -> list[Place]:
        """Those that are not done."""
        return [*self._owners]


class _ByIndex:
    """The reads by index of one epoch: ``reads`` of each index, and their ``count``."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.pending = _Pending()
        self.reads: dict[int, int] = {}
        self.count = 0

    def read(self, index: int, me: Caller) -> Place:
        """The place of an index, in a new round for each read."""
        place = self.pending.take_over(me, index)
        if place is None:
            place = (self.epoch + self.reads.get(index, 0) * ROUND, index)
            self.pending.give(place, me)
            self.count += 1
        self.reads[index] = max(self.reads.get(index, 0), place[0] // ROUND + 1)
        return place


class PassKind(NamedTuple):
    """How a pass reads.

    Attributes:
        anew: it begins a new epoch also after an incomplete pass.
        announced: it was announced, and is not only known by its first read.
        permuted: Keras permutes its indices.
        trial: Keras only builds a model with its first batches, which do not count as read.
    """

    anew: bool = False
    announced: bool = True
    permuted: bool = False
    trial: bool = False


class _Pass:
    """A pass over an epoch, or over what is left of one.

    Attributes:
        epoch: its epoch.
        kind: how it reads.
        start: batches of the epoch that were read before, by a program that was resumed.
        read: batches of the epoch that were read, with those.
        order: the order of its batches, where that is not 0, 1, 2, …, and not Keras's.
        pending: positions that were given to calls and are not done yet, each with how many
            batches were read before.
    """

    def __init__(self, epoch: int, kind: PassKind, start: int, order: Ids | None) -> None:
        self.epoch = epoch
        self.kind = kind
        self.start = self.read = start
        self.order = order
        self.pending: dict[int, int] = {}

    @property
    def delivered(self) -> int:
        """Batches of the epoch before the first that was not delivered."""
        return min([self.read, *self.pending.values()])


_USUAL = PassKind()


class Places:
    """The indices of one sequence.

    Args:
        batches: batches in an epoch.
        shuffle: whether the batches of an epoch are exchangeable within a pass.
        seed: decides the order of the batches, where Keras permutes those of unshuffled epochs.
    """

    def __init__(self, batches: int, shuffle: bool, seed: int = 0) -> None:
        self._batches = batches
        self._shuffle = shuffle
        self._seed = seed
        self._forget((0, 0))

    def resume(self, place: Place) -> None:
        """Continues with the batch at a place, as if all before it had been read."""
        self._forget(place)

    def _forget(self, place: Place) -> None:
        epoch, _ = self._resumed = place
        self._by_index = _ByIndex(epoch)
        # The place that ``next`` reads next; position ``batches``: the start of a new epoch.
        self._by_next: Place = (epoch, 0)
        self._next_pending = _Pending()
        self._passes: dict[object, _Pass] = {}
        self._last: _Pass | None = None
        self._ended = False

    @property
    def _start(self) -> int:
        """Batches of the present epoch that were read before the program was resumed."""
        return self._resumed[1] if self._resumed[0] == self.epoch else 0

    @property
    def epoch(self) -> int:
        """The present epoch."""
        return self._by_index.epoch

    @property
    def touched(self) -> bool:
        """Whether anything of the present epoch was read."""
        return bool(self._by_index.reads or self._next_began or self._last_read or self._start)

    @property
    def between_epochs(self) -> bool:
        """Whether any next read may begin an epoch."""
        last, reads = self._last_read, self._by_index.count
        by_next = (self._next_began and self.position > 0) or self._start > 0
        in_pass = last is not None and last.read < self._batches
        return not by_next and not in_pass and reads % self._batches == 0

    @property
    def _last_read(self) -> _Pass | None:
        """The last pass, if it has read of the present epoch."""
        last = self._last
        if last is None or last.epoch != self.epoch or last.read == last.start:
            return None
        return last

    @property
    def _next_began(self) -> bool:
        """Whether ``next`` has read of the present epoch."""
        epoch, position = self._by_next
        return epoch == self.epoch and position > 0

    # -- by index --------------------------------------------------------------------

    def read(self, index: int, me: Caller) -> Place:
        """The place of an index, for a read."""
        return self._by_index.read(index, me)

    def peek(self, index: int) -> Place:
        """The place of an index, for a look that does not count as a read."""
        return (self.epoch, index)

    def end_epoch(self) -> None:
        """Ends the epoch of reads by index (``on_epoch_end``)."""
        self._by_index = _ByIndex(self.epoch + 1)

    def begin_again(self, back: int) -> None:
        """Goes ``back`` epochs, and forgets their reads by index."""
        self._by_index = _ByIndex(max(0, self.epoch - back))

    # -- by next ---------------------------------------------------------------------

    @property
    def position(self) -> int:
        """The position that ``next`` reads next."""
        return self._by_next[1] % self._batches or self.upcoming[1]

    @position.setter
    def position(self, value: int) -> None:
        epoch, position = self._by_next
        begins = value % self._batches == 0 and (position or self.upcoming[1]) > 0
        new = (epoch, self._batches if begins else value)
        self._next_pending, self._by_next, self._resumed = _Pending(), new, (0, 0)

    def next(self, me: Caller) -> Place:
        """The next place, of a call that was left or ``upcoming``."""
        place = self._next_pending.take_over(me)
        if place is None:
            place = self.upcoming
            self._next_pending.give(place, me)
        if place == self.upcoming:  # also if the earlier call was left before these steps
            self._by_next = (place[0], place[1] + 1)
        if place[0] > self.epoch:
            self._by_index = _ByIndex(place[0])
        return place

    @property
    def upcoming(self) -> Place:
        """The place that ``next`` gives next, unless an earlier call was left."""
        position = self._by_next[1]
        if 0 < position < self._batches:
            return (self.epoch, position)  # on_epoch_end may have changed the order
        if self._next_began or self._last_read is not None:
            return (self.epoch + 1, 0)
        return (self.epoch, self._start)

    # -- in passes -------------------------------------------------------------------

    def begin_pass(self, key: object, kind: PassKind = _USUAL) -> None:
        """Begins a pass, which ``key`` identifies."""
        if self._is_over(kind):
            self.end_epoch()
        self._ended = False
        order = None
        if kind.permuted and not self._shuffle:
            order = batch_order(self._seed, self.epoch, self._batches)
        begun = _Pass(self.epoch, kind, self._start, order)
        if not kind.trial:
            self._last = begun
        self._passes.pop(key, None)
        self._passes[key] = begun
        while len(self._passes) > _KEPT_PASSES:
            del self._passes[next(iter(self._passes))]

    def _is_over(self, kind: PassKind) -> bool:
        """Whether a pass that begins now begins an epoch."""
        last = self._last_read
        if last is None:
            return self._next_began
        return kind.anew or self._ended or last.read >= self._batches

    @property
    def upcoming_pass(self) -> Place:
        """The place that a pass of a loop that begins now reads first."""
        if self._is_over(PassKind(anew=True)):
            return (self.epoch + 1, 0)
        return (self.epoch, self._start)

    @property
    def following(self) -> Place:
        """The place that the last pass, of a loop, reads next."""
        return self.upcoming_pass if self._last is None else (self._last.epoch, self._last.read)

    @property
    def pass_length(self) -> int:
        """Batches of a pass of Keras's that begins now."""
        return self._batches - (0 if self._is_over(_USUAL) else self._start)

    def left(self, key: object) -> int:
        """Batches that a pass has not read; after ``resume`` those of the next one."""
        one = self._passes.get(key)
        return self.pass_length if one is None else self._batches - one.read

    def read_pass(self, key: object, index: int | None) -> Place:
        """The place of an index in a pass, or of its next batch."""
        one = self._passes.get(key)
        if one is None or one.read >= self._batches:
            self.begin_pass(key, PassKind(announced=False))
            one = self._passes[key]
        position = one.read if self._shuffle or index is None or one.start else index
        if one.order is not None:
            position = int(one.order[one.read])
        one.pending[position] = one.read
        one.read += 1
        return (one.epoch, position)

    def end_pass(self) -> None:
        """Handles ``on_epoch_end`` of Keras itself, which may come early, repeatedly or never."""
        self._ended = True
        for key in [key for key, one in self._passes.items() if not one.kind.announced]:
            del self._passes[key]  # Keras 2: the next one may have the same key

    # -- delivered -------------------------------------------------------------------

    def done(self, place: Place) -> None:
        """Marks a batch as delivered, or as one that cannot be made."""
        self._by_index.pending.done(place)
        self._next_pending.done(place)
        if self._last is not None and self._last.epoch == place[0]:
            self._last.pending.pop(place[1], None)

    @property
    def delivered(self) -> Place:
        """The first place that was not delivered, if batches are read in order.

        Where an epoch is read in several ways, the one counts that has got farthest.
        """
        by_index = self._by_index
        count = max(self._start, len(by_index.reads) - len(by_index.pending.places))
        if self._last_read is not None:
            count = max(count, self._last_read.delivered)
        if self._next_began:
            first = min([self._by_next, *self._next_pending.places])
            if first[0] < self.epoch:
                return first
            count = max(count, first[1])
        return (self.epoch, count) if count < self._batches else (self.epoch + 1, 0)
