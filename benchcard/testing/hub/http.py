"""The wire of `LocalHub`: a threaded HTTP server on the loopback, and the faults that it can be told to show.

Owns sockets, keep-alive, byte ranges, what is recorded of each request, and when a fault strikes. What is answered is
`hub_api`'s. A server that is closed leaves no thread and no open socket behind, whatever its clients still hold open.
"""

from __future__ import annotations

import re
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from benchcard.testing.hub.api import HubApi, Reply, Request, refusal_reply
from benchcard.testing.hub.store import Refusal


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong with requests of one kind.

    Attributes:
        route: which requests, by the name of their endpoint ("resolve", "commit", "info", ...); "*" is all of them.
        method: only requests with this method; "*" is any. A download is a HEAD, then a GET.
        after: how many such requests pass unharmed before.
        times: how many are struck then; None is all of them.
        status: answer this status instead of doing what was asked; None does it.
        message: the error message that goes with the status.
        headers: further headers that go with the status.
        body: the body that goes with the status, where it is not the usual JSON (a proxy's error page, say). Without a
            status, what was asked is done, and this body replaces that of the answer.
        before: called just before the request is looked at.
        delay_s: seconds to wait before anything is done.
        ending: "whole" sends the answer; "drop" does what was asked and hangs up without a word; "cut" hangs up in the
            middle of the body.
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
        """The answer that stands in for the real one; None where the real one is given."""
        if self.status is None:
            return None
        if self.body is not None:
            return Reply(self.status, self.body, {"Content-Type": "text/html", **self.headers})
        return refusal_reply(Refusal(self.status, self.message, headers=self.headers))


@dataclass(frozen=True)
class SeenRequest:
    """One request that the server got: its endpoint, method and path, whose it was, and the status of the answer.

    `user` is None without a token; a token itself is never kept. `status` is 0 where nothing was answered.
    """

    route: str
    method: str
    path: str
    user: str | None
    status: int


class FaultList:
    """The faults that are still to come, in the order in which they were asked for. Not thread-safe by itself."""

    def __init__(self) -> None:
        self._faults: list[tuple[Fault, list[int]]] = []

    def add(self, fault: Fault) -> None:
        """Has `fault` strike after those that were added before."""
        self._faults.append((fault, [0]))

    def clear(self) -> None:
        """Has nothing more go wrong."""
        self._faults.clear()

    def strike(self, route: str, method: str) -> Fault:
        """What goes wrong with this request: the first fault that fits and is not used up, or one that does nothing."""
        for fault, seen in self._faults:
            if fault.route not in ("*", route) or fault.method not in ("*", method):
                continue
            if fault.times is not None and seen[0] >= fault.after + fault.times:
                continue
            seen[0] += 1
            return fault if seen[0] > fault.after else Fault()
        return Fault()


def _in_range(reply: Reply, wanted: str | None) -> Reply:
    """The part of a download that a Range header asks for."""
    if reply.status != 200 or "ETag" not in reply.headers:
        return reply
    headers = {**reply.headers, "Accept-Ranges": "bytes"}
    asked = re.fullmatch(r"\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", wanted or "")
    if asked is None or not (asked[1] or asked[2]):
        return Reply(200, reply.body, headers)
    size = len(reply.body)
    start = int(asked[1]) if asked[1] else max(size - int(asked[2]), 0)
    stop = min(int(asked[2]) + 1, size) if asked[1] and asked[2] else size
    if start >= stop:
        return Reply(416, b"", {**headers, "Content-Range": f"bytes */{size}"})
    return Reply(206, reply.body[start:stop], {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{size}"})


class HubServer(ThreadingHTTPServer):
    """Serves a `HubApi` on a free port of 127.0.0.1, one thread a connection, one request at a time."""

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
        """Begins to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Ends every connection and every thread, and gives the port back."""
        self.stopping.set()
        self.shutdown()
        self._thread.join()
        with self.lock:
            for connection in self._connections:
                _hang_up(connection)
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Takes note of a new connection before its thread starts."""
        with self.lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forgets a connection that ends."""
        with self.lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keeps a mistake of the server itself for `LocalHub` to raise; clients may hang up as they like."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ConnectionError):
            self.failures.append(error)

    def answer(self, request: Request) -> tuple[Reply, Fault]:
        """The answer to one request, and the fault that it meets."""
        with self.lock:
            route, handler = self.api.find(request.method, request.path)
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


def _hang_up(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        # The other side was faster.
        return


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"
    server_version = "LocalHub"
    # One packet an answer: without this each waits 40 ms for the acknowledgement of its own headers.
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: what was asked is kept in `HubServer.seen`."""

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        query = parse_qs(parts.query, keep_blank_values=True)
        reply, fault = self.server.answer(Request(self.command, parts.path, query, headers, self._body()))
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
        _hang_up(self.connection)

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
