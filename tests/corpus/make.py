"""Writes files that a loader may meet, with what is to become of each.

::

    python -m tests.corpus.make DIR         writes DIR/<kind>/<file>, and DIR/expected.json
    python -m tests.corpus.make --table     prints how many there are of each kind

What is expected is written down here, by rule. Only for files that are cut off or have
random bytes the judge is PIL, called as Keras's ``load_img`` calls it: "as in Keras" is
the rule for them. Two runs write the same bytes.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import socket
import stat
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from tests.corpus import odd, pictures
from tests.corpus.pictures import (
    FOREIGN,
    SUFFIXES,
    bomb,
    plain,
    saved,
    scans,
    separate_scans,
    wide_frame,
)

__all__ = ["bomb", "plain", "scans", "separate_scans", "table", "wide_frame", "write"]

NO_IMAGE = "not an image in a format that PIL reads"
IRREGULAR = "not a regular file"
PARTS = 16
FLIPPED = 40

Special = Callable[[bytes], None]


class Case(NamedTuple):
    """One file.

    Attributes:
        kind: the folder that it lies in.
        name: within the folder.
        content: its bytes, or what makes it.
        reason: part of the error; None for a good picture.
        judged: PIL says which it is, instead of ``reason``.
    """

    kind: str
    name: bytes
    content: bytes | Special
    reason: str | None = None
    judged: bool = False


class Expected(NamedTuple):
    """What is to become of a file: as in ``expected.json``.

    Attributes:
        path: relative to the corpus; bytes that are not UTF-8 as ``os.fsdecode`` has them.
        kind: of the file.
        reason: part of the error; None for a good picture.
    """

    path: str
    kind: str
    reason: str | None


# ---- which there are -------------------------------------------------------------------


def cases() -> Iterator[Case]:
    """All of them; fewer only where the system cannot make one."""
    for maker in (_good, _cut, _flipped, _no_pictures, _foreign, _more_formats, _misnamed, _bombs,
                  _scans, _colours, _animated, _exif, _names, _links, _irregular):  # fmt: skip
        yield from maker()


def _good() -> Iterator[Case]:
    for form, suffix in SUFFIXES.items():
        yield Case("plain", f"{form}.{suffix}".encode(), plain(form))


def _cut() -> Iterator[Case]:
    for form, suffix in SUFFIXES.items():
        data = plain(form)
        for part in range(1, PARTS):
            name = f"{form}-{part:02}-of-{PARTS}.{suffix}".encode()
            yield Case(f"cut {form}", name, data[: len(data) * part // PARTS], judged=True)


def _flipped() -> Iterator[Case]:
    forms = list(SUFFIXES.items())
    for seed in range(FLIPPED):
        form, suffix = forms[seed % len(forms)]
        data, rng = bytearray(plain(form, seed)), np.random.default_rng(seed)
        for _ in range(1 + seed % 5):  # every other one within the header, where it hurts
            data[rng.integers(0, len(data) if seed % 2 else 200)] ^= int(rng.integers(1, 256))
        yield Case("flipped bytes", f"{seed:02}.{suffix}".encode(), bytes(data), judged=True)


def _no_pictures() -> Iterator[Case]:
    for suffix in ("jpg", "png", "gif", "bmp", "tif", "ppm"):
        yield Case("no bytes", f"empty.{suffix}".encode(), b"", "an empty file")
        text = b"This is no picture.\n" * 50
        yield Case("text", f"text.{suffix}".encode(), text, NO_IMAGE)
    yield Case("text", b"zeros.jpg", bytes(5000), NO_IMAGE)
    yield Case("text", b"start-only.jpg", b"\xff\xd8\xff", NO_IMAGE)


FOREIGN_WORDS = {
    "eps": "an EPS file", "webp": "failed to read next frame", "icns": "Unsupported icon",
    "svg": "an SVG drawing", "pdf": "a PDF",
}  # fmt: skip


def _foreign() -> Iterator[Case]:
    for form, data in FOREIGN.items():
        reason = FOREIGN_WORDS.get(form, NO_IMAGE)
        yield Case("other formats", f"{form}.jpg".encode(), data, reason)


OTHERS = (
    "webp", "webp-lossless", "webp-animated", "jpeg2000", "jpeg2000-stream", "mpo", "ico",
    "tga-rle", "pcx", "sgi", "dds-dxt1", "qoi", "psd", "cur", "xpm", "tiff-lzw", "tiff-jpeg",
    "tiff-fax4", "tiff-tiled", "tiff-planar", "bmp-rle8", "bmp-565",
)  # fmt: skip
"""Of the formats and variants that Keras does not list, and reads."""


def _more_formats() -> Iterator[Case]:
    files = dict(odd.all_files())
    for seed, form in enumerate(OTHERS):
        data, rng = files[form](), np.random.default_rng(seed)
        yield Case("more formats", f"{form}.jpg".encode(), data)
        for part in range(1, 6):
            name = f"{form}-{part}-of-6.jpg".encode()
            yield Case("more formats, cut", name, data[: len(data) * part // 6], judged=True)
        for number in range(4):
            flipped = bytearray(data)
            for _ in range(1 + number):
                flipped[rng.integers(0, len(data) if number % 2 else min(len(data), 100))] ^= int(
                    rng.integers(1, 256)
                )
            name = f"{form}-{number}.jpg".encode()
            yield Case("more formats, flipped", name, bytes(flipped), judged=True)


def _misnamed() -> Iterator[Case]:
    """Keras goes by what is in a file."""
    for form, suffix in SUFFIXES.items():
        other = "png" if suffix == "jpg" else "jpg"
        yield Case("wrong extension", f"{form}.{other}".encode(), plain(form))


def _bombs() -> Iterator[Case]:
    columns, rows = pictures.FORGED
    for form, suffix in SUFFIXES.items():
        reason = f"{columns}x{rows} pixels are more than 178956970"
        yield Case("forged size", f"{form}.{suffix}".encode(), bomb(form), reason)
    yield Case("forged size", b"frame.gif", wide_frame(), "pixels are more than 178956970")


def _scans() -> Iterator[Case]:
    yield Case("many scans", b"100.jpg", scans(100, (64, 64)))
    yield Case("many scans", b"1000-small.jpg", scans(1000, (64, 64)))
    yield Case("many scans", b"1000-large.jpg", scans(1000, (4000, 4000)), "more than 357 scans")
    yield Case("many scans", b"50-huge.jpg", scans(50, (13000, 13000)), "more than 33 scans")
    yield Case("many scans", b"separate-3.jpg", separate_scans(3, (16, 16)))
    many = separate_scans(1000, (4000, 4000))
    yield Case("many scans", b"separate-1000.jpg", many, "more than 357 scans")


def _colours() -> Iterator[Case]:
    photo = pictures.photo()
    alpha = photo.convert("RGBA")
    alpha.putalpha(photo.convert("L"))
    palette = photo.quantize(16)
    rgb = np.asarray(photo)
    jpegs = {
        "grey": saved(photo.convert("L"), "jpeg"),
        "cmyk": saved(photo.convert("CMYK"), "jpeg"),
        "cmyk-without-adobe": pictures.cmyk_without_adobe(),
        "ycck": pictures.ycck(),
        "rgb": saved(photo, "jpeg", keep_rgb=True),
        "unsubsampled": saved(photo, "jpeg", subsampling=0),
        "tail": plain("jpeg") + b"tail" * 99,
    }
    pngs = {
        "grey": saved(photo.convert("L"), "png"),
        "alpha": saved(alpha, "png"),
        "grey-alpha": saved(alpha.convert("LA"), "png"),
        "palette": saved(palette, "png"),
        "palette-transparent": saved(palette, "png", transparency=bytes(range(0, 256, 16))),
        "rgb-transparent": saved(photo, "png", transparency=(1, 2, 3)),
        "one-bit": saved(photo.convert("1"), "png"),
        "grey-16": pictures.png(pictures.deep(1), 0),
        "grey-alpha-16": pictures.png(pictures.deep(2), 4),
        "rgb-16": pictures.png(pictures.deep(3), 2),
        "rgba-16": pictures.png(pictures.deep(4), 6),
        "interlaced": pictures.png(rgb, 2, interlaced=True),
        "interlaced-rgba-16": pictures.png(pictures.deep(4), 6, interlaced=True),
    }
    tiffs = {
        "grey-16": saved(Image.fromarray(pictures.deep(1)[:, :, 0]), "tiff"),
        "cmyk": saved(photo.convert("CMYK"), "tiff"),
        "one-bit": saved(photo.convert("1"), "tiff"),
        "float": saved(photo.convert("F"), "tiff"),
        "rgba": saved(alpha, "tiff"),
    }
    others = {
        "grey.bmp": saved(photo.convert("L"), "bmp"),
        "palette.bmp": saved(palette, "bmp"),
        "one-bit.bmp": saved(photo.convert("1"), "bmp"),
        "grey.ppm": saved(photo.convert("L"), "ppm"),
        "one-bit.ppm": saved(photo.convert("1"), "ppm"),
        "transparent.gif": saved(palette, "gif", transparency=3),
    }
    files = {f"{name}.jpg": data for name, data in jpegs.items()}
    files |= {f"{name}.png": data for name, data in pngs.items()}
    files |= {f"{name}.tif": data for name, data in tiffs.items()} | others
    for name, data in files.items():
        yield Case("colours and depths", name.encode(), data)


def _animated() -> Iterator[Case]:
    first, *more = (pictures.photo(seed=seed) for seed in range(3))
    for form in ("gif", "tiff", "png"):
        name = f"three-pages.{SUFFIXES[form]}".encode()
        quantized = [image.quantize(64) for image in more] if form == "gif" else more
        data = saved(first, form, save_all=True, append_images=quantized)
        yield Case("first of several", name, data)


def _exif() -> Iterator[Case]:
    for orientation in range(1, 9):
        for form in ("jpeg", "png", "tiff"):
            name = f"{form}-{orientation}.{SUFFIXES[form]}".encode()
            yield Case("orientations", name, pictures.turned(form, orientation))
    yield Case("orientations", b"xmp-6.jpg", pictures.with_xmp(6))
    damaged = {
        "empty": b"",
        "zeros": bytes(40),
        "far": b"II*\0" + b"\xff" * 4,
        "cut": b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03",
        "loop": b"II*\0\x08\0\0\0\x01\0\x12\x01\x05\0\x01\0\0\0\x08\0\0\0\x08\0\0\0",
        "ninth": b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0\0\0\0\0",
        "text": b"II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x02\0\0\0\x36\0\0\0\0\0\0\0",
    }
    for about, block in damaged.items():
        yield Case("damaged EXIF", f"{about}.jpg".encode(), pictures.with_exif(block))
        yield Case("damaged EXIF", f"{about}.png".encode(), pictures.png_with_exif(block))


NAMES = (
    b"not-utf-8-\xff\xfe.jpg",
    b"latin-1-\xe4\xf6\xfc.jpg",
    "umlaut-äöü-漢字-🖼.jpg".encode(),
    b"line\nbreak.jpg",
    b"carriage\rreturn.jpg",
    b"\x1b[31mred\x1b[0m.jpg",
    b"\x1b]0;title\x07.jpg",
    "overridden-\u202egpj.jpg".encode(),
    b" space .jpg",
    b"-rf.jpg",
    b"%s%n{0}.jpg",
    b"'\"`$(true).jpg",
    b"\\.jpg",
    b".jpg",
    b"UPPER.JPG",
    b"l" * 251 + b".jpg",
    "ü".encode() * 125 + b"l.jpg",
)


def _names() -> Iterator[Case]:
    for name in NAMES:
        yield Case("names", name, plain("jpeg"))
        bad = name[:-5] + b"~" + name[-4:] if len(name) > 5 else b"~" + name
        yield Case("names", bad, b"no picture", NO_IMAGE)


def _links() -> Iterator[Case]:
    gone, loop = "No such file or directory", "Too many levels of symbolic links"
    yield Case("links", b"good.jpg", _link(b"../plain/jpeg.jpg"))
    yield Case("links", b"dangling.jpg", _link(b"nowhere.jpg"), gone)
    yield Case("links", b"itself.jpg", _link(b"itself.jpg"), loop)
    yield Case("links", b"there.jpg", _link(b"back.jpg"), loop)
    yield Case("links", b"back.jpg", _link(b"there.jpg"), loop)
    yield Case("links", b"null.jpg", _link(b"/dev/null"), IRREGULAR)
    yield Case("links", b"folder.jpg", _link(b"../plain"), IRREGULAR)
    yield Case("links", b"up", _link(b".."), IRREGULAR)  # a loop for whoever follows it


def _irregular() -> Iterator[Case]:
    yield Case("no regular files", b"fifo.jpg", os.mkfifo, IRREGULAR)
    yield Case("no regular files", b"socket.jpg", _listen, IRREGULAR)
    yield Case("no regular files", b"folder.jpg", os.mkdir, IRREGULAR)
    yield Case("no regular files", b"folder.jpg/inside.jpg", plain("jpeg"))
    if _may_make_devices():
        yield Case("no regular files", b"device.jpg", _zero, IRREGULAR)
    root = os.geteuid() == 0
    secret = None if root else "Permission denied"
    yield Case("unreadable", b"unreadable.jpg", _unreadable, secret)


def _link(target: bytes) -> Special:
    return lambda path: os.symlink(target, path)


def _listen(path: bytes) -> None:
    """A socket's name remains when nobody listens any more."""
    with socket.socket(socket.AF_UNIX) as end:
        folder = os.open(os.path.dirname(path), os.O_RDONLY)
        try:  # the path of a socket has 107 bytes at most
            end.bind(b"/proc/self/fd/%d/%s" % (folder, os.path.basename(path)))
        finally:
            os.close(folder)


def _zero(path: bytes) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero has no end


def _may_make_devices() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        try:
            _zero(os.fsencode(folder) + b"/device")
        except OSError:
            return False
    return True


def _unreadable(path: bytes) -> None:
    with open(path, "wb") as file:
        file.write(plain("jpeg"))
    os.chmod(path, 0)


# ---- writing them ----------------------------------------------------------------------


def write(directory: str) -> list[Expected]:
    """Writes all files and ``expected.json``.

    Args:
        directory: a folder that is empty, or not there yet.

    Raises:
        FileExistsError: it is not empty.
    """
    os.makedirs(directory, exist_ok=True)
    if os.listdir(directory):
        raise FileExistsError(f"{directory!r} is not empty")
    expected = []
    for case in cases():
        path = os.path.join(os.fsencode(directory), case.kind.encode(), case.name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _make(path, case.content)
        relative = os.fsdecode(os.path.join(case.kind.encode(), case.name))
        expected.append(Expected(relative, case.kind, _reason(case)))
    with open(os.path.join(directory, "expected.json"), "w", encoding="ascii") as file:
        json.dump([case._asdict() for case in expected], file, indent=1)
    return expected


def _make(path: bytes, content: bytes | Special) -> None:
    if not isinstance(content, bytes):
        content(path)
        return
    with open(path, "xb") as file:
        file.write(content)


def _reason(case: Case) -> str | None:
    if not case.judged:
        return case.reason
    assert isinstance(case.content, bytes)
    return judge(case.content)


def judge(data: bytes) -> str | None:
    """What PIL says of a file as Keras asks: part of the reason, None if it is good."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.open(io.BytesIO(data)).convert("RGB").resize((8, 8), Image.Resampling.NEAREST)
    except UnidentifiedImageError:
        return NO_IMAGE
    except Image.DecompressionBombError:
        return "--max-pixels"
    except Exception as error:
        return str(error)
    return None


def table() -> str:
    """Markdown: how many files there are of each kind, and what is expected of them."""
    with tempfile.TemporaryDirectory() as folder:
        expected = write(os.path.join(folder, "corpus"))
    good = Counter(case.kind for case in expected if case.reason is None)
    every = Counter(case.kind for case in expected)
    rows = [(kind, count, good[kind], count - good[kind]) for kind, count in every.items()]
    rows.append(("together", every.total(), good.total(), every.total() - good.total()))
    lines = ["| kind | files | good | bad |", "|---|---:|---:|---:|"]
    return "\n".join([*lines, *("| {} | {} | {} | {} |".format(*row) for row in rows)])


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Writes files that a loader may meet.")
    parser.add_argument("directory", nargs="?", help="a new folder")
    parser.add_argument("--table", action="store_true", help="prints how many there are")
    words = parser.parse_args()
    if words.table:
        print(table())
    elif words.directory:
        print(f"{len(write(words.directory))} files in {words.directory}")
    else:
        parser.error("name a directory, or --table")
    return 0


if __name__ == "__main__":
    sys.exit(main())
