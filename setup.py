"""Builds the kernels in C; all else about the package is in ``setup.cfg``."""

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError, PlatformError

NATIVE = "loaderd/render/native"
SOURCES = ("module", "finish", "warp", "kernels_plain", "kernels_avx2")
HEADERS = ("finish", "warp", "kernels", "kernels.inc", "avx2.inc")

kernels = Extension(
    "loaderd.render.native._kernels",
    sources=[f"{NATIVE}/{name}.c" for name in SOURCES],
    depends=[f"{NATIVE}/{name}.h" for name in HEADERS],
    # A fused product and sum has other last bits than scipy's.
    extra_compile_args=["-std=c11", "-O3", "-ffp-contract=off", "-fvisibility=hidden"],
    extra_link_args=["-lm"],
    define_macros=[("Py_LIMITED_API", "0x030B0000")],
    py_limited_api=True,
)


class BuildKernels(build_ext):
    """Says in one line what is missing."""

    def build_extension(self, ext: Extension) -> None:
        """Compiles."""
        try:
            super().build_extension(ext)
        except (CompileError, LinkError, PlatformError) as error:
            raise SystemExit(
                "loaderd's kernels need a C compiler and the headers of Python "
                f"(Debian, Ubuntu: apt install gcc libc6-dev python3-dev): {error}"
            ) from error


setup(
    ext_modules=[kernels],
    cmdclass={"build_ext": BuildKernels},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
