"""Which batch an index means, and which comes next.

A stream holds batches by place, (epoch, position). A trainer asks in three ways:

- **by index**: index i is position i of the present epoch, whoever asks, in whatever order. An
  index that is read again has the same samples and new random parameters
  (``loaderd.ipc.prefetch.ROUND``). The epoch ends with ``on_epoch_end``, read or not, so that two
  sequences that are told together stay together, though somebody had a look at one of them. The
  enqueuers of Keras 2 read ahead by index, into epochs that ``fit`` may not come to.
- **by next**: position after position, endlessly; after the last of an epoch comes the next epoch.
- **in a pass**: a loop over all indices, of Keras's (``fit``) or of the user's. ``fit(shuffle=
  True)`` permutes the indices of its passes; as the batches of a shuffled epoch are exchangeable,
  the first index of a shuffled pass gets the first batch and so on, so that no permutation makes
  anybody wait. Keras may look at some indices before a pass, abandon a pass, let one last for
  several epochs of ``fit`` (``steps_per_epoch``), and call ``on_epoch_end`` before the first pass
  and again and again. So what ends an epoch is that a pass begins after one that was whole, or
  after one of which something was read and Keras has said since that the epoch is over.

A place that ``next`` or an index gave to a call which was left by an exception, before it has said
``done``, goes to the next call that asks in the same way: nothing is lost. A pass that an
exception has left is abandoned.

Methods must be called by one thread at a time. Any of them may be left half-way by an exception:
the order of the steps makes that harmless.
"""

from __future__ import annotations

from typing import NamedTuple

from loaderd.ipc.prefetch import ROUND, Place
from loaderd_client.core.guard import Caller

_KEPT_PASSES = 4
"""An abandoned pass may go on for a while beside the next, as TensorFlow reads ahead."""


class _Handed:
    """Places that were given to calls and are not done."""

    def __init__(self) -> None:
        self._owners: dict[Place, Caller] = {}

    def take_over(self, me: Caller, index: int | None = None) -> Place | None:
        """Gives the first place that a call has left, of that index if one is meant."""
        for place, owner in sorted(self._owners.items()) if self._owners else ():
            if index in (None, place[1]) and (owner.thread == me.thread or owner.left):
                self._owners[place] = me
                return place
        return None

    def give(self, place: Place, me: Caller) -> None:
        """Gives a place to a call."""
        self._owners[place] = me

    def done(self, place: Place) -> None:
        """The place was delivered."""
        self._owners.pop(place, None)


class _ByIndex:
    """One epoch as it is read by index: how often each index was, and all of them."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.handed = _Handed()
        self.reads: dict[int, int] = {}
        self.count = 0

    def read(self, index: int, me: Caller) -> Place:
        """The batch of an index, each time in another round."""
        place = self.handed.take_over(me, index)
        if place is None:
            place = (self.epoch + self.reads.get(index, 0) * ROUND, index)
            self.handed.give(place, me)
            self.count += 1
        self.reads[index] = max(self.reads.get(index, 0), place[0] // ROUND + 1)
        return place


class _ByNext(NamedTuple):
    """What ``next`` gives next; position ``batches`` stands for the first of a new epoch."""

    epoch: int
    position: int


class _Pass:
    """A pass over an epoch.

    Attributes:
        epoch: which.
        announced: whether Keras has said that it begins.
        read: how many indices were read.
    """

    def __init__(self, epoch: int, announced: bool) -> None:
        self.epoch = epoch
        self.announced = announced
        self.read = 0


class Places:
    """The indices of one sequence.

    Args:
        batches: batches in an epoch.
        shuffle: whether the batches of an epoch are exchangeable within a pass.
    """

    def __init__(self, batches: int, shuffle: bool) -> None:
        self._batches = batches
        self._shuffle = shuffle
        self._by_index = _ByIndex(0)
        self._by_next = _ByNext(0, 0)
        self._next_handed = _Handed()
        self._passes: dict[object, _Pass] = {}
        self._last: _Pass | None = None
        self._ended = False

    @property
    def epoch(self) -> int:
        """The present epoch."""
        return self._by_index.epoch

    @property
    def touched(self) -> bool:
        """Whether anything of the present epoch was read."""
        last = self._last
        by_next = self._by_next.epoch == self.epoch and self._by_next.position > 0
        return bool(self._by_index.reads) or by_next or (last is not None and self._is_read(last))

    @property
    def between_epochs(self) -> bool:
        """Whether all that is asked for next may begin an epoch."""
        last, reads = self._last, self._by_index.count
        by_next = self._by_next.epoch == self.epoch and self.position > 0
        in_pass = last is not None and self._is_read(last) and last.read < self._batches
        return not by_next and not in_pass and reads % self._batches == 0

    def _is_read(self, one: _Pass) -> bool:
        return one.epoch == self.epoch and one.read > 0

    def _advance(self) -> None:
        self._by_index = _ByIndex(self.epoch + 1)

    # -- by index --------------------------------------------------------------------

    def read(self, index: int, me: Caller) -> Place:
        """The batch that an index means now."""
        return self._by_index.read(index, me)

    def peek(self, index: int) -> Place:
        """The same for a look that does not count."""
        return (self.epoch, index)

    def end_epoch(self) -> None:
        """``on_epoch_end``, of whoever reads by index."""
        self._advance()

    def begin_again(self, back: int) -> None:
        """The epoch ``back`` before the present one is read as if nothing of it had been."""
        self._by_index = _ByIndex(max(0, self.epoch - back))

    # -- by next ---------------------------------------------------------------------

    @property
    def position(self) -> int:
        """The position that ``next`` comes to next."""
        return self._by_next.position % self._batches

    @position.setter
    def position(self, value: int) -> None:
        epoch = self._by_next.epoch
        new = _ByNext(epoch, self._batches if value % self._batches == 0 and self._began else value)
        self._next_handed, self._by_next = _Handed(), new

    @property
    def _began(self) -> bool:
        return self._by_next.position > 0

    def next(self, me: Caller) -> Place:
        """The batch that comes next."""
        place = self._next_handed.take_over(me)
        if place is None:
            place = self.upcoming
            self._next_handed.give(place, me)
        if place == self.upcoming:  # also where that call was left before the next steps
            self._by_next = _ByNext(place[0], place[1] + 1)
        if place[0] > self.epoch:
            self._by_index = _ByIndex(place[0])
        return place

    @property
    def upcoming(self) -> Place:
        """The batch that ``next`` gives next, if no call has left another one."""
        epoch, position = self._by_next
        if self._began and position < self._batches:
            return (self.epoch, position)  # on_epoch_end may have changed the order
        last = self._last
        used = (epoch == self.epoch and self._began) or (last is not None and self._is_read(last))
        return (self.epoch + used, 0)

    # -- in passes -------------------------------------------------------------------

    def begin_pass(self, key: object, *, anew: bool = False, announced: bool = True) -> None:
        """A pass begins.

        Args:
            key: names it.
            anew: whether it begins a new epoch also after one that was not whole.
            announced: whether it was announced, or just begins to read.
        """
        last = self._last
        if last is not None and self._is_read(last):
            if anew or self._ended or last.read >= self._batches:
                self._advance()
        elif self._by_next.epoch == self.epoch and self._began:
            self._advance()
        self._ended = False
        self._last = _Pass(self.epoch, announced)
        self._passes.pop(key, None)
        self._passes[key] = self._last
        while len(self._passes) > _KEPT_PASSES:
            del self._passes[next(iter(self._passes))]

    def read_pass(self, key: object, index: int) -> Place:
        """The batch that an index means in a pass."""
        one = self._passes.get(key)
        if one is None or one.read >= self._batches:
            self.begin_pass(key, announced=False)
            one = self._passes[key]
        position = one.read if self._shuffle else index
        one.read += 1
        return (one.epoch, position)

    def end_pass(self) -> None:
        """``on_epoch_end``, of Keras itself; it may come early, often or never."""
        self._ended = True
        for key in [key for key, one in self._passes.items() if not one.announced]:
            del self._passes[key]  # Keras 2: the next one may have the same key

    # -- delivered -------------------------------------------------------------------

    def done(self, place: Place) -> None:
        """A batch was delivered, or it is the batch itself that cannot be had."""
        self._by_index.handed.done(place)
        self._next_handed.done(place)
