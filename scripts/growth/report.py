"""The results of a run: a table, or JSON for programs."""

from __future__ import annotations

import json
from dataclasses import asdict

from rich.table import Table

from scripts.growth.judge import Row
from scripts.growth.trial import Trial

_FIGURES = (
    *("first", "last", "most", "per 1000 flows"),
    *("2nd quarter", "last quarter", "grew", "allowed"),
)
_MIB = {"RSS", "private", "shared", "rings", "caches"}


def table(trial: Trial) -> Table:
    """All figures that were judged."""
    made = Table(title=headline(trial), title_justify="left")
    for name in ("process", "what"):
        made.add_column(name, no_wrap=True)
    for name in _FIGURES:
        made.add_column(name, justify="right", no_wrap=True)
    made.add_column("", no_wrap=True)
    part = ""
    for row in trial.rows:
        if row.part != part and part:
            made.add_section()
        made.add_row("" if row.part == part else row.part, *_cells(row))
        part = row.part
    return made


def _cells(row: Row) -> tuple[str, ...]:
    unit = ", MiB" if row.what in _MIB else ""
    figures = (row.first, row.last, row.most)
    cells = (row.what + unit, *(f"{value:.0f}" for value in figures))
    if row.allowed is None:
        return (*cells, "", "", "", "", "", "not judged")
    return (
        *cells,
        f"{row.slope:+.2f}",
        f"{row.early:.1f}",
        f"{row.late:.1f}",
        f"{row.late - row.early:+.1f}",
        f"{row.allowed:g}",
        "flat" if row.flat else "GREW",
    )


def headline(trial: Trial) -> str:
    """What was done, in one line."""
    made, batches = trial.made, sum(trainer.batches for trainer in trial.trainers)
    return (
        f"soak: {made.flows} flows in {made.uses} uses, {trial.seconds:.0f} s, "
        f"{trial.args.workers} workers, {len(trial.samples)} samples, "
        f"{batches} batches to the two trainers; slowest use {made.slowest.seconds:.1f} s "
        f"({made.slowest.what})"
    )


def verdict(trial: Trial) -> str:
    """Whether all figures are flat, in one line."""
    count = len(trial.findings) + len(trial.grown)
    if not count:
        return f"verdict: flat; {trial.verdict}".replace("; verdict:", "; trainers:")
    return f"verdict: {count} finding" + "s" * (count > 1)


def as_json(trial: Trial) -> str:
    """The results as JSON."""
    made = trial.made
    return json.dumps(
        {
            "flat": not trial.grown,
            "flows": made.flows,
            "uses": made.uses,
            "seconds": round(trial.seconds, 1),
            "workers": trial.args.workers,
            "samples": len(trial.samples),
            "batches": {trainer.name: trainer.batches for trainer in trial.trainers},
            "findings": trial.findings,
            "grown": trial.grown,
            "rows": [{**asdict(row), "flat": row.flat} for row in trial.rows],
        },
        indent=1,
    )
