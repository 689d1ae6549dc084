"""A proxy for an S3 server that injects network and server faults into some requests."""

from __future__ import annotations

import contextlib
import enum
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class Fault(enum.Enum):
    """Fault injected into a request."""

    INTERNAL_ERROR = enum.auto()  # the response is 500
    UNAVAILABLE = enum.auto()  # the response is 503
    RESET = enum.auto()  # the connection is reset before the server gets the request
    LOST_ANSWER = enum.auto()  # the server executes the write, then the connection is reset
    TRUNCATED = enum.auto()  # half of the response to a read is sent
    STALL = enum.auto()  # no response within the clients' timeout


_ANSWERS = {Fault.INTERNAL_ERROR: (500, "InternalError"), Fault.UNAVAILABLE: (503, "SlowDown")}

# The methods whose requests a fault fits; a fault that is not here fits every request.
_METHODS = {Fault.LOST_ANSWER: {b"PUT", b"POST"}, Fault.TRUNCATED: {b"GET"}}


class Proxy:
    """Proxy on a free port, with one request per connection, so that a fault affects one request only.

    Args:
        endpoint: http://host:port of the server.
        faults: faults of every `every`-th request, in turn; without faults all requests are forwarded.
        every: interval between faults, in requests.

    Attributes:
        url: http://host:port of the proxy.
        injected: number of injections by fault.
    """

    def __init__(self, endpoint: str, faults: Sequence[Fault] = (), every: int = 5) -> None:
        place = urlsplit(endpoint)
        self._server = (str(place.hostname), int(place.port or 80))
        self._faults, self._every = deque(faults), every
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.injected: Counter[Fault] = Counter()
        self._requests = 0
        self._lock = threading.Lock()
        self._until = 0.0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._listener.close()

    def away(self, seconds: float) -> None:
        """Reset all connections for the given time."""
        self._until = time.monotonic() + seconds

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            if time.monotonic() < self._until:
                return _reset(client)
            request = _message(client)
            if not request:
                return None
            fault = self._choose(request)
            if fault in _ANSWERS:
                status, code = _ANSWERS[fault]
                body = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
                client.sendall(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(body), body))
                return None
            if fault is Fault.RESET:
                return _reset(client)
            if fault is Fault.STALL:
                time.sleep(10)
                return _reset(client)
            with socket.create_connection(self._server) as server:
                server.sendall(_closing(request))
                response = b"".join(iter(lambda: server.recv(1 << 16), b""))
            if fault is Fault.LOST_ANSWER:
                return _reset(client)
            client.sendall(response[: len(response) // 2] if fault is Fault.TRUNCATED else response)
        return None

    def _choose(self, request: bytes) -> Fault | None:
        """Return the fault of a request: of those that fit it, the one whose last injection is longest ago."""
        method = request.partition(b" ")[0]
        with self._lock:
            self._requests += 1
            if self._requests % self._every:
                return None
            fault = next((fault for fault in self._faults if method in _METHODS.get(fault, {method})), None)
            if fault is not None:
                self._faults.remove(fault)
                self._faults.append(fault)
                self.injected[fault] += 1
            return fault


def _message(client: socket.socket) -> bytes:
    """Read a whole request with its body, plain or chunked."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = client.recv(1 << 16)
        if not part:
            return b""
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])}
    if fields.get(b"expect", b"").lower() == b"100-continue":
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    chunked = fields.get(b"transfer-encoding", b"").lower() == b"chunked"
    length = int(fields.get(b"content-length", 0))
    while not body.endswith(b"0\r\n\r\n") if chunked else len(body) < length:
        body += client.recv(1 << 16)
    return head + b"\r\n\r\n" + body


def _closing(request: bytes) -> bytes:
    """Set `Connection: close` in the request and remove `Expect`."""
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    kept = [line for line in lines if line.split(b":")[0].lower() not in (b"connection", b"expect")]
    return b"\r\n".join([first, *kept, b"Connection: close"]) + b"\r\n\r\n" + body


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
