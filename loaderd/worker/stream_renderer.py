"""Renders the chunks of one stream in a worker to rows of its slots.

A renderer holds no reference to itself, not even a bound method, so that its mappings are freed
with it, not by the next garbage collection.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import repeat
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loaderd.augment.pipeline import divide
from loaderd.config import Settings
from loaderd.errors import BadImage, MissingCodec, RenderError
from loaderd.ipc import bundle, segment
from loaderd.ipc.manifest import Manifest, sample_key
from loaderd.ipc.messages import Attach, Bad, Chunk, Done, Progress, fitting
from loaderd.ipc.prefetch import ROUND
from loaderd.ipc.slot_layout import SlotArrays, slot_layout, view_slot
from loaderd.ipc.text import printable
from loaderd.render.load.pixel_limits import pixel_limit
from loaderd.render.renderer import Drawn, Loaded, Prepared, Renderer, StageTimes
from loaderd.render.save import save_rows
from loaderd.render.transforms.operation import UNIFORMS
from loaderd.sampling.draws import Uniforms, substitutes
from loaderd.sampling.keras_draws import BatchDraws
from loaderd.sampling.order import EpochOrder, Ids
from loaderd.sampling.weights import sample_weights
from loaderd.spec.spec import Spec, fitted
from loaderd.spec.transform import Transform
from loaderd.worker.annotated import AnnotatedSample
from loaderd.worker.images import attach_store
from loaderd.worker.labels import LabelWriter
from loaderd.worker.mixer import Mixer
from loaderd.worker.stream_images import images_of, masks_of, remote_of, source_of
from loaderd.worker.work_queue import WorkQueue

Array = NDArray[Any]


class StreamRenderer:
    """One stream: its mappings, order, draws and renderer.

    Args:
        attach: the stream's sizes.
        asked: its spec.
        fds: descriptors of ring, manifest, any bundles, and any cache and its rows; this object
            closes them.
        queue: tells the supervisor of bad images, and that a long chunk goes on.
        settings: the daemon's.
        quarantine: samples that are no longer tried, and why; the worker's loop adds to it.

    Raises:
        RenderError: the user's function cannot be loaded.
        MissingDependency: a package that the function or the warp needs is not installed.
        ProtocolError: manifest or bundle are damaged, or do not match.
    """

    def __init__(
        self,
        attach: Attach,
        asked: Spec,
        fds: Sequence[int],
        queue: WorkQueue,
        settings: Settings,
        quarantine: Mapping[bytes, str],
    ) -> None:
        ring, manifest, *more = fds
        self._stream, self._queue, self._quarantine = attach.stream, queue, quarantine
        self._silence_ns, self._skipped = int(settings.silence * 1e9), 0
        self._handled_errors = (BadImage, MissingCodec) if asked.survey else BadImage
        ring_memory = segment.attach(ring, attach.ring_bytes, writable=True)
        table = segment.attach(manifest, attach.manifest_bytes, writable=False)
        self._manifest = Manifest.view(table)
        samples = len(self._manifest)
        self._spec = asked = fitted(asked, samples)
        layout, memory = slot_layout(asked, attach.classes), memoryview(ring_memory)
        self._slots = [view_slot(memory, layout, slot) for slot in range(attach.slots)]
        arrays = bundle.attach_all(more[: len(attach.bundles)], attach.bundles)
        labels, names = self._manifest.labels, self._manifest.class_names
        weights = sample_weights(asked.order, labels, names, arrays.get("weights"))
        self._epochs = EpochOrder(
            asked.order, samples, asked.batch.batch_size, arrays.get("order"), weights
        )
        self._batch_draws = BatchDraws(asked, self._epochs)
        self._uniforms = Uniforms(asked.order.seed or 0, UNIFORMS)
        self._still = np.array([Transform()] * asked.batch.batch_size, np.float64)
        # Before the renderer, which may raise: the store closes its descriptors and their lock.
        store = attach_store(asked.load, samples, *more[-2:]) if attach.cached else None
        limit = pixel_limit(asked.load.pil, settings.max_pixels)
        self._renderer = Renderer(asked, StageTimes(), arrays, limit)
        remote = remote_of(asked, settings.io_timeout, queue.look)
        self._source = source = source_of(asked, self._manifest, arrays, limit, remote)
        self._images = images_of(source, self._renderer, store, self._manifest.root)
        self._annotated: AnnotatedSample | None = None
        if asked.annotations is not None:
            masks = masks_of(source, self._manifest, limit)
            self._annotated = AnnotatedSample(asked, arrays, self._renderer, limit, masks)
        self._mixer = Mixer(asked, layout, self._epochs) if divide(asked.augment).mixes else None
        self._name = self._source.name
        mode = asked.batch.label_mode
        values = arrays["labels"] if mode == "given" else self._source.labels
        self._write_labels = LabelWriter(mode, values, layout.labels)

    @property
    def runs_code(self) -> bool:
        """Whether a function of the user's runs on its images."""
        return self._spec.function is not None

    def write(self, chunk: Chunk) -> Done:
        """Renders the rows of one chunk.

        Raises:
            BadImage: neither a file nor a substitute could be read; rows may be half written.
            NoRoom: a picture needs more memory than a worker may take.
            RenderError: a sample could not be augmented, preprocessed or saved.
        """
        start = perf_counter_ns()
        self._queue.begin(chunk)
        slot, mixer = self._slots[chunk.slot], self._mixer
        part = self._epochs.layout.part(chunk.position)
        partners = mixer.partners(chunk, self._render, self._queue.send) if mixer else {}
        self._skipped = 0  # those of partners count for nothing
        ids = self._render(slot, chunk, part[chunk.first : chunk.last])
        if mixer:
            mixer.mix(slot, chunk, ids, partners)
        if self._spec.output.save is not None:
            numbers = self._batch_draws.numbers(chunk.epoch, chunk.position)
            save_rows(slot.images, self._spec.output, ids, chunk.first, numbers)
        times = self._renderer.times.take()
        return Done(
            chunk.ticket,
            len(ids),
            perf_counter_ns() - start,
            times.read,
            times.decode,
            times.resize,
            times.augment,
            self._images.cached,
            self._images.take_trouble(),
            self._skipped,
            waited=self._images.take_waited(),
        )

    def expect(self, chunk: Chunk) -> None:
        """Prepares for a chunk that is about to come."""
        part = self._epochs.layout.part(chunk.position)[chunk.first : chunk.last]
        self._images.expect(self._epochs.ids(chunk.epoch, chunk.position, part), chunk.ticket)

    def _render(self, slot: SlotArrays, chunk: Chunk, rows: range) -> Ids:
        """Renders rows of the batch of all trainers by themselves, to those of the chunk.

        Returns:
            The ids of their samples, -1 for a skipped row.
        """
        ids = self._epochs.ids(chunk.epoch, chunk.position, rows)
        self._images.begin(ids, chunk.ticket)
        if slot.weights is not None:
            slot.weights[chunk.first : chunk.last] = 1
        if not self._gathered(slot, chunk, ids):
            prepared = self._renderer.prepare(self._draws(chunk, rows, ids))
            if not self._finished(slot, chunk, ids, prepared):
                with self._renderer.import_scope():
                    ids = self._write_images(slot, chunk, ids, prepared)
        self._write_labels(slot, chunk.first, ids)
        slot.ids[chunk.first : chunk.last] = ids
        return ids

    def _gathered(self, slot: SlotArrays, chunk: Chunk, ids: Ids) -> bool:
        """Copies the whole chunk at once, if possible; returns whether it did."""
        if not self._renderer.copies or self._quarantine:
            return False
        return self._images.gather(ids, slot.images[chunk.first : chunk.last])

    def _finished(self, slot: SlotArrays, chunk: Chunk, ids: Ids, prepared: Prepared) -> bool:
        """Renders the whole chunk at once, if possible; returns whether it did."""
        found = None if self._quarantine else self._images.loaded(ids)
        if found is None:
            return False
        return self._renderer.finish_many(found, prepared, slot.images[chunk.first : chunk.last])

    def _write_images(self, slot: SlotArrays, chunk: Chunk, ids: Ids, prepared: Prepared) -> Ids:
        """Renders the rows; returns the ids of their samples, -1 for a skipped row."""
        images, renderer, finish = slot.images, self._renderer, self._renderer.finish
        load = self._load_unless_quarantined if self._quarantine else self._load
        annotated, samples = self._annotated, ids.tolist()
        runs_code, begins = self.runs_code, self._spec.load.aspect == "keep"
        due = perf_counter_ns() + self._silence_ns
        number = self._epochs.seed + self._epochs.number(chunk.epoch, chunk.position)
        first = self._epochs.layout.part(chunk.position).start  # in the batch of all trainers
        # The user's code may count on the order of the rows.
        order = range(len(ids)) if runs_code else self._images.order(len(ids), chunk.ticket)
        for at in order:
            row = chunk.first + at
            if begins:
                renderer.begin(prepared, at)
                if annotated is not None:
                    annotated.begin(prepared, at)
            try:
                image: Loaded | None = load(samples[at])
            except self._handled_errors as error:
                ids, image = self._replace(slot, chunk, ids, row, error)
            if image is None:
                continue
            try:
                if runs_code:
                    renderer.seed(number, first + row, chunk.epoch // ROUND)
                if annotated is None:
                    finish(image, prepared, at, images[row])
                else:
                    annotated.finish(image, prepared, at, slot, row)
            except RenderError as error:
                shown = int(ids[at])  # it may be a substitute's picture
                raise RenderError.of(error, f"{self._name(shown)}: {error}") from error
            if perf_counter_ns() >= due:
                self._queue.send(Progress(chunk.ticket))
                due = perf_counter_ns() + self._silence_ns
        return ids

    def _load_unless_quarantined(self, sample: int) -> Loaded:
        reason = self._quarantine.get(sample_key(self._manifest, self._stream, sample))
        if reason is not None:
            raise BadImage(f"{printable(self._name(sample))}: {reason}")
        return self._load(sample)

    def _load(self, sample: int) -> Loaded:
        """One image; what belongs to it is loaded too, and waits to be finished with it."""
        picture = self._images.load(sample)
        if self._annotated is not None:
            self._annotated.load(sample, self._images.size, self._name(sample))
        return picture

    def _replace(
        self, slot: SlotArrays, chunk: Chunk, ids: Ids, row: int, error: BadImage | MissingCodec
    ) -> tuple[Ids, Loaded | None]:
        """Applies ``on_error`` to a bad image; returns a changed copy of the ids.

        Raises:
            BadImage: ``on_error`` is ``raise``, or no substitute could be read.
        """
        at = row - chunk.first
        sample = int(ids[at])
        self._report(sample, error)
        if self._spec.on_error == "raise":
            raise error
        substitute, image = -1, None
        if self._spec.on_error == "substitute":
            substitute, image = self._substitute(chunk.epoch, sample, error)
            if slot.weights is not None:
                slot.weights[row] = self._spec.batch.substitute_weight
        else:
            slot.images[row] = 0
            self._skipped += 1
        ids = ids.copy()
        ids[at] = substitute
        return ids, image

    def _report(self, sample: int, error: BadImage | MissingCodec) -> None:
        name = self._name(sample)
        reason = fitting(str(error).removeprefix(f"{printable(name)}: "))
        lacking = isinstance(error, MissingCodec)
        self._queue.send(Bad(self._stream, os.fsencode(name), reason, lacking))

    def _substitute(
        self, epoch: int, sample: int, error: BadImage | MissingCodec
    ) -> tuple[int, Loaded]:
        """Another sample of the same class: the first readable one of those drawn."""
        labels = self._source.labels
        others = np.flatnonzero(labels == labels[sample])
        for other in substitutes(self._epochs.seed, epoch, sample, len(others)):
            candidate = int(others[other])
            if candidate == sample:
                continue
            try:
                return candidate, self._load_unless_quarantined(candidate)
            except BadImage as another:
                self._report(candidate, another)
        raise BadImage(f"{error}; nor could another image of its class be read")

    def _draws(self, chunk: Chunk, rows: range, ids: Ids) -> Drawn:
        spec = self._spec
        if not (spec.augments or spec.is_random):
            return self._still[: len(ids)]
        if spec.order.draws == "batch":
            return self._batch_draws.rows(chunk.epoch, chunk.position, chunk.first, chunk.last)
        occurrences = self._epochs.occurrences(chunk.epoch, chunk.position, rows).tolist()
        keys = list(zip(repeat(chunk.epoch), ids.tolist(), occurrences, strict=False))
        if spec.augments:
            return keys
        return self._renderer.draw(np.array([self._uniforms(*key) for key in keys]))
