"""A browser, and servers for it to talk to.

FULLCONV_CHROMIUM       path of a Chromium or Chrome
FULLCONV_NODE_MODULES   folder with the npm packages axe-core and onnxruntime-web
"""

from __future__ import annotations

import base64
import io
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fullconv.data.pictures import read_picture
from fullconv.errors import FullconvError
from fullconv.outputs import Segmentation
from fullconv.predict import Predictor

PAGE = Path(__file__).parents[1] / "src/fullconv/page/index.html"
Answer = tuple[int, dict[str, Any], dict[str, str]]  # status, JSON, further headers


def node_modules() -> Path:
    """The folder that FULLCONV_NODE_MODULES names; skips where it does not."""
    folder = os.environ.get("FULLCONV_NODE_MODULES", "")
    if not folder:
        pytest.skip("FULLCONV_NODE_MODULES is not set: npm install axe-core onnxruntime-web")
    return Path(folder)


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; skips where there is none."""
    path = os.environ.get("FULLCONV_CHROMIUM", "")
    if not path:
        pytest.skip("FULLCONV_CHROMIUM is not set: it names a Chromium, /usr/bin/chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        options = ["--no-sandbox", "--disable-gpu"]
        browser = started.chromium.launch(executable_path=path, args=options)
        yield browser
        browser.close()


@dataclass
class Served:
    """What `fullconv serve` answers, from a model here.

    Args:
        predictor: labels the pictures.
        key: that is wanted, if any.
        refusals: answers that are given to the next pictures, first one first.
    """

    predictor: Predictor
    key: str = ""
    refusals: list[Answer] = field(default_factory=list)

    def model(self) -> dict[str, Any]:
        labels = self.predictor.labels
        pairs = zip(labels.names, labels.colors, strict=True)
        return {
            "name": "street",
            "classes": [
                {"id": i, "name": name, "color": color} for i, (name, color) in enumerate(pairs)
            ],
            "ignore_index": labels.ignore_index,
            "backbone": "test_resnet",
            "pretrained_on": "",
            "heads": {},
            "limits": {"bytes": 1 << 22, "pixels": 10**7, "seconds": 60},
            "version": "0.1.0",
        }

    def predict(self, content: bytes) -> Answer:
        if self.refusals:
            return self.refusals.pop(0)
        try:
            found = self.predictor(read_picture(io.BytesIO(content)))
        except FullconvError as error:
            return 415, {"error": error.message, "try": error.hint}, {}
        return 200, self.table(found), {}

    def table(self, found: Segmentation) -> dict[str, Any]:
        (height, width), mask = found.mask.shape, io.BytesIO()
        picture = Image.fromarray(found.mask)
        picture.putpalette(sum(found.labels.colors, ()))
        picture.save(mask, "PNG")
        counts = np.bincount(found.mask.ravel(), minlength=256).tolist()
        return {
            "height": height,
            "width": width,
            "classes": [
                {"id": i, "name": name, "pixels": counts[i], "share": counts[i] / found.mask.size}
                for i, name in enumerate(found.labels.names)
            ],
            "seconds": 0.1,
            "ids": _url(found.mask),
            "mask": "data:image/png;base64," + base64.b64encode(mask.getvalue()).decode(),
            "confidence": _url(np.round(found.confidence * 255).astype(np.uint8)),
        }


def _url(values: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, served: Served, *args: Any) -> None:
        self.served = served
        super().__init__(*args)

    def do_GET(self) -> None:
        if self.path == "/":
            self.send(200, PAGE.read_bytes(), "text/html; charset=utf-8", {})
        elif self.path == "/model":
            self.answer(lambda: (200, self.served.model(), {}))
        else:
            self.answer(lambda: (404, {"error": f"no {self.path}", "try": "/"}, {}))

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == "/predict?output=json&include=ids,mask,confidence"
        self.answer(lambda: self.served.predict(content))

    def answer(self, make: Callable[[], Answer]) -> None:
        wanted = f"Bearer {self.served.key}"
        refused = self.served.key and self.headers.get("Authorization") != wanted
        status, table, headers = (
            (401, {"error": "the key is missing or wrong.", "try": "--key"}, {})
            if refused
            else make()
        )
        self.send(status, json.dumps(table).encode(), "application/json", headers)

    def send(self, status: int, content: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def _running(handler: Any) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def serving(served: Served) -> Any:
    """The page and its server, at the address that this gives."""
    return _running(partial(_Handler, served))


def files(folder: Path) -> Any:
    """`python -m http.server --directory FOLDER`."""
    return _running(partial(_Files, directory=str(folder)))
