"""The C extension of the package; all else about it is in ``setup.cfg``."""

from setuptools import Extension, setup

NATIVE = "loaderd/render/native"

setup(
    ext_modules=[
        Extension(
            "loaderd.render.native._kernels",
            sources=[
                f"{NATIVE}/{name}.c"
                for name in ("module", "finish", "warp", "kernels_plain", "kernels_avx2")
            ],
            depends=[
                f"{NATIVE}/{name}.h"
                for name in ("finish", "warp", "kernels", "kernels.inc", "avx2.inc")
            ],
            # Contracted products and sums would have other last bits than scipy's.
            extra_compile_args=["-std=c11", "-O3", "-ffp-contract=off", "-fvisibility=hidden"],
            extra_link_args=["-lm"],
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
            py_limited_api=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
