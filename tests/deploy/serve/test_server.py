"""Connections that come to nothing, and the end of the server."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from lively import lively
from photos import photo
from PIL import Image
from served import Held, ask, png, serving

from fullconv.deploy.serve.uploads import Limits

SECONDS = 1.0


@pytest.fixture(scope="module")
def model() -> Held:
    found = Held(lively(), device="cpu", precision="float32")
    found.may.set()
    return found


@pytest.fixture(scope="module")
def address(model: Held) -> Iterator[str]:
    with serving(model, Limits(seconds=SECONDS)) as url:
        yield url


def connected(address: str, sent: bytes) -> socket.socket:
    parts = urlsplit(address)
    line = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20)
    line.sendall(sent)
    return line


def rest(line: socket.socket) -> bytes:
    """What comes until the server ends the connection."""
    found = b""
    try:
        while part := line.recv(1 << 16):
            found += part
    except ConnectionResetError:
        pass
    line.close()
    return found


def answer(content: bytes) -> tuple[int, Any]:
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


def test_a_slow_upload_is_told_so_and_cut(address: str) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
    head += b"Content-Length: 99\r\n\r\n"
    status, table = answer(rest(connected(address, head + b"a")))
    assert (status, table["error"]) == (408, "the upload took more than 1 seconds.")


def test_what_is_no_http(address: str) -> None:
    status, table = answer(rest(connected(address, b"\x16\x03\x01 hello\r\n\r\n")))
    assert (status, table) == (400, {"error": "not an HTTP request.", "try": "curl ADDRESS/health"})


@pytest.mark.parametrize("requests", [1, 3])
def test_an_answer_that_nobody_reads_is_not_kept(model: Held, requests: int) -> None:
    large = noise(1500)  # whose overlay has 6 MB: more than the system's own buffers take
    head = "POST /predict?output=overlay HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
    head += f"Content-Length: {len(large)}\r\n\r\n"
    with serving(model, Limits(seconds=8)) as url:
        line = connected(url, b"")
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
        asking = threading.Thread(target=_send, args=(line, requests * (head.encode() + large)))
        asking.start()
        assert line.recv(15) == b"HTTP/1.1 200 OK"
        parts = urlsplit(url)
        end = time.monotonic() + 60
        while _open(parts.port or 0) > 0:  # the server's end of it
            assert time.monotonic() < end
            time.sleep(0.2)
        line.close()
        asking.join(20)


def noise(side: int) -> bytes:
    """As JPEG."""
    values = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "JPEG", quality=50)
    return file.getvalue()


def _send(line: socket.socket, content: bytes) -> None:
    """As far as the server reads."""
    with contextlib.suppress(OSError):
        line.sendall(content)


def _open(port: int) -> int:
    """Connections that the system holds established on the server's side."""
    with open("/proc/net/tcp", encoding="ascii") as file:
        rows = [line.split() for line in file][1:]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


def test_what_was_taken_is_finished_at_the_end(model: Held) -> None:
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
