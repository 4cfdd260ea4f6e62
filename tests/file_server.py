"""An HTTP server for download tests, which can fail in many ways."""

from __future__ import annotations

import http.server
import re
import socket
import struct
import threading
from typing import Any


class FileServer:
    """Serves `files`, each with an ETag, answers range requests and records what was requested.

    Attributes:
        files: name -> content.
        faults: what goes wrong with the next answers, one each: an HTTP status, a number of bytes
            after which the connection is cut, or "reset" in place of an answer.
        requests: name and Range header of each request.
        user_agents: of each request.
        ranges, etag, length: whether ranges are known, the ETag ("" for none), whether the length
            is sent.
        shift: bytes by which the start of a range is wrong.
        open: answers wait until it is set.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: list[int | str] = []
        self.requests: list[tuple[str, str | None]] = []
        self.user_agents: list[str] = []
        self.ranges, self.etag, self.length, self.shift = True, '"one"', True, 0
        self.open = threading.Event()
        self.open.set()
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/{name}"

    def answer(self, handler: Any) -> None:
        name, requested = handler.path[1:], handler.headers.get("Range")
        self.requests.append((name, requested))
        self.user_agents.append(handler.headers.get("User-Agent"))
        self.open.wait(10)
        fault = self.faults.pop(0) if self.faults else None
        if fault == "reset":
            linger = struct.pack("ii", 1, 0)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            handler.connection.close()
            return
        body = self.files.get(name)
        if body is None or (isinstance(fault, int) and 400 <= fault < 600):
            handler.send_error(fault if body is not None else 404)
            return
        start = re.fullmatch(r"bytes=(\d+)-", requested or "")
        first = int(start[1]) if start and self.ranges else 0
        if first and handler.headers.get("If-Range") not in (None, self.etag):
            first = 0
        if first >= len(body) and first:
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(body)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206 if first else 200)
        if first:
            first += self.shift
            handler.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        if self.etag:
            handler.send_header("ETag", self.etag)
        if self.length:
            handler.send_header("Content-Length", str(len(body) - first))
        handler.end_headers()
        end = first + fault if isinstance(fault, int) else len(body)
        handler.wfile.write(body[first:end])

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
