"""`fullconv serve` in processes of its own, and what it prints."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from commands import Cli
from lively import lively
from served import ask, pixels, png

from fullconv.data.synthetic import scenes as drawn
from fullconv.deploy.serve.server import GracefulServer
from fullconv.inference.predictor import load
from fullconv.models.model import save_model

SCENE = drawn.scene(1, size=(64, 96))[0]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "a street"
    save_model(lively(), folder / "model")
    return folder


@contextmanager
def started(*words: Any, env: dict[str, str] | None = None) -> Iterator[Any]:
    """Yield a process, and what it printed when it listened."""
    words = (sys.executable, "-m", "fullconv", "serve", *map(str, words), "--port", "0", "--json")
    environment = {**os.environ, **(env or {})}
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            pytest.fail(process.communicate()[1])
        try:
            yield process, json.loads(line)
        finally:
            process.kill()


def ended(process: Any) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def listens(port: int) -> bool:
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


def test_sigterm_lets_accepted_requests_finish(model: Path) -> None:
    content = png(SCENE)
    with started(model, "--key", "sesame") as (process, ready):
        assert ready["model"] == "a street"
        parts = urlsplit(ready["address"])
        assert parts.hostname == "127.0.0.1"
        assert ask(ready["address"], path="model", headers={}).status == 401
        head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
        head += f"Authorization: Bearer sesame\r\nContent-Length: {len(content)}\r\n\r\n"
        with socket.create_connection((parts.hostname, parts.port or 0), timeout=60) as line:
            line.sendall(head.encode() + content[:500])
            while ask(ready["address"], path="health").status != 200:
                pass
            process.send_signal(signal.SIGTERM)
            while listens(parts.port or 0):  # until nothing new is taken
                assert process.poll() is None
            line.sendall(content[500:])
            answer = b""
            while part := line.recv(1 << 16):
                answer += part
        assert ended(process) == (0, "", "Stopped. All accepted requests were completed.\n")
    head_of_answer, body = answer.split(b"\r\n\r\n", 1)
    assert head_of_answer.startswith(b"HTTP/1.1 200 OK")
    assert np.array_equal(pixels(body), load(model, device="cpu")(SCENE).mask)


def test_an_exported_file_is_served_without_torch(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    source = Path(__file__).parents[2] / "src"
    places = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{source}", "FULLCONV_KEY": "sesame"}
    with started(exported, env=places) as (process, ready):
        assert ask(ready["address"], png(SCENE)).status == 401
        key = {"Content-Type": "image/png", "Authorization": "Bearer sesame"}
        mask = pixels(ask(ready["address"], png(SCENE), headers=key).content)
        process.send_signal(signal.SIGINT)
        assert ended(process)[::2] == (0, "Stopped. All accepted requests were completed.\n")
    assert np.array_equal(mask, load(exported)(SCENE).mask)


@pytest.mark.parametrize(
    ("host", "key", "noted"),
    [("0.0.0.0", "", True), ("0.0.0.0", "x", False), ("localhost", "", False)],
)
def test_a_server_without_a_key_is_noted(
    cli: Cli, model: Path, monkeypatch: pytest.MonkeyPatch, host: str, key: str, noted: bool
) -> None:
    monkeypatch.setattr(GracefulServer, "run", lambda self, **_: self._on_ready())
    monkeypatch.setenv("FULLCONV_KEY", key)
    code, out, err = cli("serve", model, "--host", host, "--port", 0)
    assert (code, "note: anyone who reaches http://0.0.0.0:" in err) == (0, noted)
    listens, ahead = out.splitlines()
    address = listens.removeprefix("Serving a street at ").removesuffix(" (Ctrl-C to stop)")
    words = shlex.split(ahead.removeprefix("next: "))
    assert words[:3] == ["curl", "-H", "Content-Type: image/jpeg"]
    assert words[-3:] == [f"{address}/predict", ">", "mask.png"]
    assert ("Authorization: Bearer KEY" in words) == bool(key)


def test_a_port_that_is_taken(cli: Cli, model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, _, err = cli("serve", model, "--port", port)
    assert code == 1
    assert f"port {port} of 127.0.0.1 is in use by another program.\n  try: --port 0" in err


def test_packages_that_are_missing(cli: Cli, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, _, err = cli("serve", model)
    assert (code, "a server needs uvicorn, which is not installed." in err) == (1, True)
    assert "try: pip install fastapi uvicorn python-multipart" in err
