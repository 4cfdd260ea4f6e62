"""The server over a real connection."""

from __future__ import annotations

import base64
import io
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import numpy as np
import pytest
import requests
from lively import lively
from photos import photo
from PIL import Image
from served import PNG, Held, Reply, ask, bomb, pixels, png, serving

import fullconv
from fullconv.core.labels import Labels
from fullconv.data.synthetic import scenes as drawn
from fullconv.deploy.serve import service
from fullconv.deploy.serve.uploads import Limits, decode_image
from fullconv.inference.exported import load_exported
from fullconv.inference.result_files import output_path

SCENE = drawn.scene(1, size=(64, 96))[0]
LIMITS = Limits(bytes=1 << 16, pixels=40_000, seconds=20)


@pytest.fixture(scope="module")
def model() -> Held:
    heads = {"material": Labels(("hard", "soft"))}
    model = Held(lively(heads=heads, head="things"), device="cpu", precision="float32")
    model.may.set()
    return model


@pytest.fixture(scope="module")
def address(model: Held) -> Iterator[str]:
    with serving(model, LIMITS) as url:
        yield url


@pytest.fixture(scope="module")
def schema(address: str) -> Any:
    return ask(address, path="openapi.json").table


def valid(reply: Reply, schema: Any, name: str) -> Any:
    """Return the response if it agrees with the OpenAPI document."""
    whole = {**schema, "$ref": f"#/components/schemas/{name}"}
    jsonschema.Draft202012Validator(whole).validate(reply.table)
    return reply.table


@pytest.mark.parametrize("kind", ["mask", "overlay", "color"])
def test_images_are_those_that_predict_writes(
    address: str, model: Held, tmp_path: Path, kind: str
) -> None:
    result, path = model.segment(SCENE), output_path(tmp_path / "a", kind)
    result.save(path, kind)
    media = "image/jpeg" if kind == "overlay" else "image/png"
    reply = ask(address, png(SCENE), f"predict?output={kind}")
    assert (reply.status, reply.headers["content-type"]) == (200, media)
    assert reply.content == path.read_bytes()
    assert len(np.unique(result.mask)) > 2


def test_ways_to_send_an_image(address: str, model: Held) -> None:
    wanted = model.segment(SCENE).mask
    content = png(SCENE)
    for headers in (PNG, {"Content-Type": "image/x"}, {"Content-Type": "application/octet-stream"}):
        assert np.array_equal(pixels(ask(address, content, headers=headers).content), wanted)
    pieces = (content[at : at + 100] for at in range(0, len(content), 100))  # without a length
    form = {"files": {"image": ("a.png", content)}}
    for options in (form, {"data": pieces, "headers": PNG}):
        response = requests.post(f"{address}predict", timeout=60, **options)  # type: ignore[arg-type]
        assert np.array_equal(pixels(response.content), wanted)


def test_json(address: str, model: Held, schema: Any) -> None:
    result = model.segment(SCENE)
    reply = ask(address, png(SCENE), "predict?output=json&include=ids,mask,confidence")
    table = valid(reply, schema, "PredictResponse")
    shares = {each["name"]: each["share"] for each in table["classes"] if each["pixels"]}
    assert shares == pytest.approx({name: share for name, share in result.area.items() if share})
    sent = {name: base64.b64decode(table[name].split(",")[1]) for name in ("ids", "confidence")}
    assert np.array_equal(pixels(sent["ids"]), result.mask)
    assert np.abs(pixels(sent["confidence"]) - 255.0 * result.confidence).max() <= 0.5001
    assert sum(each["pixels"] for each in table["heads"]["material"]) == SCENE[..., 0].size
    head = ask(address, png(SCENE), "predict?output=json&include=ids&head=material").table
    ids = pixels(base64.b64decode(head["ids"].split(",")[1]))
    assert np.array_equal(ids, result.heads["material"].mask)
    assert "confidence" not in head


def test_forms_are_decoded_beside_other_requests(
    model: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, go_on = threading.Event(), threading.Event()

    def decode_slowly(*arguments: Any) -> np.ndarray:
        started.set()
        assert go_on.wait(20)  # until the server has sent another response
        return decode_image(*arguments)

    monkeypatch.setattr(service, "decode_image", decode_slowly)
    files = {"image": ("a.png", png(SCENE))}
    with serving(model, LIMITS) as url, ThreadPoolExecutor(1) as clients:
        sent = clients.submit(requests.post, f"{url}predict", files=files, timeout=60)
        assert started.wait(20)
        assert ask(url, path="health").status == 200
        go_on.set()
        assert np.array_equal(pixels(sent.result().content), model.segment(SCENE).mask)


@pytest.mark.slow
def test_a_model_without_scores(exported_labels: Path) -> None:
    model = load_exported(exported_labels)
    mask = model.segment(SCENE).mask
    with serving(model, LIMITS) as url:
        document = ask(url, path="openapi.json").table
        assert not valid(ask(url, path="model"), document, "ModelInfo")["confidence"]
        parameters = document["paths"]["/predict"]["post"]["parameters"]
        schemas = {each["name"]: each["schema"] for each in parameters}
        assert re.search(schemas["include"]["pattern"], "mask,ids")
        assert not re.search(schemas["include"]["pattern"], "ids,confidence")
        assert np.array_equal(pixels(ask(url, png(SCENE)).content), mask)
        table = ask(url, png(SCENE), "predict?output=json&include=ids,mask").table
        ids = Image.open(io.BytesIO(base64.b64decode(table["ids"].split(",")[1])))
        assert ids.mode == "L"
        assert np.array_equal(np.asarray(ids), mask)
        reply = ask(url, png(SCENE), "predict?output=json&include=ids,mask,confidence")
    assert reply.error == (
        422,
        "the model returns labels without scores, so it has no confidence.",
        "/predict?output=json&include=ids,mask   # or a file exported without --with-labels",
    )


def test_many_at_once_get_their_own_labels(address: str, model: Held) -> None:
    sizes = [(64, 96), (64, 96), (50, 33), (64, 96), (33, 50), (64, 96)] * 4
    scenes = [drawn.scene(seed, size=size)[0] for seed, size in enumerate(sizes)]
    with ThreadPoolExecutor(len(scenes)) as clients:
        replies = list(clients.map(lambda scene: ask(address, png(scene)), scenes))
    for reply, scene in zip(replies, scenes, strict=True):
        assert np.array_equal(pixels(reply.content), model.segment(scene).mask)


def test_facts(address: str, schema: Any) -> None:
    about = valid(ask(address, path="model"), schema, "ModelInfo")
    assert [each["name"] for each in about["classes"]] == list(drawn.LABELS.names)
    assert [tuple(each["color"]) for each in about["classes"]] == list(drawn.LABELS.colors)
    assert all(each["painted"] for each in about["classes"])  # streets have no background
    assert [each["name"] for each in about["heads"]["material"]["classes"]] == ["hard", "soft"]
    facts = {
        "name": "street",
        "confidence": True,
        "backbone": "test_resnet",
        "limits": {"bytes": 1 << 16, "pixels": 40_000, "seconds": 20.0},
        "version": fullconv.__version__,
    }
    assert facts.items() <= about.items()
    assert ask(address, path="health").table == {"status": "ok", "waiting": 0}
    page = ask(address, path="")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert b'<meta name="fullconv-engine" content="server">' in page.content


def test_metrics_count_responses(address: str) -> None:
    def counted(status: int) -> int:
        text = ask(address, path="metrics").content.decode()
        lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
        return float(lines.get(f'fullconv_requests_total{{status="{status}"}}', 0))

    before = counted(200), counted(415)
    ask(address, png(SCENE))
    ask(address, b"words")
    ask(address, path="health")
    assert (counted(200), counted(415)) == (before[0] + 1, before[1] + 1)


def test_refusals(address: str, schema: Any) -> None:
    scene, tall = png(SCENE), png(np.zeros((201, 200), "u1"))
    large = png(np.random.default_rng(0).integers(0, 256, (200, 199, 3), np.uint8))
    text, form = {"Content-Type": "text/plain"}, {"Content-Type": "multipart/form-data"}
    for status, start, content, path, headers in (
        (404, "GET /nothing: Not Found.", None, "nothing", PNG),
        (405, "GET /predict: Method Not Allowed.", None, "predict", PNG),
        (413, "the upload has more than 65536 bytes", large, "predict", PNG),
        (413, "image in the upload has more pixels", bomb(), "predict", PNG),
        (413, "the image has 201 x 200 pixels", tall, "predict", PNG),
        (415, "image in the upload cannot be read", b"words", "predict", PNG),
        (415, "the upload has the type 'text/plain'", b"a", "predict", text),
        (422, "the upload is empty (0 bytes)", b"", "predict", PNG),
        (422, "image in the upload cannot be read", scene[:-99], "predict", PNG),
        (422, "output=words: Input should be 'mask'", scene, "predict?output=words", PNG),
        (422, "include=ids,x: String should match", scene, "predict?include=ids,x", PNG),
        (422, "the model has no head 'x'", scene, "predict?head=x", PNG),
        (422, "the form cannot be read", b"a", "predict", form),
    ):
        reply = ask(address, content, path, headers)
        assert reply.error[0] == status
        assert reply.error[1].startswith(start)
        assert reply.error[2]
        valid(reply, schema, "ErrorResponse")
    assert ask(address, path="predict").headers["allow"] == "POST"


def test_a_key(model: Held) -> None:
    with serving(model, LIMITS, key="sesame") as url:
        for path, content in (("predict", png(SCENE)), ("model", None), ("metrics", None)):
            reply = ask(url, content, path)
            assert reply.error[:2] == (401, "the key is missing or wrong.")
            assert reply.headers["www-authenticate"] == "Bearer"
            given = {**PNG, "Authorization": "Bearer sesame"}
            assert ask(url, content, path, given).status == 200
        for path in ("", "health", "openapi.json"):  # they reveal nothing of the model
            assert ask(url, path=path).status == 200
        ways = ask(url, path="openapi.json").table["components"]["securitySchemes"]
        assert {way["scheme"] for way in ways.values()} == {"bearer"}


def test_a_full_queue(model: Held) -> None:
    model.working.clear()
    model.may.clear()
    with serving(model, Limits(waiting=1)) as url, ThreadPoolExecutor(2) as clients:
        first = clients.submit(ask, url, png(photo(30, 31)))
        assert model.working.wait(30)
        second = clients.submit(ask, url, png(photo(30, 32)))
        while ask(url, path="health").table["waiting"] == 0:
            assert not second.done()
        reply = ask(url, png(photo(30, 33)))
        message = "the queue is full: 1 image is waiting."
        assert reply.error == (503, message, "send the request again")
        assert int(reply.headers["retry-after"]) > 0
        model.may.set()
        assert first.result().status == second.result().status == 200


def test_cut_connections_leave_nothing_behind(address: str, model: Held) -> None:
    content, parts = png(SCENE), urlsplit(address)
    length = f"Content-Length: {len(content)}"
    head = "\r\n".join(["POST /predict HTTP/1.1", "Host: x", "Content-Type: image/png", length])
    head += "\r\n\r\n"
    for sent in (head.encode()[:30], head.encode() + content[:100], head.encode() + content):
        for _ in range(5):
            with socket.create_connection((parts.hostname or "", parts.port or 0)) as line:
                line.sendall(sent)
    reply = ask(address, content)
    assert np.array_equal(pixels(reply.content), model.segment(SCENE).mask)
    counted = ask(address, path="metrics").content.decode()
    assert 'status="499"' in counted
    assert 'status="500"' not in counted


def test_a_bug_is_reported(model: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    def segment(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(model, "segment", segment)
    with serving(model, LIMITS) as url:
        reply = ask(url, png(SCENE))
    message = f"this is a bug in fullconv {fullconv.__version__}."
    assert reply.error == (500, message, "report what the server printed")


IMAGES = """
import io, schemathesis
from hypothesis import strategies as st
from PIL import Image

def image(size, kind):
    file = io.BytesIO()
    Image.new("RGB", size, (9, 90, 200)).save(file, kind)
    return file.getvalue()

found = st.builds(image, st.tuples(*[st.integers(1, 40)] * 2), st.sampled_from(["PNG", "JPEG"]))
schemathesis.openapi.media_type("application/octet-stream", found)
schemathesis.openapi.media_type("image/*", found)
schemathesis.openapi.format("binary", found)
"""


@pytest.mark.slow
@pytest.mark.parametrize("key", ["", "sesame"])
def test_every_answer_is_as_the_openapi_says(
    model: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """Schemathesis makes requests of all kinds out of the document, and checks the responses: with
    any bytes as an image, which no schema can tell from one, and with images."""
    seen: set[tuple[str, int]] = set()

    def noting(app: Any) -> Any:
        async def run(scope: Any, receive: Any, send: Any) -> None:
            async def note(message: Any) -> None:
                if message["type"] == "http.response.start":
                    seen.add((scope["path"], message["status"]))
                await send(message)

            await app(scope, receive, note)

        return run

    options = ["--checks=all", "--max-examples=10", "--seed=1", "--generation-database=none"]
    if key:
        (tmp_path / "images.py").write_text(IMAGES, encoding="utf-8")
        monkeypatch.setenv("SCHEMATHESIS_HOOKS", "images")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        options.append(f"--header=Authorization: Bearer {key}")
    else:
        options.append("--exclude-checks=positive_data_acceptance")
    with serving(model, LIMITS, key, noting) as url:
        words = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}openapi.json", *options]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    expected = {("/predict", 200 if key else 415), ("/predict", 422)}
    assert expected | {("/model", 200), ("/metrics", 200), ("/", 200)} <= seen
    assert not [status for _, status in seen if status >= 500]
