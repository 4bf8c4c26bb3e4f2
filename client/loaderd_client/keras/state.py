"""The state from which a sequence continues in another process.

A batch is a pure function of spec, dataset, epoch and position, so a state is a few numbers, with
digests by which the sequence of another spec or dataset is recognised.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from loaderd.errors import InvalidArgument, StateError
from loaderd.ipc.manifest import Manifest
from loaderd.ipc.prefetch import Place
from loaderd.ipc.user_code import PART
from loaderd.sampling.epoch_layout import EpochLayout
from loaderd.spec.operations import UserCode
from loaderd.spec.output import Order
from loaderd.spec.spec import Spec
from loaderd_client.core.supply import Supply

VERSION = 1

_DIFFERENCES = (
    "how images are loaded (image size, color_mode, interpolation, decode, exif, …)",
    "what is done to images (the arguments of ImageDataGenerator, or `augment`)",
    "the form of batches (dtype, data_format, size of the images)",
    "`batch_size` (of all trainers together), or the form of labels and weights",
    "`shuffle`, or how often samples come (weights, RepeatedAugmentation, n)",
    "`on_error`",
    "masks, boxes or keypoints",
)
"""What a difference in each part of a spec means; see ``_digests``."""
_DIGITS = 6
"""Hexadecimal digits of the digest of one part."""
_DATA_DIGITS = 12

_OTHER_PARTS = {PART, "listing", "manifest", "mean", "order", "std", "zca"}
"""Parts of a bundle that are no dataset, or not the same bytes in every process."""
_LARGE = 2**24
"""Bytes above which not all rows of an array are hashed."""
_HASHED_ROWS = 64
"""How many rows of a large array are hashed, at equal distances."""


class Identity(NamedTuple):
    """What must be equal in the program that saves a state and in the one that loads it.

    Attributes:
        spec: digests of the parts of the spec.
        data: digest of the dataset: names and labels of its files, their boxes and so on.
        files: how many there are.
    """

    spec: str
    data: str
    files: int


class SequenceState(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a sequence is.

    Attributes:
        version: of this form.
        spec, data, files: see :class:`Identity`.
        seed: of order and draws.
        epoch: from 0.
        samples: of this epoch that were delivered, to all trainers that share it; a multiple of
            their batch size together.
        phase: the batch of a shared stream's epochs with which the trainer's own begin.
    """

    version: int
    spec: str
    data: str
    files: int
    seed: int
    epoch: int
    samples: int
    phase: int = 0

    @classmethod
    def of(cls, state: Any) -> Self:
        """Reads what ``state_dict`` gave.

        Raises:
            InvalidArgument: it is something else.
            StateError: it is of another version.
        """
        if not isinstance(state, dict) or "version" not in state:
            raise InvalidArgument(
                f"`state` should be the dictionary that `state_dict()` gave, and {_found(state)}"
            )
        version = state["version"]
        if isinstance(version, int) and version != VERSION:
            raise StateError(
                f"`state` has version {version}, and this loaderd reads version {VERSION}: load it "
                "with the loaderd that saved it"
            )
        try:
            read = msgspec.convert(state, cls)
        except msgspec.ValidationError as error:
            raise InvalidArgument(
                f"`state` should be what `state_dict()` gave: {error}. Received: {state!r:.200}"
            ) from None
        if min(read.epoch, read.samples, read.seed, read.phase) < 0:
            raise InvalidArgument(f"`state` should have no negative numbers. Received: {state!r}")
        return read

    def place(self, layout: EpochLayout) -> Place:
        """The place of the next batch.

        Raises:
            InvalidArgument: no batch of an epoch begins there.
        """
        position, rest = divmod(self.samples, layout.global_size)
        if rest or position >= max(1, layout.batches):
            raise InvalidArgument(
                f"`state`: no batch begins after {self.samples} samples, in epochs of "
                f"{layout.samples} with {layout.global_size} in a batch"
            )
        if self.phase > min(layout.batches - 1, self.epoch * layout.batches + position):
            raise InvalidArgument(
                f"`state`: no epoch of {layout.batches} batches begins with batch {self.phase} "
                f"before batch {position} of epoch {self.epoch}"
            )
        return self.epoch, position

    def check(self, here: Identity) -> None:
        """Raises StateError, with what differs, for the state of another spec or dataset."""
        differs = [
            meaning
            for number, meaning in enumerate(_DIFFERENCES)
            if _part(self.spec, number) != _part(here.spec, number)
        ]
        more = here.files - self.files
        if more:
            count = f"{abs(more)} {'file was' if abs(more) == 1 else 'files were'}"
            change = f"{count} {'added' if more > 0 else 'removed'}"
            differs.insert(0, f"the dataset ({change}: it had {self.files}, now {here.files})")
        elif self.data != here.data:
            differs.insert(0, f"the dataset ({here.files} files as before, but not the same)")
        if differs:
            raise StateError(
                f"the state belongs to another sequence. What differs: {'; '.join(differs)}. Make "
                "the sequence as it was, or begin without the state"
            )


def _found(state: object) -> str:
    """What was given instead of a state, and what to do about it."""
    if isinstance(state, (str, bytes)):
        return "is a text: give json.loads(state)"
    if not isinstance(state, dict):
        return f"is {state!r:.200}"
    if not state:
        return "is empty"
    return f"has the keys {[*state]!r:.200}: of a whole checkpoint, give that part alone"


def _part(digests: str, number: int) -> str:
    return digests[number * _DIGITS : (number + 1) * _DIGITS]


def spec_digests(spec: Spec) -> str:
    """The digests of a spec's parts, in the order of ``_DIFFERENCES``.

    Where samples come from is no part of it, nor the seed, nor what changes no byte, nor by how
    many trainers a batch is shared. Fields that have their defaults do not count, so that another
    version of loaderd may add some.
    """
    order = Order(
        shuffle=spec.order.shuffle,
        draws=spec.order.draws,
        count=spec.order.count,
        class_weights=spec.order.class_weights,
        weighted=spec.order.weighted,
        repeats=spec.order.repeats,
    )
    trainers = 1 if spec.order.shard is None else spec.order.shard.count
    parts = (
        spec.load,
        (spec.transforms, spec.augment, spec.code),
        msgspec.structs.replace(spec.output, save=None),
        msgspec.structs.replace(spec.batch, batch_size=spec.batch.batch_size * trainers),
        order,
        spec.on_error,
        spec.annotations,
    )
    return "".join(_hexadecimal(repr(_plain(part)).encode(), _DIGITS) for part in parts)


def _plain(value: Any) -> Any:
    """The value of a spec as lists, whose ``repr`` is the same in every process."""
    if isinstance(value, UserCode):  # pickled, and not always to the same bytes
        return ["code", [one.name for one in value.functions]]
    if isinstance(value, msgspec.Struct):
        fields = ((field, getattr(value, field.name)) for field in msgspec.structs.fields(value))
        given = [[field.name, _plain(one)] for field, one in fields if one != field.default]
        return [type(value).__name__, given]
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def dataset_digest(supply: Supply) -> str:
    """The digest of names and labels of all samples, and of what belongs to them.

    Not of the files' contents, nor of the folder they lie in, which may be moved. Of large arrays,
    shape, dtype and some of the rows count.
    """
    hashed = hashlib.sha256()
    parts = supply.parts
    table = Manifest.view(parts["manifest"]) if "manifest" in parts else supply.manifest
    for piece in (_names(table), table.labels.tobytes(), repr(table.class_names).encode()):
        hashed.update(piece)
    if table.masks is not None:
        hashed.update(_names(table.masks))
    for name in sorted(parts):
        if name != "manifest" and "manifest" in name:
            hashed.update(_names(Manifest.view(parts[name])))
        elif name.partition(".")[0] not in _OTHER_PARTS:
            _hash_array(hashed, name, parts[name])
    return hashed.hexdigest()[:_DATA_DIGITS]


def _hash_array(hashed: Any, name: str, array: NDArray[Any]) -> None:
    hashed.update(repr((name, array.dtype.str, array.shape)).encode())
    if array.nbytes > _LARGE:
        array = array[np.unique(np.linspace(0, len(array) - 1, _HASHED_ROWS).astype(int))]
    hashed.update(np.ascontiguousarray(array).tobytes())


def _names(table: Manifest) -> bytes:
    """The names of all files, below the folder that has all of them."""
    names = bytes(table.names)
    if not names.startswith(b"/"):
        return names
    each = names.split(b"\0")[:-1]
    folder = os.path.join(os.path.commonpath([os.path.dirname(min(each)), max(each)]), b"")
    return (b"\0" + names).replace(b"\0" + folder, b"\0")


def _hexadecimal(data: bytes, digits: int) -> str:
    return hashlib.sha256(data).hexdigest()[:digits]
