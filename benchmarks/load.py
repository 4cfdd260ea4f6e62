"""Many simultaneous clients of a server: most send images, some send invalid requests.

They share the machine with the server, so they do little: uploads are prepared, and equal responses
are stored once and verified afterwards. No torch here.
"""

from __future__ import annotations

import http.client
import itertools
import json
import random
import re
import select
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

ANSWERS = {  # output -> query
    "mask": "/predict?output=mask",
    "json": "/predict?output=json&include=ids,confidence",
    "overlay": "/predict?output=overlay",
}
OFTEN = {"mask": 2, "json": 1, "overlay": 1}
IMAGE, SLOW, LEFT, GONE = "image", "slow", "left", "gone"
# Among 200 requests: the number of each kind, and the right statuses.
KINDS: dict[str, tuple[int, tuple[int, ...]]] = {
    IMAGE: (172, (200, 503)),
    "cut short": (6, (422, 503)),  # these three are 5 %
    "text": (2, (415, 503)),
    "empty": (2, (422, 503)),
    "too many bytes": (4, (413, 503)),
    "too many pixels": (4, (413, 503)),
    SLOW: (2, (408,)),
    LEFT: (4, ()),  # disconnects during the upload
    GONE: (4, ()),  # disconnects while waiting
}
PATIENCE = 0.5  # share of Retry-After that clients wait
LATE = 1.5  # seconds after the server's limit within which slow uploads must be refused
_PAUSE = 0.25  # seconds between the bytes of a slow upload
_EXAMPLES = 20
_SECONDS = re.compile(rb'"seconds": [0-9.e-]+')  # the part of a JSON response that varies


@dataclass(frozen=True)
class Upload:
    """The body of a request.

    Args:
        name: name of the image.
        content: all bytes.
        kind: the Content-Type.
        chunked: send it without a Content-Length.
    """

    name: str
    content: bytes
    kind: str
    chunked: bool = False


@dataclass
class Tally:
    """The responses.

    Args:
        statuses: number of responses by kind of request and status; 0 is no response.
        refusals: the messages, without their numbers.
        unexpected: number of unexpected responses, and some of them.
        done: number of responses by image and output until the time limit.
        seconds: time of these responses.
        kept: for each image, output and hash, the number of responses and the first one.
    """

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    unexpected: int = 0
    examples: list[str] = field(default_factory=list)
    done: Counter[tuple[str, str]] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    kept: dict[tuple[str, str, bytes], bytes] = field(default_factory=dict)
    often: Counter[tuple[str, str, bytes]] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, kind: str, status: int) -> None:
        """Count a response."""
        with self._lock:
            self.statuses[kind, status] += 1

    def wrong(self, what: str) -> None:
        """Record an unexpected response."""
        with self._lock:
            self.unexpected += 1
            if len(self.examples) < _EXAMPLES:
                self.examples.append(what[:400])

    def answered(self, kind: str, status: int, content: bytes, retry: str | None) -> None:
        """Count a response and verify everything except the images in it."""
        self.count(kind, status)
        if status not in KINDS[kind][1]:
            self.wrong(f"{kind}: {status} {content[:300]!r}")
            return
        if status == 200:
            return
        try:
            said = json.loads(content)["error"]
            json.loads(content)["try"]
        except (ValueError, KeyError, TypeError):
            self.wrong(f"{kind}: {status} without error and try: {content[:300]!r}")
            return
        with self._lock:
            self.refusals[f"{status} {re.sub(r'[0-9]+', 'N', said)}"] += 1
        if status == 503 and not (retry or "").isdecimal():
            self.wrong(f"{kind}: 503 with Retry-After {retry!r}")

    def keep(self, name: str, want: str, content: bytes) -> None:
        """Store a result for later comparison."""
        same = _SECONDS.sub(b"", content, count=1) if want == "json" else content
        key = (name, want, blake2b(same, digest_size=16).digest())
        with self._lock:
            self.often[key] += 1
            self.kept.setdefault(key, content)

    def finished(self, name: str, want: str, seconds: float) -> None:
        """Count a result within the time limit."""
        with self._lock:
            self.done[name, want] += 1
            self.seconds.append(seconds)

    def forget(self) -> None:
        """Exclude the responses so far from the rates; they still count as right or wrong."""
        self.done.clear()
        self.seconds.clear()


class Load:
    """Clients that each send one request after another.

    Args:
        address: host and port.
        images: valid uploads.
        bad: invalid uploads by kind, of `KINDS`.
        max_seconds: the time limit of the server.
        seed: seed of the order of requests.
    """

    def __init__(
        self,
        address: tuple[str, int],
        images: Sequence[Upload],
        bad: dict[str, Sequence[Upload]],
        max_seconds: float,
        seed: int = 0,
    ) -> None:
        self.address, self.max_seconds, self.tally = address, max_seconds, Tally()
        self._stop, self._lock = threading.Event(), threading.Lock()
        chance = random.Random(seed)
        wants = [(one, want) for one in images for want, n in OFTEN.items() for _ in range(n)]
        kinds = [kind for kind, (count, _) in KINDS.items() for _ in range(count)]
        self._kinds = itertools.cycle(chance.sample(kinds, len(kinds)))
        self._wants = itertools.cycle(chance.sample(wants, len(wants)))
        self._bad = {kind: itertools.cycle(some) for kind, some in bad.items()}

    def run(self, seconds: float, clients: int) -> float:
        """Send requests until the time limit, wait for the last responses, and return the seconds
        until the limit."""
        self._stop.clear()
        threads = [threading.Thread(target=self._client) for _ in range(clients)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        self._stop.set()
        lasted = time.monotonic() - began
        for thread in threads:
            thread.join()
        return lasted

    def _client(self) -> None:
        connection = self.connect()
        while not self._stop.is_set():
            with self._lock:
                kind = next(self._kinds)
                one, want = next(self._wants)
                one = next(self._bad[kind]) if kind in self._bad else one
            try:
                rest = self._request(connection, kind, one, want)
            except (OSError, http.client.HTTPException) as error:
                self._missing(kind, error)
                rest = 0.1
                connection.close()
            self._stop.wait(rest)
        connection.close()

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection that opens when something is sent, and again after it was closed."""
        return http.client.HTTPConnection(*self.address, timeout=self.max_seconds + 30)

    def _request(
        self, connection: http.client.HTTPConnection, kind: str, one: Upload, want: str
    ) -> float:
        """Send one request; return the seconds to wait after it."""
        if kind == LEFT:
            start(connection, one, want)
            connection.send(one.content[: len(one.content) // 2])
            leave(connection, rudely=len(one.content) % 2 == 0)
        elif kind == GONE:
            send(connection, one, want)
            time.sleep(0.05)
            leave(connection, rudely=len(one.content) % 2 == 0)
        elif kind == SLOW:
            self._slowly(connection, one, want)
        else:
            return self.ask(connection, kind, one, want)
        if kind != SLOW:
            self.tally.count(kind, 0)
        return 0.0

    def _missing(self, kind: str, error: Exception) -> None:
        self.tally.count(kind, 0)
        self.tally.wrong(f"{kind}: no answer: {type(error).__name__}: {error}")

    def at_once(self, images: Sequence[Upload], want: str) -> list[threading.Thread]:
        """Send all uploads on separate connections; return the threads that wait for responses."""

        def one_of_them(one: Upload) -> None:
            connection = self.connect()
            try:
                self.ask(connection, IMAGE, one, want)
            except (OSError, http.client.HTTPException) as error:
                self._missing(IMAGE, error)
            connection.close()

        threads = [threading.Thread(target=one_of_them, args=(one,)) for one in images]
        for thread in threads:
            thread.start()
        return threads

    def ask(
        self, connection: http.client.HTTPConnection, kind: str, one: Upload, want: str
    ) -> float:
        """Send a request and read its response; return the seconds to wait after it."""
        began = time.monotonic()
        send(connection, one, want)
        response = connection.getresponse()
        content = response.read()
        retry = response.getheader("Retry-After")
        self.tally.answered(kind, response.status, content, retry)
        if response.status == 200 and kind == IMAGE:
            self.tally.keep(one.name, want, content)
            if not self._stop.is_set():
                self.tally.finished(one.name, want, time.monotonic() - began)
        return PATIENCE * float(retry) if retry else 0.0

    def _slowly(self, connection: http.client.HTTPConnection, one: Upload, want: str) -> None:
        """Send a byte now and then until there is a response."""
        began = time.monotonic()
        start(connection, one, want)
        for byte in one.content:
            connection.send(bytes([byte]))
            if select.select([connection.sock], [], [], _PAUSE)[0]:
                break
        response = connection.getresponse()
        content = response.read()
        self.tally.answered(SLOW, response.status, content, response.getheader("Retry-After"))
        late = time.monotonic() - began - self.max_seconds
        if late > LATE:
            self.tally.wrong(f"{SLOW}: {response.status} came {late:.1f} s after the limit")
        connection.close()


def start(connection: http.client.HTTPConnection, one: Upload, want: str) -> None:
    """Return the header of a request."""
    connection.putrequest("POST", ANSWERS[want])
    connection.putheader("Content-Type", one.kind)
    if one.chunked:
        connection.putheader("Transfer-Encoding", "chunked")
    else:
        connection.putheader("Content-Length", str(len(one.content)))
    connection.endheaders()


def send(connection: http.client.HTTPConnection, one: Upload, want: str) -> None:
    """Send a whole request."""
    start(connection, one, want)
    if one.chunked:
        for at in range(0, len(one.content), 1 << 16):
            part = one.content[at : at + (1 << 16)]
            connection.send(b"%x\r\n%b\r\n" % (len(part), part))
        connection.send(b"0\r\n\r\n")
    elif one.content:
        connection.send(one.content)


def leave(connection: http.client.HTTPConnection, *, rudely: bool) -> None:
    """Close a connection by a reset, without the handshake."""
    if rudely:
        now = struct.pack("ii", 1, 0)
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
    connection.close()


def as_form(one: Upload) -> Upload:
    """Return the upload as a form, as a web page sends it."""
    head = (
        "--edge\r\nContent-Disposition: form-data; name=image; filename=photo\r\n"
        f"Content-Type: {one.kind}\r\n\r\n"
    )
    content = head.encode() + one.content + b"\r\n--edge--\r\n"
    return Upload(one.name, content, "multipart/form-data; boundary=edge")


def bad_uploads(
    images: Sequence[Upload], max_bytes: int, max_pixels: int
) -> dict[str, list[Upload]]:
    """Return uploads, by kind, that a server with these limits should refuse."""
    noise = random.Random(0).randbytes(max_bytes + (1 << 20))
    jpeg = next(one.content for one in images if one.kind == "image/jpeg")
    side = 1 + int(max_pixels**0.5)
    bombs = [black_png(30_000, 30_000), black_png(side, side)]
    return {
        "cut short": [
            Upload("", one.content[: len(one.content) * share // 100], one.kind)
            for share in (20, 60, 90)
            for one in images
            if one.kind.startswith("image/")
        ],
        "text": [
            Upload("", b"this is no image. " * 500, "image/jpeg"),
            Upload("", b"this is no image. " * 500, "text/plain"),
        ],
        "empty": [Upload("", b"", kind) for kind in ("image/jpeg", "image/png")],
        "too many bytes": [
            Upload("", noise, "image/png"),  # refused before it is read
            Upload("", noise, "image/png", chunked=True),  # refused while it is read
            Upload("", jpeg + noise[: max_bytes + 1 - len(jpeg)], "image/jpeg"),  # one too many
        ],
        "too many pixels": [Upload("", bomb, "image/png") for bomb in bombs],
    }


def black_png(height: int, width: int) -> bytes:
    """Return a valid PNG with one bit per pixel: few bytes, many pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checked = name + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    packer, row = zlib.compressobj(6), bytes(1 + (width + 7) // 8)
    packed = b"".join([packer.compress(row) for _ in range(height)]) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    ends = (chunk(b"IHDR", header), chunk(b"IDAT", packed), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(ends)
