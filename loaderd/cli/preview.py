"""``loaderd preview``: a picture of samples as training gets them."""

from __future__ import annotations

import argparse
import ast
import difflib
import os
from typing import Any

from loaderd.augment.operation import Operation
from loaderd.cli import console, decoders
from loaderd.cli.exit_codes import DONE
from loaderd.errors import InvalidArgument
from loaderd.spec.load import Load
from loaderd.spec.output import Batching, Order, Output
from loaderd.spec.source import Directory
from loaderd.spec.spec import Spec

_MAX_BATCH = 16

DOES = "draw a picture of augmented samples"
EXAMPLES = """\
  loaderd preview data/train
  loaderd preview data/train 'RandomResizedCrop(224, 224)' RandAugment 'MixUp(0.4)'
  loaderd preview data/train 'RandomRotation(0.1, fill_mode="constant")' --count 36 -o turned.png

Operations are those of loaderd_client.augment, as a program writes them in `augment=[...]`; without
arguments the parentheses may be left out. Class names are below the images.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("directory", metavar="DIR", help="the folder, whose subfolders are classes")
    parser.add_argument("operations", metavar="OPERATION", nargs="*", help="in their order")
    parser.add_argument("--size", type=int, nargs="+", default=[224], metavar="PIXELS",
                        help="height and width of the images, or one number for both")  # fmt: skip
    parser.add_argument("--count", type=int, default=16, help="how many images (default: 16)")
    parser.add_argument("--seed", type=int, default=0, help="of order and draws (default: 0)")
    parser.add_argument("--output", "-o", default="preview.png", metavar="FILE",
                        help="the picture (default: preview.png)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Write the picture."""
    decoders.require()
    # Imported late, as the other verbs need no client.
    from loaderd_client.core.session import Session
    from loaderd_client.keras.preview import Overlay, caption, picture_of

    if args.count < 1:
        raise InvalidArgument("--count must be at least 1")
    spec = _spec(args)
    with Session() as session:
        stream = session.open(spec, slots=2)
        names = list(stream.manifest.class_names)
        batches = (stream.take((0, position)) for position in range(stream.batches))
        picture = picture_of(
            batches,
            args.count,
            spec,
            lambda batch, row: (
                caption(batch.labels[row], spec.batch.label_mode, names),  # type: ignore[index]
                Overlay(),
            ),
        )
    try:
        picture.save(args.output)
    except (OSError, ValueError) as error:  # no folder, or no format of that name
        raise InvalidArgument(f"{args.output} cannot be written: {error}") from None
    console.out(f"{args.output}: {picture.width}x{picture.height} pixels")
    return DONE


def _spec(args: argparse.Namespace) -> Spec:
    from loaderd_client.keras.augment_list import augmented
    from loaderd_client.keras.image_options import EXTENSIONS

    if len(args.size) > 2:
        raise InvalidArgument("--size takes one number, or height and width")
    if not os.path.isdir(args.directory):
        raise InvalidArgument(f"{args.directory!r} is no folder: name the one with the classes")
    load = Load(
        target_size=(args.size[0], args.size[-1]),
        interpolation="bilinear",
        reading="decode_image",
    )
    batch = Batching(batch_size=min(max(args.count, 1), _MAX_BATCH), label_mode="int")
    parts = augmented([operation_of(text) for text in args.operations], load, Output(), batch)
    return Spec(
        source=Directory(
            directory=os.path.abspath(args.directory),
            extensions=EXTENSIONS,
            hidden=False,
            shuffle_seed=args.seed,
        ),
        load=parts.load,
        transforms=(),
        output=parts.output,
        batch=parts.batch,
        order=Order(seed=args.seed, repeats=parts.repeats),
        augment=parts.operations,
    )


def operation_of(text: str) -> Operation:
    """The operation of an expression such as ``RandomApply([RandomFlip()], p=0.3)``.

    Only names of operations, numbers, texts, lists and quotients of numbers are read; nothing is
    executed.

    Raises:
        InvalidArgument: it is something else.
    """
    try:
        value = _value(ast.parse(text.strip(), mode="eval").body)
    except InvalidArgument:
        raise
    except (SyntaxError, ValueError, ZeroDivisionError) as error:
        raise InvalidArgument(f"{text!r} is no operation: {error}") from None
    except TypeError as error:
        raise InvalidArgument(f"{text!r}: {error}") from None
    if isinstance(value, type):
        return operation_of(f"{text}()")
    if not isinstance(value, Operation):
        raise InvalidArgument(f"{text!r} is no operation: write it as in `augment=[...]`")
    return value


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Call(
            func=ast.Name(id=name) | ast.Attribute(attr=name), args=values, keywords=keywords
        ):
            named = {each.arg: _value(each.value) for each in keywords if each.arg}
            return _named(name)(*map(_value, values), **named)
        case ast.Name(id=name):
            return _named(name)
        case ast.Attribute(attr=name):  # as a program writes A.RandomFlip
            return _named(name)
        case ast.List(elts=values) | ast.Tuple(elts=values):
            return tuple(map(_value, values))
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return _value(left) / _value(right)
        case _:
            return ast.literal_eval(node)


def _named(name: str) -> Any:
    from loaderd_client import augment

    if name == augment.Function.__name__:
        raise InvalidArgument("Function takes code of a program: call `preview` of its dataset")
    if name in augment.__all__:
        return getattr(augment, name)
    near = difflib.get_close_matches(name, augment.__all__, 1)
    meant = f": did you mean {near[0]}?" if near else f"; there are {', '.join(augment.__all__)}"
    raise InvalidArgument(f"there is no operation {name}{meant}")
