from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

ALL_KERNELS: list[str]
KERNELS: str
MAX_CHANNELS: int
MAX_SIDE: int
MAX_STEPS: int
MAX_VALUES: int
SOURCES: str

def to_bfloat16(values: NDArray[np.float32], out: NDArray[np.uint16]) -> None: ...
def look_up(
    image: NDArray[np.uint8], table: NDArray[np.uint8], out: NDArray[np.uint8], kernels: str = "", /
) -> None: ...
def change_colors(
    image: NDArray[np.uint8],
    out: NDArray[np.uint8],
    changes: tuple[float, float, float, float],
    kernels: str = "",
    /,
) -> None: ...

class Finish:
    def __new__(
        cls,
        shape: tuple[int, int, int],
        *,
        fill_mode: Literal["nearest", "constant", "reflect", "wrap"] = "nearest",
        cval: float = 0.0,
        order: int = 1,
        fast: bool = False,
        steps: Iterable[tuple[str, NDArray[Any] | None]] = (),
        dtype: str = "float32",
        planar: bool = False,
        kernels: str = "",
    ) -> Finish: ...
    def one(
        self,
        image: NDArray[Any],
        matrices: NDArray[Any] | None,
        flips: NDArray[Any] | None,
        at: int,
        row: NDArray[Any],
        table: NDArray[np.uint8] | None = None,
        /,
    ) -> None: ...
    def many(
        self,
        images: NDArray[Any],
        index: NDArray[Any] | None,
        matrices: NDArray[Any] | None,
        flips: NDArray[Any] | None,
        rows: NDArray[Any],
    ) -> None: ...
