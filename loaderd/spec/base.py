"""The base class of the parts of a spec, and the types of their values."""

from __future__ import annotations

from typing import Literal

import msgspec

ColorMode = Literal["rgb", "rgba", "grayscale"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "hamming", "box", "lanczos"]
FillMode = Literal["nearest", "constant", "reflect", "wrap"]
_Float = Literal["float16", "float32", "float64"]
_Signed = Literal["int8", "int16", "int32", "int64"]
_Unsigned = Literal["uint8", "uint16", "uint32", "uint64"]
ComputeDType = Literal[_Float, _Signed, _Unsigned]
DType = Literal["bfloat16", ComputeDType]
DataFormat = Literal["channels_last", "channels_first"]
Preprocessing = Literal["caffe", "tf", "torch"]
Statistic = Literal["mean", "std", "zca"]
Draws = Literal["sample", "batch"]
Cache = Literal["none", "memory", "disk"]
Decode = Literal["exact", "scaled"]
Compat = Literal["keras", "fixed"]
Precision = Literal["exact", "fast"]
OnError = Literal["raise", "substitute", "skip"]
Aspect = Literal["stretch", "crop", "pad", "keep"]
LabelMode = Literal["categorical", "sparse", "int", "binary", "input", "given", "none"]

CHANNELS: dict[ColorMode, int] = {"grayscale": 1, "rgb": 3, "rgba": 4}


def compute_dtype(dtype: DType) -> ComputeDType:
    """The dtype to compute in for a dtype: float32 for bfloat16, which NumPy lacks."""
    return "float32" if dtype == "bfloat16" else dtype


class Frozen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of the parts of a spec."""
