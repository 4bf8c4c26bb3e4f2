"""Bad images are noted once for each path, and told in pages that fit a packet."""

from __future__ import annotations

import pytest

from loaderd.ipc import messages
from loaderd.ipc.channel import LONGEST_PACKET
from loaderd.supervisor import bad_images
from loaderd.supervisor.bad_images import BadImages


def test_a_path_is_new_once_and_counted_each_time() -> None:
    images = BadImages()
    assert [images.add(b"/d/x.jpg", "empty", "/d") for _ in range(3)] == [True, False, False]
    (sample,) = images.page(0).samples
    assert (images.total, sample.times, sample.quarantined) == (1, 3, False)


def test_to_quarantine_a_sample_is_not_to_meet_it() -> None:
    images = BadImages()
    images.add(b"/d/x.jpg", "it kills", "/d", quarantined=True)
    images.add(b"/d/x.jpg", "it kills", "/d")
    (sample,) = images.page(0).samples
    assert (sample.times, sample.quarantined) == (1, True)


def test_pages_hold_all_of_them_and_fit_a_packet() -> None:
    images = BadImages()
    names = [b"/d/%s%d.jpg" % (b"\xff" * 3800, number) for number in range(100)]
    for name in names:
        images.add(name, "ü" * 5000, "/ü" * 5000)
    listed: list[bytes] = []
    while len(listed) < images.total:
        page = images.page(len(listed))
        assert len(messages.encode(page)) < LONGEST_PACKET
        listed += [sample.path for sample in page.samples]
    assert listed == names
    for beyond in (len(listed), 2**63, 2**64 - 1):
        assert not images.page(beyond).samples
    assert images.page(-5).samples == images.page(0).samples


def test_beyond_the_limit_nothing_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bad_images, "MAX_NOTED", 2)
    images = BadImages()
    added = [images.add(b"/d/%d.jpg" % number, "", "/d") for number in (1, 2, 3, 3, 2)]
    assert added == [True, True, False, False, False]
    assert images.total == 2


def test_names_that_people_read_alike_are_told_apart() -> None:
    images = BadImages()
    for name in (b"/d/a\nb.jpg", rb"/d/a\nb.jpg"):
        assert images.add(name, "empty", "/d")
    assert images.total == 2
