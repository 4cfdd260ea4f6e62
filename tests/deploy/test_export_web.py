"""fullconv export --format web: its files, its messages, and what a browser makes of them."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import chromium, files, node_modules
from lively import lively
from PIL import Image

from fullconv.cli.main import run
from fullconv.data.io.extra_channels import ExtraInput
from fullconv.data.synthetic import scenes as drawn
from fullconv.deploy import export_web as web
from fullconv.deploy.export import MAX_DISAGREEMENT
from fullconv.inference.predictor import Predictor, load
from fullconv.models.model import Model, save_model

pytest.importorskip("onnxruntime")
SIZE = (150, 211)


@pytest.fixture(scope="module")
def model() -> Model:
    return lively()


@pytest.fixture(scope="module")
def command(model: Model, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that the command wrote, with a stand-in for the npm package, and its output."""
    place = tmp_path_factory.mktemp("web")
    (place / "package/dist").mkdir(parents=True)
    for name in web.RUNTIME:
        (place / "package/dist" / name).write_text(f"here is {name}")
    folder = save_model(model, place / "runs/town/model")
    words = ["--format", "web", "--out", str(place / "site"), "--ort", str(place / "package")]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert run(["export", str(folder), *words]) == 0
    return place / "site", printed.getvalue()


@pytest.mark.slow
def test_the_folder_and_how_to_look_at_it(command: tuple[Path, str], model: Model) -> None:
    site, text = command
    names = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert names == {"index.html", "model.json", "model.onnx", *(f"ort/{n}" for n in web.RUNTIME)}
    assert "labels are equal" in text
    assert f"next: python -m http.server --directory {site}" in text
    assert "A browser cannot read the model if it opens index.html as a file." in text
    about = json.loads((site / "model.json").read_text())
    assert about["name"] == "town"
    assert [each["name"] for each in about["classes"]] == list(model.labels.names)
    assert [tuple(each["color"]) for each in about["classes"]] == list(model.labels.colors)
    assert all(each["painted"] for each in about["classes"])  # streets have no background
    assert about["bytes"] == (site / "model.onnx").stat().st_size
    page = (site / "index.html").read_text()
    assert '<meta name="fullconv-engine" content="onnx">' in page
    assert "://" not in page.replace("http://www.w3.org/2000/svg", "")  # nothing from elsewhere


@pytest.fixture(scope="module")
def site(command: tuple[Path, str]) -> Path:
    """The folder with the npm package itself."""
    for name in web.RUNTIME:
        content = (node_modules() / web.PACKAGE / "dist" / name).read_bytes()
        (command[0] / "ort" / name).write_bytes(content)
    return command[0]


@pytest.mark.slow
def test_labels_in_the_browser_are_those_of_predict(
    site: Path, model: Model, tmp_path: Path
) -> None:
    predictor = Predictor(model, device="cpu", precision="float32")
    image = drawn.scene(4, size=SIZE)[0]
    Image.fromarray(image).save(tmp_path / "scene.png")
    Image.fromarray(image).save(tmp_path / "scene.jpg", quality=92)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(image).save(tmp_path / "turned.jpg", quality=92, exif=turned)
    with chromium() as browser, files(site) as address:
        page, faults = browser.new_page(), []
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(address)
        assert page.inner_text("#private").startswith("The model runs in this browser")
        for name, least in (("scene.png", 0.999), ("scene.jpg", 0.98), ("turned.jpg", 0.98)):
            page.set_input_files("#file", str(tmp_path / name))
            page.wait_for_function("name => result?.name === name", arg=name)
            with page.expect_download() as mask:
                page.click("#saveMask")
            ids = Image.open(mask.value.path())
            wanted = predictor(tmp_path / name)
            assert ids.mode == "P"
            palette = np.asarray(ids.getpalette()).reshape(-1, 3)
            assert palette[: len(model.labels)].tolist() == np.array(model.labels.colors).tolist()
            assert ids.size == (wanted.mask.shape[1], wanted.mask.shape[0])
            assert len(np.unique(wanted.mask)) > 3
            assert (np.asarray(ids) == wanted.mask).mean() >= least
            if name == "scene.png":
                confidence = page.evaluate("[...result.ids].map((_, at) => result.confidence(at))")
                assert np.allclose(confidence, wanted.confidence.ravel(), atol=1e-4)
                counts = {each["id"]: each["pixels"] for each in page.evaluate("result.classes")}
                assert counts == dict(enumerate(np.bincount(np.asarray(ids).ravel(), minlength=8)))
        page.evaluate("about.limits.pixels = 10000")  # so that any image is a large one
        page.set_input_files("#file", str(tmp_path / "scene.png"))
        page.wait_for_function("result.reduced")
        assert "Resized to 118 × 84 for the browser." in page.inner_text("#status")
        assert page.evaluate("[result.height, result.width, result.ids.length]") == [84, 118, 9912]
        assert not faults


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "least"), [("float16", 0.995), ("int8", 0.99)])
def test_smaller_files_give_the_labels_that_predict_gives_with_them(
    precision: str, least: float, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same file in the browser's runtime and in ONNX Runtime, whose kernels round otherwise."""
    # Random weights leave less between the classes than trained ones do.
    monkeypatch.setitem(MAX_DISAGREEMENT, precision, 0.25)
    scenes = [drawn.scene(seed, size=SIZE)[0] for seed in range(4, 8)]
    Image.fromarray(scenes[0]).save(tmp_path / "scene.png")
    runtime = node_modules() / web.PACKAGE / "dist"
    if precision == "float16":
        model = lively("tiny", 8)
    options = {"precision": precision, "images": scenes[1:], "ort": runtime}
    exported = web.export_web(model, tmp_path / "site", **options)
    wanted = load(exported.path)(tmp_path / "scene.png").mask
    with chromium() as browser, files(tmp_path / "site") as address:
        page = browser.new_page()
        page.goto(address)
        page.set_input_files("#file", str(tmp_path / "scene.png"))
        page.wait_for_function("result?.name === 'scene.png'")
        ids = np.array(page.evaluate("[...result.ids]")).reshape(SIZE)
    assert len(np.unique(wanted)) > 3
    assert (ids == wanted).mean() >= least


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_is_an_error(site: Path) -> None:
    with chromium() as browser, files(site) as address:
        page = browser.new_page()
        page.route("**/model.onnx", lambda route: route.fulfill(status=404, body=""))
        page.goto(address)
        page.wait_for_selector("#error:not([hidden])")
        assert page.inner_text("#error h2") == "The model cannot be loaded"
        assert "model.onnx: HTTP 404" in page.inner_text("#error .what")
        page.goto((site / "index.html").as_uri())
        page.wait_for_selector("#error:not([hidden])")
        assert page.inner_text("#error h2") == "This page was opened as a file"
        assert "python -m http.server --directory FOLDER" in page.inner_text("#error .try")


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ("--format web --with-labels", "--with-labels", "--format web   # without"),
        ("--format web --ort .", ". is not an unpacked onnxruntime-web: expected ort", "npm pack"),
        ("--format onnx --ort .", "--ort is for --format web, not for onnx", "--format web"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(
    words: str,
    message: str,
    hint: str,
    model_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert run(["export", str(model_folder), "--out", str(out), *words.split()]) == 1
    text = capsys.readouterr().err
    assert message in text
    assert f"try: {hint}" in text
    assert not out.exists()


def test_models_of_more_than_images_are_refused(tmp_path: Path) -> None:
    depth = ExtraInput("depth", 1, (0.0,), (1.0,))
    with pytest.raises(web.FullconvError, match=r"the model takes"):
        web.export_web(lively(extra_inputs=(depth,)), tmp_path)


def _npm(monkeypatch: pytest.MonkeyPatch, status: int, content: dict[str, str] | None) -> None:
    def pack(words: Any, cwd: Path, **_: Any) -> Any:
        assert words[1:] == ["pack", f"onnxruntime-web@{web.VERSION}", "--silent"]
        if content is not None:
            with tarfile.open(cwd / "onnxruntime-web.tgz", "w:gz") as archive:
                for name, text in content.items():
                    entry = tarfile.TarInfo(f"package/dist/{name}")
                    entry.size = len(text)
                    archive.addfile(entry, io.BytesIO(text.encode()))
        return subprocess.CompletedProcess(words, status, "", "npm error code ENOTFOUND\nmore\n")

    monkeypatch.setattr(web.shutil, "which", lambda _: "/usr/bin/npm")
    monkeypatch.setattr(web.subprocess, "run", pack)


def test_npm_fetches_the_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    _npm(monkeypatch, 0, {name: f"here is {name}" for name in web.RUNTIME})
    with web._ort_files(None) as folder:
        for name in web.RUNTIME:
            assert (folder / name).read_text() == f"here is {name}"


NAME = r"onnxruntime-web [\d.]+"
BY_HAND = f"tar xf onnxruntime-web-{web.VERSION}.tgz && fullconv export MODEL --format web --ort p"


@pytest.mark.parametrize(
    ("status", "content", "message"),
    [
        (1, None, rf"npm could not download {NAME}: npm error code ENOTFOUND\n  try: "),
        (0, {"other.mjs": ""}, f"the package {NAME} that npm downloaded lacks files: "),
        (None, None, BY_HAND),
    ],
    ids=["no network", "no such files", "no npm"],
)
def test_npm_that_fails_is_quoted(
    status: int | None, content: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _npm(monkeypatch, status or 0, content)
    if status is None:
        monkeypatch.setattr(web.shutil, "which", lambda _: None)
    with pytest.raises(web.FullconvError, match=message), web._ort_files(None):
        pass
