"""A browser, and servers for it to talk to.

FULLCONV_CHROMIUM       path of a Chromium or Chrome
FULLCONV_NODE_MODULES   folder with the npm packages axe-core and onnxruntime-web
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse

Answer = tuple[int, dict[str, Any], dict[str, str]]  # status, JSON, extra headers


def node_modules() -> Path:
    """Return the folder that FULLCONV_NODE_MODULES names."""
    folder = os.environ.get("FULLCONV_NODE_MODULES", "")
    if not folder:
        pytest.skip("FULLCONV_NODE_MODULES is not set: npm install axe-core onnxruntime-web")
    return Path(folder)


@contextmanager
def chromium() -> Iterator[Any]:
    """Yield the browser that FULLCONV_CHROMIUM names."""
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
class Refusals:
    """Responses to the next images in place of those of the server."""

    next: list[Answer] = field(default_factory=list)

    def before(self, app: Any) -> Any:
        async def answer(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http" or scope["path"] != "/predict" or not self.next:
                await app(scope, receive, send)
                return
            status, table, headers = self.next.pop(0)
            await JSONResponse(table, status, headers)(scope, receive, send)

        return answer


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def files(folder: Path) -> Iterator[str]:
    """Yield the address of a server like `python -m http.server --directory FOLDER`."""
    handler = partial(_Files, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()
