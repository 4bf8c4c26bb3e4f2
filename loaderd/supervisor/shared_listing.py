"""Requests of trainers that share an epoch: they get one listing, one cache and one set of bundles.

So all of them have the same files in the same order, whatever happens to the folder meanwhile, and
those that open a stream after the first wait for no disk.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass

from loaderd.spec.spec import Spec, unsharded

LARGEST = 64 * 2**20
"""Bytes of a bundle. Comparing larger ones would keep other streams waiting."""

_COMPARED = 2**20
"""Bytes that are compared at once."""


@dataclass(frozen=True, slots=True)
class ListingRequest:
    """What a listing is made of.

    Attributes:
        spec: without what distinguishes trainers that share an epoch.
        sizes: lengths of the bundles.
        bundles: their descriptors, which stay the request's.
    """

    spec: Spec
    sizes: tuple[int, ...]
    bundles: tuple[int, ...]

    def is_like(self, other: ListingRequest | None) -> bool:
        """Whether both are requests of trainers that share an epoch."""
        if other is None or (self.sizes, self.spec) != (other.sizes, other.spec):
            return False
        pairs = zip(self.bundles, other.bundles, self.sizes, strict=True)
        return all(_is_equal(one, another, size) for one, another, size in pairs)


def listing_request(
    asked: Spec, sizes: tuple[int, ...], bundles: tuple[int, ...]
) -> ListingRequest | None:
    """What the listing of a request is made of; None for a trainer that shares no epoch."""
    shard = asked.order.shard
    if shard is None or shard.count == 1:
        return None
    return ListingRequest(unsharded(asked), sizes, bundles)


def is_in_memory(fd: int) -> bool:
    """Whether it can be read without waiting; a file may lie on a disk that does not answer."""
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) >= 0
    except OSError:
        return False


def _is_equal(one: int, other: int, size: int) -> bool:
    if size > LARGEST or not (is_in_memory(one) and is_in_memory(other)):
        return False
    return all(
        os.pread(one, _COMPARED, at) == os.pread(other, _COMPARED, at)
        for at in range(0, size, _COMPARED)
    )
