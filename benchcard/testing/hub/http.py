"""The HTTP server of `LocalHub`, its record of requests, and its faults.

Leaves the content of replies to `api`. Each connection ends with its reply, so a stopped server leaves no thread and no
open socket behind, even if its clients keep connections open.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, repeat
from typing import Literal
from urllib.parse import parse_qs, urlsplit

from benchcard.testing.hub.api import HubApi, Reply, Request, json_reply, refusal_reply
from benchcard.testing.hub.store import Refusal


@dataclass(frozen=True)
class Fault:
    """A failure of requests to one endpoint.

    Attributes:
        route: The name of the endpoint ("resolve", "commit", "info", ...); "*": any.
        method: The method of the requests; "*": any. A download is a HEAD, then a GET.
        after: The number of such requests that succeed first.
        times: The number of requests that fail after those; None: all of them.
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

    def effects(self) -> Iterator[Fault]:
        """Yield the fault of each matching request: `after` times one without effect, then this one, `times` times."""
        failures = repeat(self) if self.times is None else repeat(self, self.times)
        return chain(repeat(Fault(), self.after), failures)

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


class HubServer(ThreadingHTTPServer):
    """A running server of a `HubApi` on a free port of 127.0.0.1, and a folder for the caches of its clients."""

    request_queue_size = 128
    daemon_threads = False

    def __init__(self, api: HubApi) -> None:
        self.api = api
        self.faults: list[tuple[Fault, Iterator[Fault]]] = []
        self.seen: list[SeenRequest] = []
        self.failures: list[BaseException] = []
        self.home = tempfile.TemporaryDirectory(prefix="local-hub-")
        self._stopping = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)
        api.endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, name="LocalHub")
        self._thread.start()

    def stop(self) -> None:
        """End all threads, close the port, and delete the folder."""
        self._stopping.set()
        self.shutdown()
        self._thread.join()
        self.server_close()
        self.home.cleanup()

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep an error of the server for `LocalHub` to raise, but not that of a connection that a client closed."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ConnectionError):
            self.failures.append(error)

    def handle(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> tuple[Reply, Fault]:
        """Return the reply to one request, and its fault."""
        parts = urlsplit(target)
        with self.api.lock:
            route, match = self.api.find_route(method, parts.path)
            fault = self._next_fault(route.name, method)
        request = Request(self.api, parts.path, parse_qs(parts.query, keep_blank_values=True), headers, body, match)
        self._stopping.wait(fault.delay_s)
        with self.api.lock:
            if fault.before is not None:
                fault.before()
            user = None
            try:
                user = request.user
                reply = fault.reply()
                if reply is None:
                    answer = route.handler(request)
                    reply = answer if isinstance(answer, Reply) else json_reply(answer)
                    reply = reply if fault.body is None else replace(reply, body=fault.body)
            except Refusal as refusal:
                reply = refusal_reply(refusal)
            status = 0 if fault.ending == "drop" else reply.status
            self.seen.append(SeenRequest(route.name, method, parts.path, user.name if user else None, status))
        return reply, fault

    def _next_fault(self, route: str, method: str) -> Fault:
        """Return the first fault that matches a request and is not used up, or one that does nothing."""
        for fault, effects in self.faults:
            if fault.route in ("*", route) and fault.method in ("*", method):
                effect = next(effects, None)
                if effect is not None:
                    return effect
        return Fault()


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"
    server_version = "LocalHub"
    # Seconds after which a connection without a request is closed.
    timeout = 30
    # Sends a reply as one packet. Otherwise each body waits 40 ms for the acknowledgement of its headers.
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: `HubServer.seen` has the requests."""

    def _serve(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply, fault = self.server.handle(self.command, self.path, headers, self._body())
        if fault.ending == "drop":
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body[: len(reply.body) // 2] if fault.ending == "cut" else reply.body)

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
