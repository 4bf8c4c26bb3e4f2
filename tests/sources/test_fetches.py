"""What a worker waits for is known, whatever it looks at meanwhile."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from loaderd import storage
from loaderd.sources import object_store
from loaderd.sources.fetches import Fetches, RangeRequest, Remote
from loaderd.sources.ranged import Version
from loaderd.sources.retries import Retries
from tests.support.daemons import DEADLINE, eventually

URL = "s3://b/a"
VERSION = Version(4, 0, 7)


def test_one_that_waits_for_a_store_is_seen_to_after_it_looked_into_a_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers, looked = threading.Event(), threading.Event()

    def read_whole(_: str) -> tuple[bytes, Version]:
        assert answers.wait(DEADLINE)
        return b"data", VERSION

    def look(_: bool) -> None:
        if storage.asked() is not None:
            with storage.asking("/cache"):
                pass
            looked.set()

    monkeypatch.setattr(object_store, "read_whole", read_whole)
    request = RangeRequest(URL, 0, 4, VERSION, is_whole=True)
    fetches = Fetches(lambda _: request, Remote(Retries(DEADLINE), None, look))
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(fetches.take, 0)
        try:
            eventually(lambda: looked.is_set() and (storage.asked() or "")[:1] == (URL,))
        finally:
            answers.set()
        assert bytes(taken.result(DEADLINE)[0]) == b"data"
    assert storage.asked() is None
