"""A trainer in a container with 64 MiB of shared memory; run by ``test_room``.

Prints what became of a ring that does not fit, of one that does, and of a second one.
"""

from __future__ import annotations

import sys

from loaderd.errors import NoRoom
from loaderd_client import ImageDataGenerator


def main(directory: str) -> None:
    """Opens rings of several sizes."""
    generator = ImageDataGenerator(rescale=1 / 255)

    def flow(size: int, batch_size: int) -> int:
        sequence = generator.flow_from_directory(
            directory, target_size=(size, size), batch_size=batch_size, seed=1
        )
        return sum(len(sequence[i][0]) for i in range(len(sequence)))

    try:
        flow(600, 32)
    except NoRoom as error:
        print("refused:", error)
    print("fits:", flow(100, 32))
    print("fits too:", flow(50, 16))


if __name__ == "__main__":
    main(sys.argv[1])
