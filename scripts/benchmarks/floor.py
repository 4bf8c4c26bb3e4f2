"""The floor: the render functions alone, in as many bare processes as there are CPUs.

No daemon, no ring, no client: every process renders samples into one array of its own,
over and over. The loader's job is to lose nothing of that.
"""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection

import cv2
import numpy as np

from loaderd.render.transforms.operation import UNIFORMS
from loaderd.sampling.draws import Uniforms
from loaderd.sources.directory import list_samples
from loaderd.spec.source import Directory
from loaderd.spec.spec import Spec
from scripts.benchmarks.file_renderer import FileRenderer


def _render(spec: Spec, part: int, parts: int, images: int, pipe: Connection) -> None:
    cv2.setNumThreads(1)  # as in a worker
    assert isinstance(spec.source, Directory)
    listing = list_samples(spec.source)
    paths = [f"{listing.root}/{name.decode()}" for name in listing.filenames]
    order = np.random.default_rng(0).permutation(len(paths))[part::parts].tolist()
    renderer, uniforms = FileRenderer(spec), Uniforms(0, UNIFORMS)
    rows = np.empty((spec.batch.batch_size, *spec.image_shape), spec.output.dtype)
    _rounds(renderer, uniforms, paths, order[:32], rows)  # warm: code, caches, buffers
    pipe.send(0.0)
    pipe.recv()
    start = time.perf_counter()
    _rounds(renderer, uniforms, paths, (order * (images // len(order) + 1))[:images], rows)
    pipe.send(images / (time.perf_counter() - start))


def _rounds(
    renderer: FileRenderer, uniforms: Uniforms, paths: list[str], order: list[int], rows: np.ndarray
) -> None:
    for number, sample in enumerate(order):
        (drawn,) = renderer.draw(np.array([uniforms(0, sample)]))
        renderer.render(paths[sample], drawn, rows[number % len(rows)])


def measure(spec: Spec, processes: int, images: int) -> float:
    """Images per second of ``processes`` bare processes that render ``images`` in all.

    The sum of what each does while it runs, so that none waits for the slowest.
    """
    context = multiprocessing.get_context("spawn")
    pipes, children = [], []
    for part in range(processes):
        ours, theirs = context.Pipe()
        child = context.Process(
            target=_render, args=(spec, part, processes, images // processes, theirs), daemon=True
        )
        child.start()
        pipes.append(ours)
        children.append(child)
    for pipe in pipes:
        pipe.recv()
    for pipe in pipes:
        pipe.send("go")
    rates = [float(pipe.recv()) for pipe in pipes]
    for child in children:
        child.join()
    return sum(rates)
