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

_ADVICE: Mapping[Bound, str] = {
    "HIGHLY": "Make loading faster first: more workers, or less work per image.",
    "MODERATELY": "Loading and the training step are both worth making faster.",
    "NOT": "Loading keeps up: more speed can only come from the training step.",
}


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
    waited_percent: float | None
    client_pid: int | None
    text: str


def judge(
    waited: Mapping[int, float],
    streams: int,
    interval_s: float | None,
    storage: Sequence[StorageStats] = (),
) -> Verdict:
    """Judge the program that waits most; the text is about storage where that does not answer.

    Args:
        waited: percent of time waited, by the process id of each program that read.
        streams: how many are open, read or not.
        interval_s: over which time; None for all of it since the streams were opened.
        storage: what does not answer at present.
    """
    verdict = _judged(waited, streams, interval_s)
    return msgspec.structs.replace(verdict, text=_silent(storage)) if storage else verdict


def _silent(storage: Sequence[StorageStats]) -> str:
    longest = max(storage, key=lambda one: one.waited_s)
    return (
        f"Storage does not answer: {longest.path} (for {duration(longest.waited_s)}). Loading goes "
        "on when it does."
    )


def _judged(waited: Mapping[int, float], streams: int, interval_s: float | None) -> Verdict:
    if not waited:
        return _nothing_read(streams, interval_s)
    pid = max(waited, key=lambda pid: waited[pid])
    bound = _bound(waited[pid])
    return Verdict(
        bound=bound,
        waited_percent=waited[pid],
        client_pid=pid,
        text=f"{_program(pid, len(waited))} is {bound} input-bound: {_share(bound, waited[pid])} "
        f"of the {_span(interval_s)} went into waiting for images. {_ADVICE[bound]}",
    )


def _bound(percent: float) -> Bound:
    if percent >= HIGHLY_PERCENT:
        return "HIGHLY"
    return "MODERATELY" if percent >= MODERATELY_PERCENT else "NOT"


def _program(pid: int, programs: int) -> str:
    return "Your program" if programs == 1 else f"Of {programs} programs, {pid} waits most and"


def _share(bound: Bound, percent: float) -> str:
    return f"only {percent:.1f}%" if bound == "NOT" else f"{percent:.1f}%"


def _span(interval_s: float | None) -> str:
    return "time since it opened its streams" if interval_s is None else f"last {interval_s:.1f} s"


def _nothing_read(streams: int, interval_s: float | None) -> Verdict:
    bound: Bound = "UNREAD" if streams else "NO STREAM"
    return Verdict(
        bound=bound, waited_percent=None, client_pid=None, text=_unread(streams, interval_s)
    )


def _unread(streams: int, interval_s: float | None) -> str:
    if not streams:
        return "Nothing is read: no stream is open."
    opened = "1 stream is" if streams == 1 else f"{streams} streams are"
    since = "yet" if interval_s is None else f"in the last {interval_s:.1f} s"
    return f"Nothing is read: {opened} open, and no batch was taken {since}."
