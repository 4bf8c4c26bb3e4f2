"""``scripts/bench``: one subcommand for each benchmark."""

from __future__ import annotations

import argparse

from scripts.benchmarks import (
    augment,
    cloud,
    compare,
    coordination,
    hand_over,
    listing,
    remote,
    ring,
    share,
    sharing,
    sources,
    steps,
)


def main() -> None:
    """Runs the benchmark that was asked for."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures loaderd.")
    benchmarks = parser.add_subparsers(required=True, metavar="BENCHMARK")
    augment.add(benchmarks)
    cloud.add(benchmarks)
    compare.add(benchmarks)
    coordination.add(benchmarks)
    hand_over.add(benchmarks)
    listing.add(benchmarks)
    remote.add(benchmarks)
    ring.add(benchmarks)
    share.add(benchmarks)
    sharing.add(benchmarks)
    sources.add(benchmarks)
    steps.add(benchmarks)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
