"""Connections: HTTP/1.1 as uvicorn speaks it, with an end to connections on which nothing happens,
and errors in the form of all others.
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

_LOOKS = 4  # so often within the time that a request may take


def protocol(seconds: float) -> type[H11Protocol]:
    """Connections are cut when for so long no request was at work: one whose headers do not come,
    whose answer is not read, or whose upload goes on after it was refused."""

    class Connection(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._since = self.loop.time()
            self._look()

        def _look(self) -> None:
            now = self.loop.time()
            asked = self.cycle is not None and not self.cycle.response_complete
            if asked and not self.flow.write_paused:  # else it waits for the client to read
                self._since = now
            if now - self._since >= seconds:
                self.transport.abort()
                return
            self._timer = self.loop.call_later(seconds / _LOOKS, self._look)

        def on_response_complete(self) -> None:
            self._since = self.loop.time()  # a quick one may lie between two looks
            super().on_response_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._timer.cancel()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            told = {"error": "this is no HTTP request.", "try": "curl ADDRESS/health"}
            body = json.dumps(told).encode()
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
            ]
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # else an answer is under way
                for event in (
                    h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                    h11.Data(data=body),
                    h11.EndOfMessage(),
                ):
                    self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

    return Connection


class UntilStopped(Server):
    """Ends when it is told to, by SIGINT or SIGTERM, after what it took is finished. A second
    SIGINT ends it at once.

    Args:
        app: what answers.
        seconds: that a request may take.
        ready: is called when it listens.
    """

    def __init__(self, app: Any, seconds: float, ready: Callable[[], None]) -> None:
        self._ready = ready
        config = Config(
            app,
            http=protocol(seconds),
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
        """As uvicorn does, and says so."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn does, but that a signal which was heeded is not raised again: it is no
        failure."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        heard = (signal.SIGINT, signal.SIGTERM)
        before = {one: signal.signal(one, self.handle_exit) for one in heard}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
