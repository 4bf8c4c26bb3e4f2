"""Selects from the rows that a client has listed."""

from __future__ import annotations

from loaderd.ipc.manifest import Manifest, Members
from loaderd.sources.directory import Listing, kept_samples
from loaderd.spec.source import Rows


def list_rows(source: Rows, rows: Manifest) -> Listing:
    """The rows that are left after shuffling and splitting; an empty listing is no error here.

    Args:
        source: what to select.
        rows: all that there are.
    """
    names, labels, members = bytes(rows.names).split(b"\0")[:-1], rows.labels, rows.members
    kept = kept_samples(source, len(rows))
    if kept is not None:
        names, labels = [names[i] for i in kept.tolist()], labels[kept]
        if members is not None:
            members = Members(members.archives, members.locations[kept])
    return Listing(rows.root, rows.class_names, names, labels, members)
