"""Which Pillow is installed, which codecs it lacks, and the commands that install them.

Pillow and pillow-simd both install the module ``PIL``: the later one overwrites the other, and pip
does not warn. Each has the codecs whose headers its build found. Only the functions that query
its features import PIL.
"""

from __future__ import annotations

import importlib
import shutil
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from importlib.metadata import Distribution

SIMD = "pillow-simd"
AVIF_PLUGIN = "pillow_avif"
"""A package that adds an AVIF decoder to PIL."""

REBUILD = f"pip uninstall -y pillow {SIMD} && pip install --no-cache-dir --no-binary {SIMD} {SIMD}"
"""Rebuilds pillow-simd, without pip's cache of an earlier build."""

_NAMES = (SIMD, "pillow")


class Codec(NamedTuple):
    """A library that PIL may have been built without.

    Attributes:
        feature: its name in ``PIL.features``.
        library: its usual name.
        formats: what it decodes.
        apt: Debian's and Ubuntu's package of its headers; empty where a Python package has the
            library.
        dnf: Fedora's package.
    """

    feature: str
    library: str
    formats: str
    apt: str = ""
    dnf: str = ""


TIFF = Codec("libtiff", "libtiff", "compressed TIFF", "libtiff-dev", "libtiff-devel")
WEBP = Codec("webp", "libwebp", "WebP", "libwebp-dev", "libwebp-devel")
JPEG2000 = Codec("jpg_2000", "OpenJPEG", "JPEG 2000", "libopenjp2-7-dev", "openjpeg2-devel")
LAB = Codec("littlecms2", "Little CMS", "TIFF in Lab colours", "liblcms2-dev", "lcms2-devel")
AVIF = Codec("avif", "libavif", "AVIF")
CODECS = (TIFF, WEBP, JPEG2000, LAB, AVIF)


class Installed(NamedTuple):
    """The packages that have installed ``PIL``.

    Attributes:
        owner: name and version of the one whose compiled files are installed; empty if unknown.
        others: those whose files were overwritten.
    """

    owner: str
    others: tuple[str, ...] = ()

    @property
    def is_simd(self) -> bool:
        """Whether it resizes with SIMD instructions."""
        return self.owner.startswith(SIMD)

    @property
    def is_overwritten(self) -> bool:
        """Whether stock Pillow has overwritten pillow-simd."""
        return bool(self.owner) and not self.is_simd and bool(self.others)


def installed() -> Installed:
    """The installed packages, from their metadata; does not import PIL."""
    from importlib import metadata  # slow to load, and rarely needed

    found = []
    for name in _NAMES:
        try:
            found.append(metadata.distribution(name))
        except metadata.PackageNotFoundError:
            continue
    owners = found if len(found) < 2 else [one for one in found if _is_there(one)]
    if len(owners) != 1:
        return Installed("", tuple(map(_title, found)))
    return Installed(_title(owners[0]), tuple(_title(one) for one in found if one is not owners[0]))


def remarks(package: Installed) -> list[str]:
    """Advice for the user on the installed packages."""
    if package.is_overwritten:
        simd = next(other for other in package.others if other.startswith(SIMD))
        return [
            f"{package.owner} lies over {simd}, as a package asked for it: images are resized "
            "several times slower",
            f"for pillow-simd here: {REBUILD}",
            "for both: give the daemon an environment of its own (loaderd[daemon]), beside the "
            "trainer's with Pillow",
        ]
    if package.is_simd and package.others:
        return [f"{package.owner} lies over {', '.join(package.others)}, which pip still lists"]
    if package.owner and not package.is_simd:
        return [f"{SIMD} resizes several times faster: {REBUILD}"]
    return []


def _title(package: Distribution) -> str:
    return f"{package.metadata['Name'].lower()} {package.version}"


def _is_there(package: Distribution) -> bool:
    """Whether PIL's compiled module is the file that this package installed."""
    import hashlib
    from base64 import urlsafe_b64encode

    for file in package.files or ():
        if file.match("PIL/_imaging.*") and file.suffix != ".pyi" and file.hash is not None:
            try:
                with open(file.locate(), "rb") as content:
                    digest = hashlib.file_digest(content, file.hash.mode).digest()
            except OSError:
                return False
            return urlsafe_b64encode(digest).rstrip(b"=").decode("ascii") == file.hash.value
    return False


def lacks(codec: Codec) -> bool:
    """Whether this Python cannot decode the codec's formats. Imports PIL."""
    features: Any = importlib.import_module("PIL.features")
    try:
        has = features.check(codec.feature)
    except ValueError:  # this PIL is older than the feature
        has = False
    return not has and not (codec is AVIF and find_spec(AVIF_PLUGIN))


def faults() -> list[str]:
    """What ``scripts/setup`` has to change, as text."""
    lacking = [codec.library for codec in CODECS if lacks(codec)]
    package = installed()
    if package.is_overwritten:
        lacking.append(f"its own files, over which {package.owner} lies")
    return lacking


def lack(codec: Codec) -> str:
    """The error text for a file that needs a missing library."""
    return f"PIL was built without {codec.library}, which decodes {codec.formats}: {advice(codec)}"


@cache
def advice(codec: Codec) -> str:
    """The commands that install a library."""
    if not codec.apt:
        return "pip install pillow-avif-plugin"
    if installed().owner.startswith("pillow "):
        return "pip install --force-reinstall --no-deps pillow"  # its wheels hold all of them
    if shutil.which("dnf") and not shutil.which("apt-get"):
        return f"sudo dnf install -y {codec.dnf} && {REBUILD}"
    return f"sudo apt-get install -y {codec.apt} && {REBUILD}"
