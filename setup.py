"""Builds the extensions in C; all else about the package is in ``setup.cfg``."""

import hashlib
from pathlib import Path

from setuptools import Extension, setup

NATIVE = Path("loaderd/render/native")
SOURCES = sorted(NATIVE.glob("*.[ch]"))
DIGEST = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES)).hexdigest()

JPEG = NATIVE / "jpeg.c"
COMMON = {
    # All sources, as either extension holds the digest of all.
    "depends": [*(str(path) for path in SOURCES), "setup.py"],
    "define_macros": [("Py_LIMITED_API", "0x030B0000"), ("LOADERD_SOURCES", f'"{DIGEST}"')],
    "py_limited_api": True,
    # Without a compiler the client is installed all the same; the daemon says what it lacks.
    "optional": True,
}

kernels = Extension(
    "loaderd.render.native._kernels",
    sources=[str(path) for path in SOURCES if path.suffix == ".c" and path != JPEG],
    extra_compile_args=[
        "-std=c11",
        "-O3",
        "-fvisibility=hidden",
        # A fused product and sum, and other liberties, have other last bits than scipy's.
        "-ffp-contract=off",
        "-fno-fast-math",
        # Nobody catches exceptions of floats: compilers may compute both sides of a choice.
        "-fno-trapping-math",
    ],
    extra_link_args=["-lm"],
    **COMMON,
)

jpeg = Extension(
    "loaderd.render.native._jpeg",
    sources=[str(JPEG)],
    extra_compile_args=["-std=c11", "-O3", "-fvisibility=hidden"],
    libraries=["jpeg"],
    **COMMON,
)


setup(ext_modules=[kernels, jpeg], options={"bdist_wheel": {"py_limited_api": "cp311"}})
