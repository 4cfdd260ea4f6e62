"""`fullconv serve` on a port of its own, in this process; and what it answers."""

from __future__ import annotations

import http.client
import io
import json
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from fullconv.deploy.serve.app import create_app
from fullconv.deploy.serve.server import GracefulServer
from fullconv.deploy.serve.uploads import Limits
from fullconv.inference.predictor import Predictor
from fullconv.inference.segmenter import Segmenter

PNG = {"Content-Type": "image/png"}


@contextmanager
def serving(
    model: Segmenter,
    limits: Limits | None = None,
    key: str = "",
    wrap: Callable[[Any], Any] = lambda app: app,
) -> Iterator[str]:
    """Yield the address; `wrap` puts something of the test before the application."""
    limits, ready = limits or Limits(), threading.Event()
    app = wrap(create_app(model, "street", limits, key))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = GracefulServer(app, limits.seconds, ready.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            assert ready.wait(30)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join(60)
        assert not thread.is_alive()


@dataclass(frozen=True)
class Reply:
    """A response."""

    status: int
    content: bytes
    headers: Any

    @property
    def table(self) -> Any:
        return json.loads(self.content)

    @property
    def error(self) -> tuple[int, str, str]:
        """Status, message and hint of an error, which has nothing else."""
        assert set(self.table) == {"error", "try"}
        return self.status, self.table["error"], self.table["try"]


def ask(
    address: str,
    content: bytes | None = None,
    path: str = "predict",
    headers: dict[str, str] = PNG,
    method: str = "",
) -> Reply:
    """POST `content` to a path of the server, or GET the path if there is none."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    method = method or ("GET" if content is None else "POST")
    connection.request(method, f"/{path}", content, headers)
    answer = connection.getresponse()
    reply = Reply(answer.status, answer.read(), answer.headers)
    connection.close()
    return reply


def png(image: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    """Return an image (H, W, 3) or (H, W) as a file of this format."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def pixels(content: bytes) -> np.ndarray:
    """Return the values in a PNG, also ids of one with a palette."""
    return np.asarray(Image.open(io.BytesIO(content)))


def bomb(height: int = 30_000, width: int = 30_000) -> bytes:
    """Return a small PNG whose header promises this size."""
    file = bytearray(png(np.zeros((8, 8, 3), np.uint8)))
    file[16:24] = width.to_bytes(4) + height.to_bytes(4)
    file[29:33] = zlib.crc32(file[12:29]).to_bytes(4)
    return bytes(file)


class Held(Predictor):
    """Sets `working` when it predicts, and waits for `may`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.working, self.may = threading.Event(), threading.Event()

    def segment(self, image: Any, **options: Any) -> Any:
        self.working.set()
        assert self.may.wait(60)
        return super().segment(image, **options)
