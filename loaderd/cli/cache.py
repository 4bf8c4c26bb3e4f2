"""``loaderd cache``: list, remove and verify the caches of decoded images on disk."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shlex
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from loaderd import config, formatting
from loaderd.cache import folder, layout, store
from loaderd.cache.folder import Found
from loaderd.cache.layout import Head
from loaderd.cli import console, options
from loaderd.cli.exit_codes import DONE, FAILED
from loaderd.errors import CacheError, InvalidArgument, LoaderdError
from loaderd.ipc import dial
from loaderd.ipc.text import encodable

_KEY = 12
"""Characters of a key that are shown. Fewer name a cache if they are unique."""

_DEFAULTS = ("stretch", "exact")
"""Values of ``aspect`` and ``decode`` that are not shown."""

DOES = "list, remove and verify caches on disk"
EXAMPLES = """\
  loaderd cache ls                 all caches on disk, the least recently used first
  loaderd cache ls --json
  loaderd cache rm 3f0c9a          one of them, by the beginning of its key
  loaderd cache rm --all
  loaderd cache verify             reads all rows; 1 if anything was damaged
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    ls = actions.add_parser("ls", help="list the caches", description="List the caches.")
    ls.add_argument("--json", action="store_true", help="one JSON object for each")
    rm = actions.add_parser("rm", help="remove caches", description="Remove caches. Trainers "
                            "that use one keep it until they end.")  # fmt: skip
    rm.add_argument("keys", nargs="*", metavar="KEY", help="the beginning of a key")
    rm.add_argument("--all", action="store_true", help="all caches")
    verify = actions.add_parser(
        "verify",
        help="compare all rows with their checksums",
        description="Compare all rows with their checksums. Damaged ones are removed, and "
        "decoded again when they are needed.",
    )
    verify.add_argument("keys", nargs="*", metavar="KEY", help="the beginning of a key; all")
    for action, act in ((ls, _ls), (rm, _rm), (verify, _verify)):
        options.add(action, "cache_dir", "config")
        action.set_defaults(act=act)


def run(args: argparse.Namespace) -> int:
    """Run the action; return 1 if it has found damage."""
    return int(args.act(args))


def _found(args: argparse.Namespace) -> tuple[str, list[Found]]:
    """The folder, and the caches in it."""
    where = config.locate_cache(options.flags(args), os.environ)
    warn_of_other_folder(args, where)
    return where, folder.caches(where)


def warn_of_other_folder(args: argparse.Namespace, where: str) -> None:
    """Warn if ``where`` is the default folder, and the running daemon uses another."""
    if args.cache_dir is not None:
        return
    with contextlib.suppress(LoaderdError, OSError):
        daemon = dial.observe(options.address(args).socket, dial.SOON).daemon
        if not encodable(where).endswith(daemon.cache_dir):  # the end of a long path
            console.err(
                f'loaderd: the daemon "{daemon.name}" has its caches in another folder than '
                f"{where}: add --cache-dir {shlex.quote(daemon.cache_dir)}"
            )


def _ls(args: argparse.Namespace) -> int:
    where, found = _found(args)
    if args.json:
        for one in found:
            console.out(formatting.as_json(_row(one)))
        return DONE
    for line in _lines(found):
        console.out(line)
    total = sum(one.nbytes for one in found)
    console.out(f"{formatting.count(len(found), 'cache')}, {formatting.size(total)}, in {where}")
    return DONE


def _row(found: Found) -> dict[str, object]:
    row: dict[str, object] = {
        "key": found.key,
        "path": found.path,
        "bytes": found.nbytes,
        "used": found.used_at,
    }
    if found.head is None:
        return row | {"damaged": True}
    counts = {"samples": found.head.assigned, "cached": _cached(found)}
    return row | {"damaged": False, **counts, **found.head.about}


def _lines(found: Sequence[Found]) -> Iterator[str]:
    """A line for each cache; caches of the same images also say in what they differ."""
    alike = defaultdict(list)
    for one in found:
        if one.head is not None:
            alike[_images(one.head)].append(one.head.about)
    for one in found:
        ago = formatting.duration(max(0.0, time.time() - one.used_at))
        start = f"{one.key[:_KEY]}  {formatting.size(one.nbytes):>10}  {ago:>11} ago"
        if one.head is None:
            yield f"{start}  damaged, or of another version"
        else:
            images = _images(one.head)
            differing = _differing(one.head.about, alike[images])
            yield f"{start}  {_cached(one):,} of {one.head.assigned:,} images  {images}{differing}"


def _differing(about: Mapping[str, object], alike: Sequence[Mapping[str, object]]) -> str:
    names = [name for name in about if any(other.get(name) != about[name] for other in alike)]
    return "".join(f"  {name}={about[name]}" for name in names)


def _images(head: Head) -> str:
    """Size, colours, filter and folder of the images in a cache."""
    about = head.about
    height, width = about["target_size"]
    kind = [f"{height}x{width}", about["color_mode"], about["interpolation"]]
    kind += [word for word in (about["aspect"], about["decode"]) if word not in _DEFAULTS]
    return f"{' '.join(kind)}  {about['directory']}"


def _cached(found: Found) -> int:
    assert found.head is not None
    with contextlib.suppress(FileNotFoundError), _opened(found, os.O_RDONLY) as fd:
        return int(np.count_nonzero(layout.read_column(fd, found.head, layout.MARKS)))
    return 0  # it was removed meanwhile


@contextlib.contextmanager
def _opened(found: Found, how: int) -> Iterator[int]:
    """A cache's open file.

    Raises:
        FileNotFoundError: it was removed meanwhile.
        CacheError: it cannot be opened.
    """
    try:
        fd = os.open(found.path, how | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CacheError(f"cannot open {found.path}: {error.strerror}") from error
    try:
        yield fd
    finally:
        os.close(fd)


def _chosen(found: Sequence[Found], keys: Sequence[str]) -> list[Found]:
    """The caches whose keys begin with ``keys``, each once.

    Raises:
        InvalidArgument: no cache's key begins so, or several do.
    """
    chosen = {}
    for key in keys:
        named = [one for one in found if key and one.key.startswith(key)]
        if len(named) != 1:
            there = "no cache's key begins" if not named else f"{len(named)} caches' keys begin"
            raise InvalidArgument(f"{there} with {key!r}: `loaderd cache ls` lists them")
        chosen[named[0].key] = named[0]
    return list(chosen.values())


def _rm(args: argparse.Namespace) -> int:
    if bool(args.keys) == args.all:
        raise InvalidArgument("name the caches to remove, or --all: `loaderd cache ls` lists them")
    where, found = _found(args)
    chosen = found if args.all else _chosen(found, args.keys)
    for one in chosen:
        folder.remove(one)
    size = formatting.size(sum(one.nbytes for one in chosen))
    console.out(f"removed {formatting.count(len(chosen), 'cache')}, {size}, in {where}")
    return DONE


def _verify(args: argparse.Namespace) -> int:
    where, found = _found(args)
    chosen = _chosen(found, args.keys) if args.keys else found
    damaged = 0
    for one in chosen:
        if one.head is not None:
            with contextlib.suppress(FileNotFoundError):  # it was removed meanwhile
                damaged += _verify_one(one, one.head)
    removed = [one for one in chosen if one.head is None]
    for one in removed:
        folder.remove(one)
        console.out(f"{one.key[:_KEY]}  removed: damaged, or of another version")
    verified = formatting.count(len(chosen) - len(removed), "cache")
    console.out(f"{verified} verified, {formatting.count(damaged, 'row')} damaged, in {where}")
    return FAILED if damaged or removed else DONE


def _verify_one(found: Found, head: Head) -> int:
    """Compare the rows of a cache with their checksums; return how many are damaged."""
    with _opened(found, os.O_RDWR) as fd:
        fcntl.flock(fd, fcntl.LOCK_SH)  # in use: no opener gives its rows to other images
        columns = [layout.read_column(fd, head, column) for column in layout.COLUMNS]
        rows = layout.row_numbers(head)
        marked = columns[layout.MARKS].nonzero()[0].tolist()
        bad = 0
        for place in console.tracked(marked, found.key[:_KEY]):
            row = int(rows[place])
            key, state, mark, _ = (int(column[place]) for column in columns)
            if store.mark_of(store.read_row(fd, head, row), key, state) != mark:
                store.forget(fd, head, row)
                bad += 1
    console.out(f"{found.key[:_KEY]}  {len(marked):,} rows, {bad:,} damaged")
    return bad
