"""The HTTP server of `LocalHub`, its record of requests, and its faults.

Leaves the content of replies to `api`. A stopped server leaves no thread and no open socket behind, even if its clients
keep connections open.
"""

from __future__ import annotations

import re
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import parse_qs, urlsplit

from benchcard.testing.hub.api import HubApi, Reply, Request, refusal_reply
from benchcard.testing.hub.store import Refusal


@dataclass(frozen=True)
class Fault:
    """A failure of requests to one endpoint.

    Attributes:
        route: The name of the endpoint ("resolve", "commit", "info", ...); "*" is any.
        method: The method of the requests; "*" is any. A download is a HEAD, then a GET.
        after: The number of such requests that succeed first.
        times: The number of requests that fail then; None is all of them.
        status: The status of the reply, which is sent instead of handling the request; None handles the request.
        message: The error message of a reply with `status`.
        headers: Further headers of a reply with `status`.
        body: The body of a reply with `status`, in place of the usual JSON, such as the error page of a proxy. Without
            a status, the request is handled and this body replaces that of the reply.
        before: A function to call just before the request is handled.
        delay_s: Seconds to wait first.
        ending: "whole" sends the reply; "drop" handles the request and closes the connection without a reply; "cut"
            closes it in the middle of the body.
    """

    route: str = "*"
    method: str = "*"
    after: int = 0
    times: int | None = 1
    status: int | None = None
    message: str = "Something went wrong"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    before: Callable[[], object] | None = None
    delay_s: float = 0.0
    ending: Literal["whole", "drop", "cut"] = "whole"

    def reply(self) -> Reply | None:
        """Return the reply that replaces the real one; None where the request is handled."""
        if self.status is None:
            return None
        if self.body is not None:
            return Reply(self.status, self.body, {"Content-Type": "text/html", **self.headers})
        return refusal_reply(Refusal(self.status, self.message, headers=self.headers))


@dataclass(frozen=True)
class SeenRequest:
    """One request that the server received: its endpoint, method, path and user, and the status of the reply.

    `user` is None without a token; the token itself is not kept. `status` is 0 where no reply was sent.
    """

    route: str
    method: str
    path: str
    user: str | None
    status: int


class FaultList:
    """The faults in the order in which they were added. Not thread-safe by itself."""

    def __init__(self) -> None:
        self._faults: list[tuple[Fault, list[int]]] = []

    def add(self, fault: Fault) -> None:
        """Add a fault after the others."""
        self._faults.append((fault, [0]))

    def clear(self) -> None:
        """Remove all faults."""
        self._faults.clear()

    def strike(self, route: str, method: str) -> Fault:
        """Return the first fault that matches a request and is not used up, or one that does nothing."""
        for fault, seen in self._faults:
            if fault.route not in ("*", route) or fault.method not in ("*", method):
                continue
            if fault.times is not None and seen[0] >= fault.after + fault.times:
                continue
            seen[0] += 1
            return fault if seen[0] > fault.after else Fault()
        return Fault()


def _in_range(reply: Reply, header: str | None) -> Reply:
    """Return the part of a download that a Range header asks for."""
    if reply.status != 200 or "ETag" not in reply.headers:
        return reply
    headers = {**reply.headers, "Accept-Ranges": "bytes"}
    limits = re.fullmatch(r"\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", header or "")
    if limits is None or not (limits[1] or limits[2]):
        return Reply(200, reply.body, headers)
    size = len(reply.body)
    start = int(limits[1]) if limits[1] else max(size - int(limits[2]), 0)
    stop = min(int(limits[2]) + 1, size) if limits[1] and limits[2] else size
    if start >= stop:
        return Reply(416, b"", {**headers, "Content-Range": f"bytes */{size}"})
    return Reply(206, reply.body[start:stop], {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{size}"})


class HubServer(ThreadingHTTPServer):
    """A server of a `HubApi` on a free port of 127.0.0.1: one thread per connection, one request at a time."""

    request_queue_size = 128
    daemon_threads = False

    def __init__(self, api: HubApi) -> None:
        self.api = api
        self.lock = threading.RLock()
        self.faults = FaultList()
        self.seen: list[SeenRequest] = []
        self.failures: list[BaseException] = []
        self.stopping = threading.Event()
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)
        api.endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, name="LocalHub")

    def start(self) -> None:
        """Start to serve requests."""
        self._thread.start()

    def stop(self) -> None:
        """End all connections and threads, and close the port."""
        self.stopping.set()
        self.shutdown()
        self._thread.join()
        with self.lock:
            for connection in self._connections:
                _close(connection)
        self.server_close()

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        """Record a new connection before its thread starts."""
        with self.lock:
            if isinstance(request, socket.socket):
                self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        """Remove a connection that ends from the record."""
        with self.lock:
            if isinstance(request, socket.socket):
                self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep an error of the server itself for `LocalHub` to raise; clients may close connections at any time."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ConnectionError):
            self.failures.append(error)

    def handle(self, request: Request) -> tuple[Reply, Fault]:
        """Return the reply to one request, and its fault."""
        with self.lock:
            route, handler = self.api.find_route(request.method, request.path)
            fault = self.faults.strike(route, request.method)
        if fault.delay_s:
            self.stopping.wait(fault.delay_s)
        with self.lock:
            if fault.before is not None:
                fault.before()
            user = None
            try:
                user = self.api.user(request)
                reply = fault.reply() or handler(request)
                if fault.status is None and fault.body is not None:
                    reply = replace(reply, body=fault.body)
            except Refusal as refusal:
                reply = refusal_reply(refusal)
            reply = _in_range(reply, request.headers.get("range"))
            status = 0 if fault.ending == "drop" else reply.status
            self.seen.append(SeenRequest(route, request.method, request.path, user.name if user else None, status))
        return reply, fault


def _close(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        # The client closed it first.
        return


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"
    server_version = "LocalHub"
    # Sends a reply as one packet. Otherwise each body waits 40 ms for the acknowledgement of its headers.
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: `HubServer.seen` has the requests."""

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        query = parse_qs(parts.query, keep_blank_values=True)
        reply, fault = self.server.handle(Request(self.command, parts.path, query, headers, self._body()))
        if fault.ending == "drop":
            self._end()
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body[: len(reply.body) // 2] if fault.ending == "cut" else reply.body)
        self.wfile.flush()
        if fault.ending == "cut":
            self._end()

    def _end(self) -> None:
        self.close_connection = True
        _close(self.connection)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve
