"""Archives of the photos of a folder of classes."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

Content = Mapping[str, bytes]


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder by their paths, in no order that a listing would give."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files[::-1]}


def samples(folder: Path, label: str = "cls") -> dict[str, bytes]:
    """The same in the form of WebDataset, in the order of a directory's listing."""
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    found = {}
    files = [path for name in classes for path in sorted((folder / name).iterdir())]
    for number, path in enumerate(files):
        name = path.parent.name
        written = {
            "cls": str(classes.index(name)),
            "txt": name + "\n",
            "json": f'{{"label": "{name}", "kind": {classes.index(name)}}}',
        }
        found[f"{number:06}{path.suffix}"] = path.read_bytes()
        found[f"{number:06}.{label}"] = written[label].encode()
    return found


def tar_of(path: Path, content: Content, form: int = tarfile.GNU_FORMAT) -> Path:
    """Writes a tar archive of these members."""
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def zip_of(path: Path, content: Content, method: int = zipfile.ZIP_DEFLATED) -> Path:
    """Writes a zip archive of these members."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def shards_of(folder: Path, content: Content, count: int) -> str:
    """Writes samples of two members each to some tars, and gives the pattern of their names."""
    members = list(content.items())
    size = 2 * -(-len(members) // 2 // count)
    for number in range(count):
        part = dict(members[number * size : (number + 1) * size])
        tar_of(folder / f"train-{number:03}.tar", part)
    return str(folder / f"train-{{000..{count - 1:03}}}.tar")
