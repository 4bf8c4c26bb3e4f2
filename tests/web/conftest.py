from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.daemons import Serve, shared
from tests.support.page import TOKEN, LivePage


@pytest.fixture
def page(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Iterator[LivePage]:
    """The page of a daemon with one worker."""
    monkeypatch.setenv("LOADERD_WEB_TOKEN", TOKEN)
    with serve(1, "--http=0") as daemon:
        yield LivePage(daemon)


@pytest.fixture(scope="module")
def watched() -> Iterator[LivePage]:
    """One for all tests of a module that change nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOADERD_WEB_TOKEN", TOKEN)
        with shared("--http=0") as daemon:
            yield LivePage(daemon)
