"""``loaderd index``: the samples of archives, on disk or in object stores."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import get_args

from loaderd import config, formatting
from loaderd.cli import console, options
from loaderd.cli.exit_codes import DONE
from loaderd.sources.archives import FIRST_ANSWER_SECONDS, Indexer, list_members
from loaderd.sources.directory import Listing
from loaderd.sources.groups import Recipe
from loaderd.sources.index_file import ArchiveIndex
from loaderd.sources.mds_folder import with_shards
from loaderd.sources.retries import Retries
from loaderd.spec import url as urls
from loaderd.spec.source import Archives, Layout

DOES = "find the samples of archives, once until they change"
EXAMPLES = """\
  loaderd index train.tar val.zip              class folders, or members such as 1.jpg and 1.cls
  loaderd index 'data/train-{000..031}.tar'    several, in parallel
  loaderd index train.tar --label json:kind    labels from a field of the members .json
  loaderd index train.tar --mask mask.png      masks, as 1.mask.png of 1.jpg
  loaderd index train.parquet --label kind     columns of Parquet files
  loaderd index 's3://bucket/train-{000..031}.tar'   with the credentials of the environment
  loaderd index train.tar --json

The indexes are those that image_dataset_from_archive makes with the same arguments, and with --mask
segmentation_dataset_from_archive. They are kept in the cache folder. Archives that make no dataset,
such as truncated ones, are named; exit code 1.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument(
        "archives",
        nargs="+",
        metavar="FILE",
        help="archives, or files of rows, or their URLs; {000..031} is a range",
    )
    parser.add_argument(
        "--format", choices=get_args(Layout), default="auto", help="what they hold (default: auto)"
    )
    parser.add_argument(
        "--image",
        action="append",
        metavar="EXTENSION",
        help="of the members that are images, or their column; may be given several times "
        "(default: bmp, gif, jpeg, jpg, png; the column image)",
    )
    parser.add_argument(
        "--label",
        default="auto",
        metavar="EXTENSION",
        help="of the members with the labels: cls, txt, json, json:FIELD, auto or none; or their "
        "column (default: auto)",
    )
    parser.add_argument(
        "--mask",
        action="append",
        metavar="EXTENSION",
        help="of the members that are masks, one for each image; may be given several times "
        "(default: no masks)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object for each")
    options.add(parser, "cache_dir", "config")


def run(args: argparse.Namespace) -> int:
    """Make the indexes that are not kept, and print what is in them."""
    from loaderd_client.keras.archive import source_of

    label, layout = None if args.label == "none" else args.label, args.format
    if args.mask:
        label, layout = None, "webdataset"
    retries = Retries(FIRST_ANSWER_SECONDS)
    source = source_of(args.archives, layout, args.image, label, args.mask)
    source = with_shards(source, retries)
    where = config.locate_cache(options.flags(args), os.environ)
    indexer = Indexer(source.paths, Recipe.of(source), where, retries)
    with console.bar("indexing") as show:
        indexes = indexer.run(lambda share, _, __: show(share))
    listing = list_members(source, indexes)
    if args.json:
        for path, index in zip(source.paths, indexes, strict=True):
            console.out(formatting.as_json(_row(path, index)))
    else:
        _print(source, indexes, listing, where)
    return DONE


def _row(path: str, index: ArchiveIndex) -> dict[str, object]:
    return {
        "path": urls.shown(path),
        "bytes": index.size,
        "format": index.layout,
        "label": index.label,
        "images": len(index.locations),
    }


def _print(source: Archives, indexes: Sequence[ArchiveIndex], listing: Listing, where: str) -> None:
    for path, index in zip(source.paths, indexes, strict=True):
        kind = f"{index.layout or 'nothing'}{f' ({index.label})' if index.label else ''}"
        images, size = formatting.count(len(index.locations), "image"), formatting.size(index.size)
        console.out(f"{urls.shown(path)}  {size}  {kind}  {images}")
    samples = formatting.count(len(listing.filenames), "sample")
    archives = formatting.count(len(indexes), "archive")
    classes = len(listing.class_names)
    of_classes = f" of {classes} class{'es' if classes > 1 else ''}" if classes else ""
    console.out(f"{samples}{of_classes} in {archives}; the indexes are in {where}")
