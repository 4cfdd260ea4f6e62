"""The clients of benchmarks/serve.py find the known faults of servers, and no others."""

from __future__ import annotations

import io
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photos import photo
from PIL import Image
from scripts import script
from served import png

from fullconv.core.labels import Labels
from fullconv.deploy.serve.responses import PredictRequest, encode_response
from fullconv.inference.segmentation import Segmentation

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
MAX_BYTES, MAX_PIXELS, MAX_SECONDS = 100_000, 20_000, 0.5


load, serving, serve = (
    script(f"benchmarks/{name}.py", f"{name}_of_benchmarks")
    for name in ("load", "serving", "serve")
)


def uploads() -> list[Any]:
    """Return a JPEG and a PNG of 120 x 160."""
    image = photo(120, 160, seed=1)
    return [load.Upload(f"a.{kind}", png(image, kind), f"image/{kind}") for kind in ("jpeg", "png")]


@cache
def bad_uploads() -> Any:
    return load.bad_uploads(uploads(), MAX_BYTES, MAX_PIXELS)


class Honest(BaseHTTPRequestHandler):
    """Answers each kind of request as it should; a result is the image's size."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        try:
            status, content = self.judged(self.body())
            self.say(status, content)
        except OSError:
            self.close_connection = True

    def body(self) -> bytes | None:
        """The upload; None where it takes too long."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        began, content = time.monotonic(), b""
        while len(content) < int(self.headers["Content-Length"]):
            if time.monotonic() - began > MAX_SECONDS:
                self.close_connection = True
                return None
            part = self.rfile.read1(int(self.headers["Content-Length"]) - len(content))
            if not part:
                raise ConnectionResetError
            content += part
        return content

    def judged(self, content: bytes | None) -> tuple[int, bytes]:
        if content is None:
            return 408, b""
        if len(content) > MAX_BYTES:
            return 413, b""
        if not content:
            return 422, b""
        try:
            with Image.open(io.BytesIO(content)) as image:
                if image.width * image.height > MAX_PIXELS:
                    return 413, b""
                image.load()
                return 200, f"{image.size}".encode()
        except OSError as error:
            return (415 if "identify" in str(error) else 422), b""

    def say(self, status: int, content: bytes) -> None:
        if status != 200:
            content = json.dumps({"error": f"no {status}", "try": "again"}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if status == 503:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[tuple[str, int]]:
    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:  # clients that leave are part of it
            pass

    with Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield ("127.0.0.1", server.server_address[1])
        server.shutdown()
        thread.join()


def sent(handler: type[BaseHTTPRequestHandler], seconds: float = 1.5) -> Any:
    """Return what the clients count."""
    with served(handler) as address, pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "_PAUSE", 0.05)
        clients = load.Load(address, uploads(), bad_uploads(), MAX_SECONDS)
        lasted = clients.run(seconds, 6)
        assert lasted == pytest.approx(seconds, abs=1)
        return clients.tally


def test_a_server_without_faults_has_none() -> None:
    tally = sent(Honest)
    assert (tally.unexpected, tally.examples) == (0, [])
    assert {kind for kind, _ in tally.statuses} == set(load.KINDS)
    assert tally.statuses["image", 200] == sum(tally.often.values()) >= sum(tally.done.values())
    assert set(tally.kept.values()) == {b"(160, 120)"}
    assert set(tally.done) == {(p.name, want) for p in uploads() for want in load.ANSWERS}
    assert len(tally.seconds) == sum(tally.done.values()) > 100


def test_one_request_in_twenty_is_broken() -> None:
    counts = {kind: count for kind, (count, _) in load.KINDS.items()}
    broken = counts["cut short"] + counts["text"] + counts["empty"]
    assert broken / sum(counts.values()) == 0.05


class Failing(Honest):
    def judged(self, content: bytes | None) -> tuple[int, bytes]:
        status, content = super().judged(content)
        return (500, b"") if status == 200 else (status, content)


class Credulous(Honest):
    def judged(self, content: bytes | None) -> tuple[int, bytes]:
        return 200, b"ok"


class Rude(Honest):
    """Refuses without a reason."""

    def say(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


class Closing(Honest):
    """Does not answer images."""

    def say(self, status: int, content: bytes) -> None:
        if status == 200:
            raise ConnectionResetError
        super().say(status, content)


class Forgetful(Honest):
    def judged(self, content: bytes | None) -> tuple[int, bytes]:
        status, content = super().judged(content)
        return (503 if status == 200 else status), content

    def send_header(self, keyword: str, value: str) -> None:
        if keyword != "Retry-After":
            super().send_header(keyword, value)


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (Failing, r"image: 500 b'.*no 500"),
        (Credulous, r"(text|empty|cut short|too many \w+|slow): 200 b'ok'"),
        (Rude, r"(text|empty|cut short|too many \w+|slow): \d+ without error and try: b''"),
        (Closing, r"image: no answer: (RemoteDisconnected|ConnectionResetError)"),
        (Forgetful, r"image: 503 with Retry-After None"),
    ],
)
def test_each_fault_is_found(handler: type[BaseHTTPRequestHandler], message: str) -> None:
    tally = sent(handler, 0.5)
    assert tally.unexpected >= len(tally.examples) > 0
    assert [example for example in tally.examples if not re.match(message, example)] == []


def test_a_slow_upload_that_is_refused_late_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "LATE", 0.2)

    class Patient(Honest):
        def say(self, status: int, content: bytes) -> None:
            time.sleep(0.5 if status == 408 else 0)
            super().say(status, content)

    with served(Patient) as address:
        clients = load.Load(address, uploads(), {}, MAX_SECONDS)
        clients._slowly(clients.connect(), uploads()[0], "mask")
    assert clients.tally.statuses["slow", 408] == 1
    assert re.match(r"slow: 408 came \d\.\d s after the limit", clients.tally.examples[0])


def test_results_that_differ_are_kept_apart_and_those_that_do_not_are_counted() -> None:
    tally = load.Tally()
    for seconds, ids in ((0.25, "x"), (1.5, "x"), (0.25, "y")):
        tally.keep("a", "json", json.dumps({"seconds": seconds, "ids": ids}).encode())
    tally.keep("a", "mask", b"m")
    tally.keep("b", "mask", b"m")
    assert sorted(tally.often.values()) == [1, 1, 1, 2]
    assert len(tally.kept) == 4


def test_a_client_waits_after_503() -> None:
    class Busy(Honest):
        def judged(self, content: bytes | None) -> tuple[int, bytes]:
            return 503, b""

    with served(Busy) as address:
        clients = load.Load(address, uploads(), {}, MAX_SECONDS)
        with closing(clients.connect()) as connection:
            assert clients.ask(connection, "image", uploads()[0], "mask") == load.PATIENCE


def test_the_black_png_is_valid_and_small() -> None:
    content = load.black_png(1234, 567)
    with Image.open(io.BytesIO(content)) as image:
        assert (image.size, image.mode, image.getextrema()) == ((567, 1234), "1", (0, 0))
    assert len(content) < 1000


def test_a_form_holds_the_image() -> None:
    upload = uploads()[0]
    form = load.as_form(upload)
    assert form.content.count(upload.content) == 1
    edge = form.kind.partition("boundary=")[2].encode()
    assert form.content.startswith(b"--" + edge + b"\r\n")
    assert form.content.endswith(b"--" + edge + b"--\r\n")


@pytest.fixture
def result(tmp_path: Path) -> tuple[Segmentation, np.ndarray, Path]:
    """A result, its confidence, and the folder with its files."""
    ids = np.random.default_rng(0).integers(0, 3, (20, 30)).astype(np.uint8)
    confidence = np.linspace(0.1, 0.9, 600, dtype=np.float32).reshape(20, 30)
    segmentation = Segmentation(ids, Labels(("sky", "road", "car")), photo(20, 30))
    segmentation.save(tmp_path / "a_mask.png", "mask")
    segmentation.save(tmp_path / "a_overlay.jpg", "overlay")
    gray = np.round(255 * confidence).astype(np.uint8)
    Image.fromarray(gray).save(tmp_path / "a_confidence.png")
    return segmentation, confidence, tmp_path


ASKED = (
    PredictRequest("mask"),
    PredictRequest("overlay"),
    PredictRequest("json", ("ids", "confidence")),
)


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: asked.output)
def test_a_result_is_compared_with_the_files(
    asked: PredictRequest, result: tuple[Segmentation, np.ndarray, Path]
) -> None:
    segmentation, confidence, folder = result
    tally = load.Tally()
    for _ in range(2):
        response = encode_response(segmentation, confidence, asked, 0.5)
        tally.keep("a.png", asked.output, response.body)
    assert serve.wrong_answers(tally, folder) == (0, [])
    other = segmentation.mask.copy()
    other[7, 9] = (other[7, 9] + 1) % 3
    wrong = Segmentation(other, segmentation.labels, segmentation.image)
    for _ in range(3):
        response = encode_response(wrong, confidence, asked, 0.5)
        tally.keep("a.png", asked.output, response.body)
    assert serve.wrong_answers(tally, folder) == (3, [f"a.png {asked.output} x 3"])


def test_confidence_may_differ_by_one_step(
    result: tuple[Segmentation, np.ndarray, Path],
) -> None:
    segmentation, confidence, folder = result
    for steps, equal in ((1, True), (2, False)):
        confidence[3, 4] += 1 / 255
        content = encode_response(segmentation, confidence, ASKED[2], 0.5).body
        assert serve.equal(content, "json", folder / "a") is equal, steps


def test_the_sequential_time_is_that_of_the_results_that_the_server_gave() -> None:
    seconds = {"a mask": [1.0, 2.0], "a json": [10.0, 20.0], "b mask": [100.0, 200.0]}
    done = Counter({("a", "mask"): 3, ("b", "mask"): 1})
    assert serve.sum_of(seconds, done) == [103.0, 206.0]


def test_memory_that_grows_differs_from_memory_that_is_released() -> None:
    seconds = np.arange(0, 60.25, 0.25)
    steady = np.full_like(seconds, 1e8)
    steady[(seconds > 47) & (seconds < 59)] *= 3
    facts = serving.memory_facts(list(zip(seconds, steady, strict=True)))
    assert serve.growth(facts).ratio.median == 1
    assert (facts["start"], facts["end"], facts["highest"]) == (100, 100, pytest.approx(300))
    facts = serving.memory_facts(list(zip(seconds, 1e8 + 1e6 * seconds, strict=True)))
    assert facts["a_minute_in_the_second_half"] == pytest.approx(60)
    assert serve.growth(facts).ratio.median == pytest.approx(148 / 124)
    assert serve.growth(facts).verdict == "short"
    assert facts["every_2_s"][:3] == [100, 102, 104]


def test_the_batch_size_is_read_from_the_metrics() -> None:
    assert serving.batch_size("fullconv_batch_size_sum 9\nfullconv_batch_size_count 4\n") == 2.25
