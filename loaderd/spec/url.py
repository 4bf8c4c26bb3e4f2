"""URLs of object stores: which are read, how they are divided, and how they are shown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from loaderd.errors import InvalidArgument

SCHEMES = ("s3", "gs", "az", "abfs", "abfss", "http", "https")
"""Those that are read; the first five have buckets or containers, which can be listed."""

_WEB = ("http", "https")
_SIGNED = re.compile(r"[?&](sig|signature|x-\w+-signature)=", re.IGNORECASE)
"""What the URL of an object that another one has signed contains; keys may hold a ``?``."""


class Parts(NamedTuple):
    """An object, or a folder of objects, in a store.

    Attributes:
        store: the URL of its bucket, or of its host; of one with a query, of itself.
        key: its path in the store; empty if the store is the object.
    """

    store: str
    key: str


def is_url(path: str) -> bool:
    """Whether a text is a URL, not a path."""
    scheme, colon, _ = path.partition("://")
    return bool(colon) and scheme.replace("+", "").replace("-", "").isalnum()


def is_listable(url: str) -> bool:
    """Whether the objects below a URL can be listed."""
    return not url.startswith(tuple(f"{one}://" for one in _WEB))


def shown(path: str) -> str:
    """A URL without its query if that may hold a signature, as on the web; all else as it is.

    Texts, logs and names of files have it in this form. Keys of buckets may hold any character.
    """
    place, mark, _ = path.partition("?")
    is_secret = mark and is_url(path) and (not is_listable(path) or _SIGNED.search(path))
    return place if is_secret else path


def checked(name: str, url: str) -> str:
    """A URL that can be read.

    Args:
        name: of the argument that holds it.
        url: what it holds.

    Raises:
        InvalidArgument: it cannot; the text says why.
    """
    parts, text = urlsplit(url), shown(url)
    if parts.scheme not in SCHEMES:
        known = ", ".join(f"{one}://" for one in SCHEMES)
        raise InvalidArgument(f"`{name}`: {parts.scheme}:// is none of {known}")
    if _has_password(parts):
        host = parts.netloc.rpartition("@")[2]
        raise InvalidArgument(
            f"`{name}`: a URL holds no user and no password: give them by the variables of the "
            f"daemon's environment. Received: {parts.scheme}://...@{host}{parts.path}"
        )
    if is_listable(url) and _SIGNED.search(url):
        raise InvalidArgument(
            f"`{name}`: signed URLs are read as https://, and those of {parts.scheme}:// hold no "
            "signature: give it by the variables of the daemon's environment, such as "
            "AZURE_STORAGE_SAS_TOKEN, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. "
            f"Received: {text}?..."
        )
    if not parts.netloc:
        raise InvalidArgument(f"`{name}`: the URL names no bucket and no host. Received: {text}")
    return url


def _has_password(parts: SplitResult) -> bool:
    """Whether there is a user in it; what abfs has at that place is the container."""
    of_user, at, _ = parts.netloc.rpartition("@")
    return bool(at) and (not parts.scheme.startswith("abfs") or ":" in of_user)


def divided(url: str) -> Parts:
    """The store and the key of a URL."""
    if not is_listable(url):
        parts = urlsplit(url)
        if parts.query or "%2f" in parts.path.lower():
            return Parts(url, "")
        return Parts(f"{parts.scheme}://{parts.netloc}", unquote(parts.path).strip("/"))
    scheme, _, rest = url.partition("://")
    place, _, key = rest.partition("/")
    return Parts(f"{scheme}://{place}", key.strip("/"))


def common_folder(paths: Sequence[str]) -> str:
    """The longest URL of a folder that all URLs lie below, as shown; empty if there is none."""
    folders = [shown(path).rpartition("/")[0].split("/") for path in paths]
    common = []
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    # s3: and an empty part are no folder.
    return "/".join(common) if len(common) > 2 else ""


def below(path: str, folder: str) -> str:
    """A URL as shown, relative to a folder above it, if there is one."""
    text = shown(path)
    return text[len(folder) + 1 :] if folder else text
