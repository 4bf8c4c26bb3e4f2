"""The secret in the page's address."""

from __future__ import annotations

import os
import secrets

from loaderd.errors import InvalidArgument

TOKEN_VARIABLE = "LOADERD_WEB_TOKEN"  # its name
MIN_TOKEN = 16


def new_token() -> str:
    """The token of the environment, or a random one.

    Raises:
        InvalidArgument: that of the environment is too short.
    """
    given = os.environ.get(TOKEN_VARIABLE)
    if given is None:
        return secrets.token_urlsafe(32)
    if len(given) < MIN_TOKEN or not given.isascii() or not given.isprintable() or " " in given:
        raise InvalidArgument(
            f"{TOKEN_VARIABLE} should have {MIN_TOKEN} or more ASCII characters without spaces"
        )
    return given
