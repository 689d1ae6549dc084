"""A proxy before an S3 server that lets most requests through and injects faults of networks and servers into the others."""

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
    """What is injected into a request."""

    INTERNAL_ERROR = enum.auto()  # the answer is 500
    UNAVAILABLE = enum.auto()  # the answer is 503
    RESET = enum.auto()  # the connection is reset before the server gets the request
    LOST_ANSWER = enum.auto()  # the server carries the write out, and the connection is reset before its answer
    TRUNCATED = enum.auto()  # the answer to a read ends in the middle
    STALL = enum.auto()  # nothing comes for longer than clients wait


_ANSWERS = {Fault.INTERNAL_ERROR: (500, "InternalError"), Fault.UNAVAILABLE: (503, "SlowDown")}

# The requests in which a fault is what its name says; the others fit every request.
_METHODS = {Fault.LOST_ANSWER: {b"PUT", b"POST"}, Fault.TRUNCATED: {b"GET"}}


class Proxy:
    """Listens on a free port. One request per connection, so that a fault touches one request only.

    Args:
        endpoint: the server's http://host:port.
        faults: what the chosen requests suffer, in turn, where the request fits the fault; none lets all through.
        every: every n-th request is chosen.

    Attributes:
        url: the proxy's http://host:port.
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
        """Reset every connection for a while, as if nothing listened at the address."""
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
                answer = b"".join(iter(lambda: server.recv(1 << 16), b""))
            if fault is Fault.LOST_ANSWER:
                return _reset(client)
            client.sendall(answer[: len(answer) // 2] if fault is Fault.TRUNCATED else answer)
        return None

    def _choose(self, request: bytes) -> Fault | None:
        """Give the fault of a request: of those that fit it, the one that was injected the longest ago."""
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
    """A whole request: its head, and as much body as the head says, plain or in chunks."""
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
    """The request with a head that asks the server to close, and not to wait for a go-ahead."""
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    kept = [line for line in lines if line.split(b":")[0].lower() not in (b"connection", b"expect")]
    return b"\r\n".join([first, *kept, b"Connection: close"]) + b"\r\n\r\n" + body


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
