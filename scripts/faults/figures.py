"""The results of a trial: a table, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from scripts.faults.trial import Trial

SLACK = 8
"""How many more descriptors a trainer may have in the end: Keras opens some late."""


def findings(trial: Trial) -> list[str]:
    """What is wrong, one sentence each."""
    found = [*trial.findings, *trial.daemon.findings]
    for client in trial.clients:
        found += client.findings
    return found + list(_figures_out_of_bounds(trial))


def _figures_out_of_bounds(trial: Trial) -> Iterator[str]:
    if trial.pace.rounds and trial.pace.ratio < trial.args.least:
        yield f"the storm left {trial.pace} of the throughput, and not {trial.args.least}"
    if trial.storm.bad:
        yield f"{trial.storm.bad} images were called bad"
    if trial.left:
        yield f"processes {trial.left} are left"
    if trial.left_names:
        yield f"shared memory is left: {', '.join(trial.left_names)}"
    if trial.daemon.tracebacks:
        yield f"the log holds {trial.daemon.tracebacks} tracebacks"
    for trainer in trial.trainers:
        first, last = _growth(trainer.descriptors)
        if last > first + SLACK:
            yield f"{trainer.name} had {first} descriptors open, and later {last}"


def _struck(trial: Trial) -> str:
    """Signals to workers, with their numbers."""
    return ", ".join(f"{name} {count}" for name, count in sorted(trial.storm.struck.items()))


def _restarted(trial: Trial) -> str:
    return ", ".join(f"{name} {count}" for name, count in trial.daemon.ends.items())


def table(trial: Trial) -> Table:
    """All figures."""
    made = Table("what", "figure", title=f"chaos, seed {trial.args.seed}")
    for row in _rows(trial):
        made.add_row(*row)
    return made


def _rows(trial: Trial) -> Iterator[tuple[str, str]]:
    assert trial.verdict is not None
    verdict, daemon, fresh, final = trial.verdict, trial.daemon, trial.fresh, trial.final
    silent = max(trainer.longest_silence for trainer in trial.trainers)
    yield "time", f"{trial.seconds:.0f} s, {trial.args.workers} workers"
    yield "batches", f"{sum(t.batches for t in trial.trainers)} to {len(trial.trainers)} trainers"
    yield "whole epochs", f"{verdict.epochs}, the reference's among them"
    yield "tried again", f"{verdict.retried} batches"
    yield "compared", f"{verdict.compared} batches with the undisturbed reference's"
    yield "workers struck", _struck(trial)
    yield "daemon restarted", _restarted(trial)
    yield "daemon away", f"{daemon.longest_down:.1f} s at most"
    yield "killed daemon's rest", f"gone after {daemon.longest_end:.2f} s at most"
    yield "trainer without batch", f"{silent:.1f} s at most"
    yield "misbehaviour", f"{trial.acts} acts"
    if trial.pace.rounds:
        images = f"{trial.pace.undisturbed:.0f} images/s"
        yield "throughput under kills", f"{trial.pace} of {images}"
    yield (
        "processes",
        f"{fresh.processes} before, {final.processes} after, {len(trial.left)} left",
    )
    yield "daemon's descriptors", f"{fresh.descriptors} before, {final.descriptors} after"
    for trainer in trial.trainers:
        first, last = _growth(trainer.descriptors)
        yield f"descriptors, {trainer.name}", f"{first} at first, {last} at last"
    yield "shared memory held", f"{fresh.shared} bytes before, {final.shared} after"
    used = trial.used
    yield "of the whole machine", f"{used[0]} bytes before, {used[1]} after, all programs'"
    yield "tracebacks in the log", f"{daemon.tracebacks}"
    for trouble, times in trial.storm.trouble.items():
        yield "daemon's trouble", f"{trouble} ({times} times seen)"


def _growth(counts: list[int]) -> tuple[int, int]:
    """The least of the first third and of the last: between, a stream may be being opened."""
    third = max(1, len(counts) // 3)
    return min(counts[:third], default=0), min(counts[-third:], default=0)
