"""uvicorn with two additions: connections on which nothing happens are closed, and a server that is
told to stop finishes the requests that it has accepted.

uvicorn's own `timeout_keep_alive` counts from the end of a response only. It does not close a
connection that never sends its headers, or whose client does not read the response.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import h11
from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

_CHECKS = 4  # within the time that a connection may be idle


def idle_timeout_protocol(seconds: float) -> type[H11Protocol]:
    """Return uvicorn's HTTP protocol with a timeout for connections without a running request:
    no headers, a response that is not read, an upload that continues after an error response."""

    class Connection(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._active = self.loop.time()
            self._check()

        def _check(self) -> None:
            now = self.loop.time()
            running = self.cycle is not None and not self.cycle.response_complete
            if running and not self.flow.write_paused:  # paused: the client does not read
                self._active = now
            if now - self._active >= seconds:
                self.transport.abort()
                return
            self._timer = self.loop.call_later(seconds / _CHECKS, self._check)

        def on_response_complete(self) -> None:
            self._active = self.loop.time()  # a quick request may fall between two checks
            super().on_response_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._timer.cancel()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            """Send the error in the same form as all others."""
            body = json.dumps({"error": "not an HTTP request.", "try": "curl ADDRESS/health"})
            headers = {
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                "Connection": "close",
            }
            lines = list(headers.items())
            response = h11.Response(status_code=400, headers=lines, reason=b"Bad Request")
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # no response has begun
                for event in (response, h11.Data(data=body.encode()), h11.EndOfMessage()):
                    self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

    return Connection


class GracefulServer(Server):
    """Runs until SIGINT or SIGTERM, then finishes accepted requests; a second SIGINT stops at once.

    `seconds` limits a request; `on_ready` is called once the server accepts requests.
    """

    def __init__(self, app: Any, seconds: float, on_ready: Callable[[], None]) -> None:
        self._on_ready = on_ready
        config = Config(
            app,
            http=idle_timeout_protocol(seconds),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=int(seconds) + 5,
        )
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals as uvicorn does, but do not raise them again: stopping is no failure."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        handlers = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
