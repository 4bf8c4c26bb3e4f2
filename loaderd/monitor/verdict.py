"""Whether the loader or the training step is too slow, in the terms of TensorFlow's profiler.

Its input-pipeline analyser calls a program HIGHLY, MODERATELY or NOT input-bound by the
share of time that it waits for input. Here a program is one trainer process, and only the
streams that were read in the interval count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from loaderd.ipc.snapshot import StreamStats
from loaderd.monitor.diagnosis import Diagnosis, Evidence, Limit, diagnose

HIGHLY_PERCENT = 20.0
MODERATELY_PERCENT = 5.0

Bound = Literal["HIGHLY", "MODERATELY", "NOT", "UNREAD", "NO STREAM"]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The judgement on a daemon's programs.

    Attributes:
        bound: HIGHLY, MODERATELY or NOT input-bound; UNREAD if streams are open and no
            batch was taken, NO STREAM if none is open.
        waited_percent: share of time that the program waited; null where none is judged.
        client_pid: the program that is judged, the one that waits most; null likewise.
        text: the same in one or two sentences, and what would help.
        limit: what limits the program: the trainer, or a stage or a lack of loading.
        setting: the setting that would help most; empty if none does.
        gain: how many times as fast training could be with it, at most; null if not known.
    """

    bound: Bound
    waited_percent: float | None = None
    client_pid: int | None = None
    text: str
    limit: Limit | None = None
    setting: str = ""
    gain: float | None = None


def judge(
    waited: Mapping[int, float],
    streams: Sequence[StreamStats],
    interval_s: float | None,
    evidence: Callable[[int, float], Evidence],
) -> Verdict:
    """Judge the program that waits most, and say what limits it.

    Args:
        waited: percent of time waited, by the process id of each program that read.
        streams: those that are open, read or not.
        interval_s: over which time; None for all of it since the streams were opened.
        evidence: of a program, by its process id and that percentage.
    """
    verdict = _judged(waited, len(streams), interval_s)
    pid, percent = verdict.client_pid, verdict.waited_percent
    if pid is None or percent is None:
        return _unread(verdict, streams, evidence(-1, 0.0))
    known = evidence(pid, percent)
    if verdict.bound == "NOT" and not known.storage:
        advice = "Loading keeps up: more speed can only come from the training step."
        return msgspec.structs.replace(verdict, text=f"{verdict.text} {advice}", limit="trainer")
    return _with(verdict, diagnose(known))


def _with(verdict: Verdict, found: Diagnosis) -> Verdict:
    return msgspec.structs.replace(
        verdict,
        text=found.text if found.limit == "storage" else f"{verdict.text} {found.text}",
        limit=found.limit,
        setting=found.setting,
        gain=found.gain,
    )


def _unread(verdict: Verdict, streams: Sequence[StreamStats], known: Evidence) -> Verdict:
    """Where no program is judged, storage may be why, or trainers that take nothing."""
    if known.storage:
        return _with(verdict, diagnose(known))
    full = [one.id for one in streams if one.slots and one.ready + one.leased >= one.slots]
    if not full:
        return verdict
    names = ", ".join(map(str, full))
    text = (
        f"{verdict.text} All batches that fit are ready: the trainer takes none (stream {names})."
    )
    return msgspec.structs.replace(verdict, text=text, limit="unread")


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
