"""Connections on which nothing happens, and the end of the server."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from lively import lively
from photos import photo
from served import Held, ask, png, serving
from starlette.responses import Response

from fullconv.deploy.serve.uploads import Limits

SECONDS = 1.0


@pytest.fixture(scope="module")
def model() -> Held:
    model = Held(lively(), device="cpu", precision="float32")
    model.may.set()
    return model


def with_large_response(app: Any) -> Any:
    """Add the path /large, whose response is more than the buffers of the system hold."""

    async def respond(scope: Any, receive: Any, send: Any) -> None:
        large = scope["type"] == "http" and scope["path"] == "/large"
        await (Response(bytes(16 << 20)) if large else app)(scope, receive, send)

    return respond


@pytest.fixture(scope="module")
def address(model: Held) -> Iterator[str]:
    with serving(model, Limits(seconds=SECONDS), wrap=with_large_response) as url:
        yield url


def connected(address: str, sent: bytes) -> socket.socket:
    parts = urlsplit(address)
    line = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20)
    line.sendall(sent)
    return line


def rest(line: socket.socket) -> bytes:
    """Return what the server sends until it closes the connection."""
    content = b""
    with line, contextlib.suppress(ConnectionResetError):
        while part := line.recv(1 << 16):
            content += part
    return content


def status_and_table(content: bytes) -> tuple[int, Any]:
    head, _, body = content.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize("sent", [b"", b"GET /health HT", b"GET /health HTTP/1.1\r\nHost: x\r\n"])
def test_a_request_that_does_not_come_is_not_waited_for(address: str, sent: bytes) -> None:
    began = time.monotonic()
    assert rest(connected(address, sent)) == b""
    assert time.monotonic() - began >= 0.9 * SECONDS
    assert ask(address, path="health").status == 200


def test_a_connection_is_kept_for_the_next_request(address: str) -> None:
    line = connected(address, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    time.sleep(SECONDS / 2)
    line.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert rest(line).count(b'"status":"ok"') == 2


def test_a_connection_is_kept_through_many_quick_requests(address: str) -> None:
    client = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
    client.connect()
    first, end = client.sock.getsockname(), time.monotonic() + 2.5 * SECONDS
    while time.monotonic() < end:
        client.request("GET", "/health")
        assert client.getresponse().read()
        assert client.sock.getsockname() == first  # it is the same connection
        time.sleep(SECONDS / 9)
    client.close()


def test_a_slow_upload_gets_an_error(address: str) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
    head += b"Content-Length: 99\r\n\r\n"
    status, table = status_and_table(rest(connected(address, head + b"a")))
    assert (status, table["error"]) == (408, "the upload took more than 1 seconds.")


def test_a_request_that_is_not_http(address: str) -> None:
    error = {"error": "not an HTTP request.", "try": "curl ADDRESS/health"}
    content = rest(connected(address, b"\x16\x03\x01 hello\r\n\r\n"))
    assert status_and_table(content) == (400, error)


@pytest.mark.parametrize("requests", [1, 3])
def test_a_response_that_nobody_reads_is_not_kept(address: str, requests: int) -> None:
    line = connected(address, requests * b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    with line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
        assert line.recv(15) == b"HTTP/1.1 200 OK"
        end = time.monotonic() + 60
        while open_connections(urlsplit(address).port or 0) > 0:
            assert time.monotonic() < end
            time.sleep(0.05)


def open_connections(port: int) -> int:
    """Return the number of connections that are established on the server's side."""
    with open("/proc/net/tcp", encoding="ascii") as file:
        rows = [line.split() for line in file][1:]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


def test_accepted_requests_are_finished_at_the_end(model: Held) -> None:
    model.working.clear()
    model.may.clear()
    replies: list[Any] = []
    with serving(model, Limits(seconds=30)) as url:
        content = png(photo(30, 40))
        clients = [
            threading.Thread(target=lambda: replies.append(ask(url, content))) for _ in range(3)
        ]
        clients[0].start()
        assert model.working.wait(20)  # else two of them may be taken together
        for client in clients[1:]:
            client.start()
        while ask(url, path="health").table["waiting"] < 2:
            time.sleep(0.01)
        threading.Timer(0.5, model.may.set).start()
    for client in clients:
        client.join(20)
    assert [reply.status for reply in replies] == [200] * 3
