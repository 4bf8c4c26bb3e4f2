"""The images: made when they are first needed, and linked into folders as a workload needs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SMALL = Path(".bench/photos")
LARGE = Path(".bench/photos-12mp")
_MADE = {
    SMALL: ["--classes", "4", "--images", "1000"],
    LARGE: ["--classes", "4", "--images", "15", "--size", "4000x3000"],
}
LARGE_FILES = 1200
MANY_FILES = 12_000
"""Names for the images, several for each: short epochs would make what a peer does between
epochs weigh more than in any training."""


def made(folder: Path) -> Path:
    """The folder, with what belongs there; only missing images are made."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["scripts/make-photos", str(folder), *_MADE[folder]], check=True)
    return folder


def of_user(folder: str) -> Path:
    """A folder that the user names on the command line."""
    if not any(files_of(Path(folder))):
        raise SystemExit(f"bench: {folder} holds no folders with .jpg files")
    return Path(folder).absolute()


def files_of(folder: Path) -> list[Path]:
    """All images in the class folders."""
    return sorted(folder.glob("*/*.jpg"))


def linked(folder: Path, into: Path, count: int) -> Path:
    """A folder of ``count`` names for the images of another, which cost no room.

    The images come in turn from all classes, as often as it takes.
    """
    by_class: dict[str, list[Path]] = {}
    for path in files_of(folder):
        by_class.setdefault(path.parent.name, []).append(path)
    classes = sorted(by_class)
    for name in classes:
        (into / name).mkdir(parents=True)
    for number in range(count):
        round_, place = divmod(number, len(classes))
        images = by_class[classes[place]]
        _link(images[round_ % len(images)], into / classes[place] / f"{round_:05}.jpg")
    return into


def described(folder: Path) -> dict[str, int | str]:
    """What is in a folder, for the report."""
    files = files_of(folder)
    distinct = {(stat.st_dev, stat.st_ino): stat.st_size for stat in map(os.stat, files)}
    return {
        "files": len(files),
        "distinct": len(distinct),
        "classes": len({path.parent for path in files}),
        "average_kb": round(sum(distinct.values()) / len(distinct) / 1000),
    }


def _link(target: Path, name: Path) -> None:
    try:
        os.link(target, name)
    except OSError:  # another file system
        name.symlink_to(target.absolute())
