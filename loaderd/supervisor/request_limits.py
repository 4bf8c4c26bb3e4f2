"""What clients may ask for at most; checked before anything is listed or allocated; pure."""

from __future__ import annotations

from collections.abc import Sequence

from loaderd.errors import InvalidArgument, RequestRefused
from loaderd.spec.source import Directory
from loaderd.spec.spec import Spec

MAX_CHANNELS = 4096

MAX_STREAMS = 128
"""Open at once; a snapshot of more would not fit into one packet."""

MAX_STREAMS_OF_ONE = 64
"""Open at once by one process, so that one that leaks its own leaves some to others."""


def check_spec(asked: Spec, max_pixels: int) -> None:
    """Refuses a spec whose numbers are out of range.

    How many bytes they come to is checked when the dataset's size is known.

    Args:
        asked: the spec.
        max_pixels: the daemon's.

    Raises:
        InvalidArgument: one is not; the text names it.
    """
    if asked.order.seed is None:
        raise InvalidArgument("the spec has no seed: its client picks one")
    load, (height, width) = asked.load, asked.load.target_size
    if height * width > max_pixels:
        raise InvalidArgument(
            f"target_size {load.target_size} has {height * width:,} pixels, and the daemon's "
            f"--max-pixels (LOADERD_MAX_PIXELS) allows {max_pixels:,}"
        )
    if (load.channels or 0) > MAX_CHANNELS:
        raise InvalidArgument(f"images have {MAX_CHANNELS} channels at most")
    if isinstance(asked.source, Directory):
        _check_listing(asked.source)


def _check_listing(source: Directory) -> None:
    if not 0 <= (source.shuffle_seed or 0) < 2**32:
        raise InvalidArgument(f"seed must be between 0 and 2**32 - 1, got {source.shuffle_seed}")
    shares = [*(source.split_per_class or ()), *(source.split_overall or ())[:1]]
    if not all(0 <= share <= 1 for share in shares):
        raise InvalidArgument(f"validation_split must be between 0 and 1, got {shares}")


def check_number(pid: int, holders: Sequence[int]) -> None:
    """Makes sure that one more stream may be opened.

    Args:
        pid: the process that asks.
        holders: those that have streams, once for each.

    Raises:
        RequestRefused: there are too many.
    """
    if len(holders) >= MAX_STREAMS:
        raise RequestRefused(f"the daemon has {MAX_STREAMS} streams, and opens no more")
    if holders.count(pid) >= MAX_STREAMS_OF_ONE:
        raise RequestRefused(
            f"process {pid} has {MAX_STREAMS_OF_ONE} streams, and gets no more: close some"
        )
