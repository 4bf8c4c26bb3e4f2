"""``state_dict`` and ``load_state_dict`` of a sequence, and what a resumed ``fit`` needs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from loaderd.errors import InvalidArgument
from loaderd.ipc.prefetch import Place
from loaderd.sampling.epoch_layout import EpochLayout
from loaderd.spec.spec import Spec, with_seed
from loaderd_client.core import arguments
from loaderd_client.core.supply import Supply
from loaderd_client.core.worker_epochs import DataLoaderWorker
from loaderd_client.keras import adapter
from loaderd_client.keras.batch_index import Places
from loaderd_client.keras.data_loader import InDataLoader
from loaderd_client.keras.reader import FixedMapping, Reader
from loaderd_client.keras.state import (
    VERSION,
    Identity,
    SequenceState,
    dataset_digest,
    spec_digests,
)

_LISTED = ("filenames", "filepaths")
"""Cached attributes that another listing changes."""


class Resumable(InDataLoader):
    """A sequence whose position can be saved."""

    _digest: tuple[object, str] | None = None
    """The digest of the dataset, with the parts it was made of."""

    def state_dict(self) -> dict[str, Any]:
        """Where the sequence is, for ``load_state_dict`` of one like it, also in another process.

        All batches count that were handed out, by ``next``, by a loop, or by index. Within ``fit``
        that is more than the model was trained on, as Keras reads ahead: use
        :class:`loaderd_client.callbacks.BackupAndRestore` or
        :class:`~loaderd_client.callbacks.LoaderState` there.

        Returns:
            Numbers and texts, at most 200 bytes as JSON: ``version``; ``spec`` and ``data``,
            digests of the spec and of the dataset; ``files``, how many there are; ``seed``;
            ``epoch``, from 0; ``samples`` of this epoch that were handed out, to all trainers that
            share it. Epochs are those of the shared stream, if it reads one; with ``join="now"``
            ``phase`` is the batch of them with which its own begin.

        Raises:
            InvalidArgument: this is a worker of a PyTorch ``DataLoader``, which reads no more than
                its share of an epoch.
            StateError: the program has assigned the order of this epoch.
        """
        if DataLoaderWorker.here() is not None:
            raise InvalidArgument(
                "a worker of a DataLoader has no state of the whole sequence: give a "
                "StatefulDataLoader `sequence.torch()`, or save the state in the trainer"
            )
        self._reader.guard.run(self._settle)
        return self.state_at(*max(self._reader.places.delivered, self._after_workers()))

    def state_at(self, epoch: int, batches: int) -> dict[str, Any]:
        """The state after some batches of an epoch; see ``state_dict``.

        Args:
            epoch: its number, from 0.
            batches: how many of its batches were handed out; all of them is the next epoch's
                beginning.

        Raises:
            InvalidArgument: a number is negative, or no whole number, or an epoch has fewer batches
                (also a ``ValueError``).
            StateError: the program has assigned the order of this epoch.
        """
        self._reader.guard.run(self._settle)
        layout = self._epoch_layout()
        epoch, batches = arguments.count("epoch", epoch), arguments.count("batches", batches)
        if batches > layout.batches:
            raise InvalidArgument(
                f"`batches` should be at most {layout.batches}, those of an epoch. "
                f"Received: {batches}"
            )
        if batches >= layout.batches:
            epoch, batches = epoch + 1, 0
        epoch, batches = self._supply.shifted((epoch, batches))
        samples, here = batches * layout.global_size, self._identity(self._supply)
        seed = self._order_seed()
        phase = self._supply.phase
        state = SequenceState(VERSION, *here, seed=seed, epoch=epoch, samples=samples, phase=phase)
        return msgspec.to_builtins(state)  # type: ignore[no-any-return]  # it is a dictionary

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where another sequence was: the next batch is the one that would have come.

        ``next`` and loops continue with it. The next pass of ``fit`` has the batches that are left
        of the epoch, and later ones have whole epochs. Reads by index have the epoch, and its
        indices from 0.

        Call it before ``fit`` or between batches, and not while another thread waits for one.

        Args:
            state: what ``state_dict`` gave. The seed is taken from it too.

        Raises:
            InvalidArgument: it is something else (also a ``ValueError``).
            StateError: it belongs to a sequence of another spec, or other files (also a
                ``ValueError``); the text says what differs.
        """
        saved = SequenceState.of(dict(state) if isinstance(state, Mapping) else state)
        supply = self._supply_of(saved.seed)
        try:
            saved.check(self._identity(supply))
            place = saved.place(self._epoch_layout())
        except BaseException:
            if supply is not self._supply:
                supply.close()
            raise
        if supply is not self._supply:
            self._replace(supply)
        own = supply.continue_at(place, saved.phase)
        self._reader.guard.run(lambda: self._continue_at(own, saved.seed))
        self._forget_workers()

    def on_epoch_begin(self) -> None:
        """Tells Keras how many batches are left of the epoch that it begins."""
        adapter.begin_epoch(sys._getframe(1), self._reader.places.pass_length)

    # -- overridden by iterators -----------------------------------------------------

    def _epoch_layout(self) -> EpochLayout:
        return EpochLayout(self.n, self.batch_size, self.spec.order.shard)

    def _settle(self) -> None:
        """Applies attributes that were set; called under the guard.

        Raises:
            StateError: a state does not hold the present order.
        """

    def _order_seed(self) -> int:
        """The seed of the present order."""
        return self._supply.spec.order.seed or 0

    def _continue_at(self, place: Place, seed: int) -> None:
        """Continues at a place of the order of a seed; called under the guard."""
        self._reader.places.resume(place)

    def _identified_spec(self) -> Spec:
        """The spec by which a state is recognised."""
        return self.spec

    def _supply_of(self, seed: int) -> Supply:
        """A supply with this seed: the present one, or another."""
        if seed == self._supply.spec.order.seed:
            return self._supply
        return self._supply.anew(with_seed(self.spec, seed))

    def _replace(self, supply: Supply) -> None:
        """Reads another supply of the same samples from now on."""
        self._supply.close()
        self._supply, self._digest = supply, None
        self.spec = with_seed(self.spec, supply.spec.order.seed or 0)
        for name in _LISTED:
            vars(self).pop(name, None)
        self._read()

    def _read(self) -> None:
        """Begins to read the supply."""
        self._describe()
        order = self._supply.spec.order
        layout = self._epoch_layout()
        places = Places(layout.batches, order.shuffle, order.seed or 0)
        self._reader = Reader(self._supply, FixedMapping(places))

    def _identity(self, supply: Supply) -> Identity:
        parts = supply.parts
        if self._digest is None or self._digest[0] is not parts:
            self._digest = parts, dataset_digest(supply)
        files = len(supply.manifest)
        return Identity(spec_digests(self._identified_spec()), self._digest[1], files)
