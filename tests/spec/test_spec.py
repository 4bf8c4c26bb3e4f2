"""A spec comes out as it went in, whatever the names in it, and workers get what they need."""

from __future__ import annotations

import json
import os
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaderd.errors import InvalidArgument
from loaderd.ipc.messages import LONGEST_TEXT, Attach, decode, encode
from loaderd.spec import spec as specs
from loaderd.spec.annotations import Annotations
from loaderd.spec.load import Load, Pil
from loaderd.spec.operations import GeneratorFlip, NamedFunction, UserCode
from loaderd.spec.output import Batching, Order, Output, Save
from loaderd.spec.source import Arrays, Directory, Files
from loaderd.spec.spec import Spec
from loaderd_client import augment as A
from tests.support.specs import stages

NAMES = st.binary(min_size=1, max_size=30).map(os.fsdecode)


@given(directory=NAMES, name=NAMES, folder=NAMES)
def test_names_are_what_the_file_system_holds(directory: str, name: str, folder: str) -> None:
    asked = Spec(
        source=Directory(directory=directory, extensions=("jpg",), classes=(name,), labels=(1, 2)),
        **stages(
            target_size=(8, 8),
            function=UserCode((NamedFunction("module", "name", folder),), path=(folder, name)),
            save=Save(folder, name, "png", 9),
            cval=0.5,
        ),
        batch=Batching(batch_size=2),
        order=Order(seed=3),
    )
    assert specs.decode(specs.encode(asked)) == asked
    told = decode(
        encode(Attach(1, specs.encode(specs.for_workers(asked)), 1, 2, 3, 4, (5,), False))
    )
    assert isinstance(told, Attach)
    found = specs.decode(told.spec)
    assert found == msgspec.structs.replace(asked, source=Files())


def test_workers_are_told_nothing_of_the_listing() -> None:
    asked = Spec(
        source=Directory(directory="/d", extensions=("jpg",), labels=tuple(range(10_000))),
        **stages(target_size=(8, 8)),
        batch=Batching(batch_size=2),
        order=Order(),
    )
    assert len(specs.encode(specs.for_workers(asked))) < LONGEST_TEXT / 4
    assert specs.for_workers(asked).source == Files()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b'{"source":"\\ud800"}',
        b"\xff\\ud",
        b"[" * 100_000 + b"\\ud",
        b'{"source":{"type":"files","directory":"\\udcff"},"load":{"target_size":[NaN,1]},'
        b'"transforms":[],"output":{},"batch":{"batch_size":1},"order":{}}',
    ],
)
def test_what_is_no_spec_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument, match="the spec is not valid"):
        specs.decode(data)


def test_pils_numbers_must_be_such() -> None:
    for name, value in (("max_pixels", -1), ("max_pixels", 2**50), ("max_text_chunk", -1)):
        with pytest.raises(InvalidArgument):
            msgspec.structs.replace(Pil(), **{name: value})


PLAIN = Spec(
    source=Files(),
    load=Load(target_size=(4, 5), aspect="keep"),
    transforms=(),
    output=Output(),
    batch=Batching(batch_size=2, label_mode="none"),
    order=Order(seed=0),
    augment=(A.RandomCrop(4, 5),),
)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"cache": "memory"}, "needs images of one size"),
        ({"transforms": (GeneratorFlip(horizontal=True),)}, "no operation of ImageDataGenerator"),
        ({"order": Order(seed=0, draws="batch")}, "no operation of ImageDataGenerator"),
        (
            {"source": Arrays(), "annotations": Annotations(further=("rgb",))},
            "further images are read from files",
        ),
        ({"annotations": Annotations(masks="arrays")}, "go with images in arrays"),
        (
            {"annotations": Annotations(masks="files"), "load": Load(target_size=(4, 5))},
            "keep their size, or",
        ),
        (
            {
                "annotations": Annotations(masks="files"),
                "load": Load(target_size=(4, 5), aspect="keep", sized=True),
            },
            "keep their size, or",
        ),
        ({"augment": (A.MixUp(),), "output": Output(dtype="uint8")}, "MixUp and CutMix need"),
        ({"augment": (A.CutMix(),), "batch": Batching(batch_size=2, label_mode="int")}, "need"),
        (
            {"augment": (A.MixUp(),), "annotations": Annotations(masks="files")},
            "the mean of two masks has no meaning",
        ),
        (
            {
                "augment": (A.RandomMix([A.CutMix(), A.MixUp()]),),
                "annotations": Annotations(masks="files"),
            },
            "the mean of two masks has no meaning",
        ),
        (
            {"augment": (A.CutMix(),), "annotations": Annotations(max_boxes=1, boxes=True)},
            "boxes, keypoints and further images have no meaning",
        ),
        ({"augment": (A.Rescaling(2.0), A.RandomFlip())}, "must come before Rescaling"),
    ],
)
def test_parts_that_do_not_fit_one_another_are_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        msgspec.structs.replace(PLAIN, **fields)
    data = json.loads(specs.encode(PLAIN))
    data |= {name: msgspec.to_builtins(value) for name, value in fields.items()}
    with pytest.raises(InvalidArgument, match=says):
        specs.decode(json.dumps(data).encode())
