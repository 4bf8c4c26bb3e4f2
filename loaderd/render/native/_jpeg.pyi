from typing import Any

from numpy.typing import NDArray

SOURCES: str
VERSION: str

def crop(
    data: memoryview | NDArray[Any],
    reduction: int,
    left: int,
    top: int,
    out: NDArray[Any],
    /,
) -> bool: ...
def pick(
    data: memoryview | NDArray[Any],
    rows: NDArray[Any],
    columns: NDArray[Any],
    out: NDArray[Any],
) -> bool: ...
