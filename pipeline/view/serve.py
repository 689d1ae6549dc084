"""Server of the viewer on this machine's loopback address."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

import uvicorn

from pipeline.errors import InputError, one_line
from pipeline.view.app import create_app
from pipeline.view.run_view import RunView
from pipeline.view.security import HOST, make_token


def serve(view: RunView, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve a run until Ctrl-C.

    Args:
        port: 0 for a free one.
        on_ready: called with the address, whose token opens the viewer, as soon as it accepts connections.

    Raises:
        InputError: if the port cannot be had.
    """
    with _listen(port) as listening:
        number = int(listening.getsockname()[1])
        token = make_token()
        config = uvicorn.Config(create_app(view, token, number), log_level="warning", access_log=False, lifespan="off", server_header=False)
        view.refresh(0.0)
        on_ready(f"http://{HOST}:{number}/?token={token}")
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises the signal again once it has ended
            uvicorn.Server(config).run(sockets=[listening])


def _listen(port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise InputError(
            f"port {port} cannot be had ({one_line(error)}); choose another with --port, or leave it out for a free one"
        ) from None
    return listening
