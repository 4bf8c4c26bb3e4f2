"""Formats go by what is in a file, as in Keras; what PIL lacks is no file's fault."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from loaderd import pillow
from loaderd.errors import BadImage, MissingCodec, MissingDependency
from loaderd.render.load import formats
from loaderd.spec.base import ColorMode
from loaderd.spec.load import Pil, Plugin
from scripts.benchmarks.file_renderer import FileRenderer
from tests.corpus import odd, pictures
from tests.support.specs import rendering

Pipe = Callable[..., NDArray[Any]]

CORE = importlib.import_module("PIL._imaging")
COLOR_MODES: list[ColorMode] = ["rgb", "rgba", "grayscale"]
FILES = dict(odd.all_files())
SIZES = ((45, 60), (20, 31))


def content_of(name: str) -> bytes:
    try:
        return FILES[name]()
    except (KeyError, OSError) as error:  # this PIL's libraries cannot write it
        pytest.skip(f"this PIL writes no {name}: {error}")


def load(path: Path, **choices: Any) -> Any:
    return FileRenderer(rendering(**{"target_size": (8, 8)} | choices)).load_file(str(path))


@pytest.mark.filterwarnings("ignore")  # from Keras's side
@pytest.mark.parametrize("name", FILES)
def test_a_file_of_any_format_gives_the_pixels_that_keras_gives_or_fails_as_there(
    name: str, tmp_path: Path, ours: Pipe, keras_pixels: Pipe
) -> None:
    path = tmp_path / "scraped.jpg"
    path.write_bytes(content_of(name))
    for color_mode in COLOR_MODES:
        if (name, color_mode) == ("icns", "rgba"):
            continue  # Keras gives three channels, as PIL knows the mode only when it has loaded
        for size in SIZES:
            pipeline = rendering(target_size=size, color_mode=color_mode)
            try:
                expected = keras_pixels(path, pipeline)
            except (OSError, ValueError):
                with pytest.raises(BadImage):
                    ours(path, pipeline)
                continue
            np.testing.assert_array_equal(ours(path, pipeline), expected)


def test_the_formats_are_pils_but_for_those_that_run_programs_or_are_mere_names() -> None:
    Image.init()
    taken = {*formats.FIRST, *formats._OTHERS}
    builtin = {name for name, (factory, _) in Image.OPEN.items() if "PIL" in factory.__module__}
    refused = {"EPS", "IPTC", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "FPX", "MIC"}
    assert builtin - refused <= taken
    assert not taken & refused


@pytest.mark.parametrize("name", odd.FORGED)
def test_a_small_file_that_claims_to_be_huge_is_bad_before_memory_is_taken(
    name: str, tmp_path: Path
) -> None:
    if name in FILES:
        content_of(name)
    path = tmp_path / "bomb.jpg"
    path.write_bytes(odd.FORGED[name]())
    expected = "pixels are more than 178956970; if the picture is real, raise --max-pixels"
    if name.startswith("webp"):  # libwebp takes memory when it reads the header
        expected = r"\d+x\d+ " + expected
    if name in ("avif", "jpeg2000-inner"):  # the libraries compare what the file says twice
        expected = "damaged|broken|pixels are more"
    with pytest.raises(BadImage, match=expected):
        load(path)


WORDS = {
    "EPS": pictures.FOREIGN["eps"],
    "PDF": pictures.FOREIGN["pdf"],
    "SVG": b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="">',
    "web page": b"\n<!DOCTYPE html><html>",
    "WMF": b"\xd7\xcd\xc6\x9a\0\0" + bytes(50),
    "HEIF": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "JPEG XL": b"\xff\x0a" + bytes(50),
    "damaged AVIF": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(60),
    "video": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom",
    "archive": b"PK\3\4" + bytes(50),
    "does not read": b"\x89HDF\r\n\x1a\n" + bytes(50),
    "compressed FITS": odd.packed_fits(),
    "in a format that PIL reads": b"no picture at all",
}


@pytest.mark.parametrize("words", WORDS)
def test_what_is_not_decoded_is_refused_in_plain_words(words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(WORDS[words])
    if words == "damaged AVIF" and pillow.lacks(pillow.AVIF):
        pytest.skip("this PIL cannot tell")
    with pytest.raises(BadImage, match=words):
        load(path)


# ---- what PIL lacks --------------------------------------------------------------------


def without(patch: pytest.MonkeyPatch, codec: pillow.Codec) -> None:
    """Takes a library from PIL, as if it had been built without it."""
    if codec is pillow.TIFF:
        patch.delattr(CORE, "libtiff_decoder")
        patch.delattr(CORE, "libtiff_encoder")
    elif codec is pillow.JPEG2000:
        patch.delattr(CORE, "jpeg2k_decoder")
        patch.delattr(CORE, "jpeg2k_encoder")
    else:
        plugin = {"webp": "WebP", "avif": "Avif"}[codec.feature]
        module = sys.modules[f"PIL.{plugin}ImagePlugin"]
        patch.setattr(module, "SUPPORTED", False)
        patch.setitem(sys.modules, f"PIL._{codec.feature}", None)
    if codec is pillow.AVIF:
        module = sys.modules.get("pillow_avif.AvifImagePlugin", module)
        patch.setattr(module, "SUPPORTED", False)
        patch.setattr(pillow, "find_spec", lambda name: None)


LACKING = {
    "webp": pillow.WEBP,
    "webp-lossless": pillow.WEBP,
    "avif": pillow.AVIF,
    "jpeg2000": pillow.JPEG2000,
    "tiff-lzw": pillow.TIFF,
    "tiff-deflate": pillow.TIFF,
    "tiff-jpeg": pillow.TIFF,
    "tiff-fax4": pillow.TIFF,
    "tiff-tiled": pillow.TIFF,
}


@pytest.mark.parametrize("name", LACKING)
def test_a_file_that_takes_a_library_which_pil_lacks_is_no_bad_image(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content_of(name))
    load(path)
    codec = LACKING[name]
    without(monkeypatch, codec)
    with pytest.raises(MissingDependency) as caught:
        load(path)
    assert type(caught.value) is MissingCodec
    assert str(caught.value) == (
        f"{path}: PIL was built without {codec.library}, which decodes {codec.formats}: "
        f"{pillow.advice(codec)}"
    )


def test_a_lab_tiff_without_its_colour_library_is_no_bad_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import ImageCms
    from PIL._util import DeferredError

    (tmp_path / "a.tif").write_bytes(content_of("tiff-lab"))
    missing = ImportError("No module named 'PIL._imagingcms'")
    monkeypatch.setattr(ImageCms, "core", DeferredError(missing))
    with pytest.raises(MissingCodec, match="Little CMS, which decodes TIFF in Lab colours"):
        load(tmp_path / "a.tif")


def test_a_compression_that_libtiff_lacks_is_told_from_a_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytearray(content_of("tiff-zstd"))
    place = data.index(b"\x28\xb5\x2f\xfd")  # where the compressed strip begins
    data[place + 8 : place + 48] = b"\xff" * 40
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(BadImage):
        load(tmp_path / "a.tif")
    monkeypatch.setattr(formats, "_tiff_can", lambda compression: False)
    with pytest.raises(MissingCodec, match="libtiff was built without zstd"):
        load(tmp_path / "a.tif")


def test_a_damaged_file_of_a_format_that_pil_has_is_a_bad_image(tmp_path: Path) -> None:
    for name in ("webp", "jpeg2000", "tiff-lzw"):
        data = content_of(name)
        (tmp_path / "a.jpg").write_bytes(data[: len(data) // 3])
        with pytest.raises(BadImage):
            load(tmp_path / "a.jpg")


# ---- PIL's switches --------------------------------------------------------------------


def test_a_pipelines_switches_hold_for_it_and_for_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(odd.long_notes(3 * 2**20))
    patient = FileRenderer(rendering(target_size=(8, 8), pil=Pil(max_text_chunk=2**22)))
    plain = FileRenderer(rendering(target_size=(8, 8)))
    for _ in range(2):
        patient.load_file(str(path))
        with pytest.raises(BadImage, match=r"raise PIL's PngImagePlugin\.MAX_TEXT_CHUNK"):
            plain.load_file(str(path))


def test_text_memory_is_a_switch_too(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(odd.long_notes(2**19))
    load(path)
    with pytest.raises(BadImage, match=r"raise PIL's PngImagePlugin\.MAX_TEXT_MEMORY"):
        load(path, pil=Pil(max_text_memory=2**18))


def test_bitmaps_have_their_alpha_on_request(tmp_path: Path) -> None:
    path = tmp_path / "a.bmp"
    path.write_bytes(FILES["bmp-32"]())
    opaque = load(path, color_mode="rgba")[..., 3]
    raw = load(path, color_mode="rgba", pil=Pil(bmp_alpha=True))[..., 3]
    assert (opaque == 255).all()
    assert not (raw == 255).all()


@pytest.mark.parametrize("switches", [Pil(gif_loading=1), Pil(gif_loading=2), Pil(libtiff=True)])
def test_switches_that_choose_another_way_give_the_same_pixels(
    tmp_path: Path, switches: Pil
) -> None:
    for name in ("gif-animated", "tiff-lzw", "tiff-packbits"):
        (tmp_path / name).write_bytes(content_of(name))
        np.testing.assert_array_equal(load(tmp_path / name, pil=switches), load(tmp_path / name))


PLUGIN = """
from PIL import Image, ImageFile

class Dots(ImageFile.ImageFile):
    format = "DOTS"

    def _open(self):
        self.fp.seek(4)
        self._size, self._mode = (4, 4), "L"
        self.tile = [("raw", (0, 0, 4, 4), 4, ("L", 0, 1))]

def accept(prefix):
    return prefix[:4] == b"DOTS"
"""


def test_a_format_of_another_package_is_read_where_the_pipeline_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dots_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"DOTS" + bytes(range(16)))
    plugin = Plugin("DOTS", "dots_plugin", "Dots", "accept")
    pixels = load(tmp_path / "a.jpg", target_size=(4, 4), pil=Pil(plugins=(plugin,)))
    assert pixels[..., 0].ravel().tolist() == list(range(16))
    with pytest.raises(BadImage, match="not an image"):
        load(tmp_path / "a.jpg")


def test_a_package_that_workers_lack_is_named(tmp_path: Path) -> None:
    absent = Pil(plugins=(Plugin("HEIF", "no_such_heif", "HeifImageFile", "accept"),))
    (tmp_path / "a.jpg").write_bytes(WORDS["HEIF"])
    with pytest.raises(MissingCodec, match=r"no_such_heif \(HEIF\), which workers cannot import"):
        load(tmp_path / "a.jpg", pil=absent)
    (tmp_path / "a.jpg").write_bytes(b"no picture at all")
    with pytest.raises(BadImage, match="workers cannot import no_such_heif"):
        load(tmp_path / "a.jpg", pil=absent)


# ---- grey pictures of 16 bits ----------------------------------------------------------


@pytest.mark.parametrize("color_mode", COLOR_MODES)
def test_fixed_takes_the_upper_bits_of_deep_greys(tmp_path: Path, color_mode: ColorMode) -> None:
    deep = pictures.deep(1)[..., 0]
    file = io.BytesIO()
    Image.fromarray(deep).save(file, "PNG")
    (tmp_path / "a.png").write_bytes(file.getvalue())
    pixels = load(tmp_path / "a.png", target_size=(45, 60), color_mode=color_mode, compat="fixed")
    np.testing.assert_array_equal(pixels[..., 0], deep >> 8)
