"""Whether the loader or the training step is too slow, in the terms of TensorFlow's profiler.

Its input-pipeline analyser calls a program HIGHLY, MODERATELY or NOT input-bound by the
share of time that it waits for input. Here a program is one trainer process, and only the
streams that were read in the interval count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from loaderd.formatting import duration
from loaderd.ipc.snapshot import StorageStats

HIGHLY_PERCENT = 20.0
MODERATELY_PERCENT = 5.0

Bound = Literal["HIGHLY", "MODERATELY", "NOT", "UNREAD", "NO STREAM"]

IDLE_PERCENT = 25.0
"""Of the workers' time, from which more of them would not help."""


LINK_PERCENT = 40.0
"""Of the remote workers' time, from which more of them would not help."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The judgement on a daemon's programs.

    Attributes:
        bound: HIGHLY, MODERATELY or NOT input-bound; UNREAD if streams are open and no
            batch was taken, NO STREAM if none is open.
        waited_percent: share of time that the program waited; null where none is judged.
        client_pid: the program that is judged, the one that waits most; null likewise.
        text: the same in one or two sentences.
    """

    bound: Bound
    waited_percent: float | None = None
    client_pid: int | None = None
    text: str


def judge(
    waited: Mapping[int, float],
    streams: int,
    interval_s: float | None,
    storage: Sequence[StorageStats] = (),
    *,
    idle_percent: float = 0.0,
    has_free_cpus: bool = False,
    link_percent: float = 0.0,
) -> Verdict:
    """Judge the program that waits most; the text is about storage where that does not answer.

    Args:
        waited: percent of time waited, by the process id of each program that read.
        streams: how many are open, read or not.
        interval_s: over which time; None for all of it since the streams were opened.
        storage: what does not answer at present.
        idle_percent: share of that time that the workers were idle.
        has_free_cpus: whether there are fewer workers than CPUs.
        link_percent: share of the remote workers' time that went into the link.
    """
    verdict = _judged(waited, streams, interval_s)
    if verdict.waited_percent is not None:
        advice = _advice(verdict.bound, idle_percent, has_free_cpus, link_percent)
        verdict = msgspec.structs.replace(verdict, text=f"{verdict.text} {advice}")
    return msgspec.structs.replace(verdict, text=_silent(storage)) if storage else verdict


def _silent(storage: Sequence[StorageStats]) -> str:
    longest = max(storage, key=lambda one: one.waited_s)
    return (
        f"Storage does not answer: {longest.path} (for {duration(longest.waited_s)}). Loading goes "
        "on when it does."
    )


def _advice(bound: Bound, idle_percent: float, has_free_cpus: bool, link_percent: float) -> str:
    if bound == "NOT":
        return "Loading keeps up: more speed can only come from the training step."
    if link_percent >= LINK_PERCENT:
        return (
            "The network is the limit: workers on other machines spent "
            f'{link_percent:.0f}% of their time on the link. With dtype="uint8" a quarter of the '
            "bytes of float32 crosses it."
        )
    if idle_percent >= IDLE_PERCENT:
        return (
            f"More workers would not help, as they were idle {idle_percent:.0f}% of it: batches "
            "are taken in bursts, for which a longer queue (max_queue_size) may help."
        )
    if bound == "MODERATELY":
        return "Loading and the training step are both worth making faster."
    more = "more workers" if has_free_cpus else "more CPUs, a cache"
    return f"Make loading faster first: {more}, or less work per image."


def _judged(waited: Mapping[int, float], streams: int, interval_s: float | None) -> Verdict:
    if not streams:
        return Verdict(bound="NO STREAM", text="Nothing is read: no stream is open.")
    if not waited:
        opened = "1 stream is" if streams == 1 else f"{streams} streams are"
        since = "yet" if interval_s is None else f"in the last {interval_s:.1f} s"
        text = f"Nothing is read: {opened} open, and no batch was taken {since}."
        return Verdict(bound="UNREAD", text=text)
    pid = max(waited, key=lambda pid: waited[pid])
    bound = _bound(waited[pid])
    programs = len(waited)
    program = f"Of {programs} programs, {pid} waits most and" if programs > 1 else "Your program"
    only = "only " if bound == "NOT" else ""
    span = f"last {interval_s:.1f} s" if interval_s else "time since its first batch"
    return Verdict(
        bound=bound,
        waited_percent=waited[pid],
        client_pid=pid,
        text=f"{program} is {bound} input-bound: {only}{waited[pid]:.1f}% of the {span} went into "
        "waiting for images.",
    )


def _bound(percent: float) -> Bound:
    if percent >= HIGHLY_PERCENT:
        return "HIGHLY"
    return "MODERATELY" if percent >= MODERATELY_PERCENT else "NOT"
