from typing import Any

from numpy.typing import NDArray

SOURCES: str
VERSION: str

def pick(
    data: memoryview | NDArray[Any],
    rows: NDArray[Any],
    columns: NDArray[Any],
    out: NDArray[Any],
) -> bool: ...
