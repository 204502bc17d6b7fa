"""Serves the pages on this machine until it is stopped."""

from __future__ import annotations

import socket
from contextlib import closing
from typing import TYPE_CHECKING

import uvicorn

from recsys.catalog.explore.newest import NewestCatalog
from recsys.catalog.explore.pages import make_app
from recsys.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from recsys.lake.tables import Lake

_HOST = "127.0.0.1"
_STOP_SECONDS = 3


def serve_pages(lake: Lake, port: int, ready: Callable[[str], None]) -> None:
    """Serve the pages until a signal asks to stop.

    Args:
        lake: whose catalog they show.
        port: where to listen; 0: a free one.
        ready: told the address, once pages can be asked for.

    Raises:
        MissingError: there is no catalog yet.
        LakeError: it can't be read.
        ConfigurationError: the port is taken.
    """
    with closing(NewestCatalog(lake)) as newest, _listen(port) as listening:
        with newest.read():
            pass  # what `recsys sql` would refuse is refused here, too
        config = uvicorn.Config(
            make_app(newest),
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
        ready(f"http://{_HOST}:{listening.getsockname()[1]}/")
        uvicorn.Server(config).run(sockets=[listening])


def _listen(port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((_HOST, port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise ConfigurationError(
            f"port {port} can't be used: {error.strerror}. Give another --port; 0 takes a free one"
        ) from None
    return listening
