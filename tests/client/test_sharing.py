"""The arguments ``share`` and ``join``."""

from __future__ import annotations

from typing import Any

import pytest

from loaderd.errors import InvalidArgument
from loaderd_client.core.shared_supply import Sharing


@pytest.mark.parametrize(
    ("share", "join", "says"),
    [
        ("", "epoch", "`share` is empty: give a name"),
        ("s" * 101, "epoch", "`share` should be a name of at most 100 characters"),
        (3, "epoch", "`share` should be a text"),
        (None, "now", '`join` goes with `share`: give share="name" too'),
        ("search", "late", 'expected one of "epoch", "now"'),
    ],
)
def test_what_does_not_say_how_to_share_is_refused(share: Any, join: str, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        Sharing.of(share, join, seed=None, subset=None, shard=None)


def test_who_gives_no_name_shares_nothing() -> None:
    assert Sharing.of(None, "epoch", seed=None, subset=None, shard=None) is None
