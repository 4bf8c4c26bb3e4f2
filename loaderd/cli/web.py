"""``loaderd web``: a page that shows what the daemon does."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os

from loaderd import setting_types as types
from loaderd.child import init
from loaderd.cli import console, decoders, options, serve, target
from loaderd.cli.exit_codes import DONE
from loaderd.ipc import dial
from loaderd.launch import page_token
from loaderd.setting_types import LOOPBACK, Said

PORT = 8484

DOES = "show the daemon on a page in the browser"
EXAMPLES = """\
  loaderd web                          prints the page's address, with its token; Ctrl-C ends it
  loaderd web --http 9000              at another port than 8484
  loaderd web --http 0.0.0.0:8484      for other hosts too; the token is needed all the same
  ssh -L 8484:localhost:8484 HOST      on your machine: the page of a daemon on HOST

`loaderd serve --http PORT` serves the page as long as the daemon runs. Prometheus scrapes /metrics,
with the token as `Authorization: Bearer TOKEN`; LOADERD_WEB_TOKEN sets the token.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    options.add_address(parser)
    parser.add_argument(
        "--http",
        metavar="[HOST:]PORT",
        default=str(PORT),
        help=f"where to listen (default: {LOOPBACK}:{PORT}); 0 takes a free port",
    )
    parser.add_argument("--metrics-open", action="store_true", help="/metrics needs no token")
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)  # the daemon


def run(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    host, port = types.listen_address(Said(args.http, "--http"))
    decoders.require_page((host, port))
    from loaderd.web import server  # late, as the other verbs do without

    where = options.address(args)
    if args.parent is not None:
        init.die_with_parent(args.parent)
    else:
        where = target.find(where)
        dial.observe(where.socket, dial.SOON)  # fails at once where no daemon answers
    logging.basicConfig(level=logging.INFO, handlers=[serve.log_handler()])
    os.chdir("/")
    chosen = server.Options(host, port, page_token.new_token(), args.metrics_open)

    def show(url: str) -> None:
        if args.parent is not None:
            logging.getLogger("loaderd").info("the page is at %s", url)
        else:
            console.out(f'loaderd "{where.name}": {url}')

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(server.serve(where.socket, chosen, show))
    return DONE
