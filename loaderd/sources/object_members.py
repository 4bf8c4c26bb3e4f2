"""The source of images in archives in object stores, indexed by the opener."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from loaderd import memory
from loaderd.errors import BadArchive, BadImage, DatasetError
from loaderd.ipc.manifest import Archive, Location, Manifest
from loaderd.ipc.text import printable
from loaderd.sources.fetches import Fetches, RangeRequest, Remote
from loaderd.sources.file_identity import UNREADABLE, member_state, object_state
from loaderd.sources.files import FileLimit
from loaderd.sources.members import MemberSource
from loaderd.sources.object_store import Changed, MissingObject
from loaderd.sources.ranged import Version


class ObjectMembers(MemberSource):
    """The members of archives in object stores; see :class:`~loaderd.sources.source.Source`.

    Args:
        manifest: where they lie, and their labels.
        limit: of each.
        fetches: see :func:`fetches_of`.
        first: the number there of the first one.

    Attributes:
        labels: int32 (n,).
        fetches: what is on its way.
    """

    fetches: Fetches

    def __init__(
        self, manifest: Manifest, limit: FileLimit, fetches: Fetches, first: int = 0
    ) -> None:
        super().__init__(manifest, limit)
        self._versions = _versions(self._archives)
        self._location = Location(0, 0, 0, 0)
        self.fetches, self._first = fetches, first

    def read(self, sample: int) -> memoryview:
        """The content of a member, valid until the next ``read``.

        Raises:
            BadArchive: its archive is missing, or was changed after it was indexed.
            BadImage: the member is damaged, or too large.
            NoRoom: there is no memory for it.
            StorageRefused: the store refuses.
            StorageTimeout: the store cannot be reached.
        """
        name = printable(self.name(sample))
        try:
            return self._checked(sample, Location(*self._locations[sample].tolist()))
        except MemoryError as error:
            raise memory.no_room(name) from error
        except MissingObject as error:
            raise BadArchive(f"{name}: the archive is gone: make the dataset again") from error
        except Changed as error:
            raise BadArchive(
                f"{name}: it was changed after it was indexed: make the dataset again"
            ) from error
        except DatasetError:
            raise
        except ValueError as error:
            raise BadImage(f"{name}: {error}") from error

    def identity(self, sample: int) -> int:
        """The state of the last member read; 0 if it may change undetected."""
        state = self._versions[self._location.archive].state
        if state == UNREADABLE:
            return UNREADABLE
        return member_state(state, self._location)

    def _stored(self, sample: int, location: Location) -> memoryview:
        data, _ = self.fetches.take(self._first + sample)
        self._location = location
        return data


def fetches_of(manifest: Manifest, remote: Remote) -> Fetches:
    """The samples of a stream on their way; their masks, if there are any, are numbered after them.

    Args:
        manifest: where they lie.
        remote: how their store is asked.
    """
    request_of = _requests(manifest)
    if manifest.masks is None:
        return Fetches(request_of, remote)
    count, mask_request_of = len(manifest), _requests(manifest.masks)

    def either(number: int) -> RangeRequest:
        return request_of(number) if number < count else mask_request_of(number - count)

    return Fetches(either, remote, count)


def _requests(manifest: Manifest) -> Callable[[int], RangeRequest]:
    """What to read for each of a manifest."""
    assert manifest.members is not None, "it is for members of archives"
    archives, locations = manifest.members
    versions = _versions(archives)

    def request_of(sample: int) -> RangeRequest:
        number, offset, stored = locations[sample, :3].tolist()
        return RangeRequest(archives[number].path, offset, offset + stored, versions[number])

    return request_of


def _versions(archives: Sequence[Archive]) -> list[Version]:
    return [
        Version(one.size, one.mtime, object_state(one.size, one.tag), one.tag) for one in archives
    ]
