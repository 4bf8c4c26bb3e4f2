"""The dtypes of batches as NumPy has them, and bfloat16, which it lacks.

``ml_dtypes`` adds it, which Keras and its backends bring. It is imported when it is asked for.
"""

from __future__ import annotations

from typing import Any, get_args

import numpy as np

from loaderd.errors import InvalidType, MissingDependency
from loaderd.spec.base import DType


def numpy_dtype(dtype: Any) -> np.dtype[Any]:
    """The dtype of an array.

    Args:
        dtype: a name, or whatever NumPy takes for one.

    Raises:
        MissingDependency: it is bfloat16, and this Python lacks ``ml_dtypes``.
        TypeError: NumPy knows no such dtype.
    """
    if isinstance(dtype, str) and dtype == "bfloat16":
        try:
            from ml_dtypes import bfloat16
        except ImportError as error:
            raise MissingDependency(
                'dtype="bfloat16" needs ml_dtypes, which this Python lacks: pip install ml_dtypes '
                "(Keras 3 installs it)"
            ) from error
        dtype = bfloat16
    found: np.dtype[Any] = np.dtype(dtype)
    return found


def checked(dtype: Any) -> DType:
    """The name of a dtype of batches.

    Raises:
        InvalidType: batches cannot have this dtype.
        MissingDependency: see ``numpy_dtype``.
    """
    try:
        name: Any = numpy_dtype(dtype).name
    except TypeError:
        name = str(dtype)
    if name not in get_args(DType):
        raise InvalidType(f"Invalid dtype: {dtype}; expected one of {', '.join(get_args(DType))}.")
    return name  # type: ignore[no-any-return]  # it is one of them
