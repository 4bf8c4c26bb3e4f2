"""Whether what the daemon needs is installed: decoders, the kernels in C, and Ray if asked for."""

from __future__ import annotations

import errno
import socket
from importlib import import_module
from importlib.util import find_spec

from loaderd.errors import DaemonError, MissingDependency
from loaderd.launch import page_token

DECODERS = {"PIL": "pillow-simd", "simplejpeg": "simplejpeg", "cv2": "opencv-python-headless"}
"""Modules and the packages that ``loaderd[daemon]`` takes them from."""

KERNELS = "loaderd.render.native.kernels"
"""The module of the kernels, whose import fails where they are not built."""

JPEG = "loaderd.render.native.jpeg"
"""The module of the kernel for JPEGs, which may lack libjpeg-turbo."""

OPTIONAL = {"scipy": "warps with interpolation_order above 1", "cloudpickle": "lambdas"}
"""Modules that workers load on first use, and what for."""

EXTRAS = {
    "pyarrow": ("parquet", "labels in Parquet files"),
    "cramjam": ("parquet", "compressed pages of Parquet files"),
    "obstore": ("cloud", "object stores"),
    "ray": ("ray", "workers on other machines"),
    "tornado": ("web", "the live page"),
}
"""Modules of extras, with the extra and its use."""

TRAINERS = ("keras", "tf-keras", "tensorflow", "tensorflow-cpu", "jax", "torch", "pandas")
"""Packages of trainers, which the daemon does not need."""


def require() -> None:
    """Check that the decoders are installed, without importing them, and the kernels built.

    Raises:
        MissingDependency: one is missing; the text says how to install it.
    """
    missing = [package for module, package in DECODERS.items() if find_spec(module) is None]
    if missing:
        raise MissingDependency(
            f"the daemon needs {', '.join(missing)}, which this Python lacks: "
            'pip install "loaderd[daemon]"'
        )
    import_module(KERNELS)


def require_ray(address: str | None) -> None:
    """Check that Ray is installed, without importing it, if there is an address of a cluster.

    Raises:
        MissingDependency: it is not; the text says how to install it.
    """
    if address is not None and find_spec("ray") is None:
        raise MissingDependency(
            '--ray needs Ray, which this Python lacks: pip install "loaderd[ray]"'
        )


def require_page(http: tuple[str, int] | None) -> None:
    """Check that the live page can be served, if it is to be; imports nothing of it.

    Raises:
        MissingDependency: it cannot; the text says what to install.
        DaemonError: its address cannot be used.
        InvalidArgument: the token of the environment is too short.
    """
    if http is None:
        return
    if find_spec("tornado") is None:
        raise MissingDependency(
            "the live page (--http) needs tornado, which this Python lacks: "
            'pip install "loaderd[web]"'
        )
    page_token.new_token()  # refuses one of the environment that is too short
    host, port = http
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        reason = "it is taken" if error.errno == errno.EADDRINUSE else error.strerror or error
        raise DaemonError(
            f"--http: cannot listen at {host}:{port}: {reason}; choose another port, or 0 for any"
        ) from error
