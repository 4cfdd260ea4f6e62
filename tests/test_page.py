"""The web page in a browser, and the server behind it."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Refusals, chromium, node_modules
from lively import lively
from PIL import Image
from served import png, serving

from fullconv.core.labels import Labels
from fullconv.data.synthetic import scenes as drawn
from fullconv.deploy.serve.uploads import Limits
from fullconv.inference.exported import load_exported
from fullconv.inference.predictor import Predictor
from fullconv.inference.segmentation import Segmentation
from fullconv.models.model import Model

SIZE = (150, 212)
GIVE = """([content, name]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, {type: "image/png"}));
  const give = (event) => document.body.dispatchEvent(event);
  %s
}"""
DROP = (
    GIVE
    % """for (const kind of ["dragenter", "dragover", "drop"])
    give(new DragEvent(kind, {dataTransfer: data, bubbles: true}));"""
)
PASTE = GIVE % """give(new ClipboardEvent("paste", {clipboardData: data, bubbles: true}));"""
SHOWN = "name => result?.name === name && document.querySelector('#busy').hidden"
CANVAS = """(id) => {
  const canvas = document.getElementById(id);
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
  copy.drawImage(canvas, 0, 0);
  const {data} = copy.getImageData(0, 0, canvas.width, canvas.height);
  return btoa(Array.from(data, (value) => String.fromCharCode(value)).join(""));
}"""


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(lively(), device="cpu", precision="float32")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "my scene.png"
    Image.fromarray(drawn.scene(4, size=SIZE)[0]).save(path)
    return path


@pytest.fixture(scope="module")
def wanted(predictor: Predictor, scene: Path) -> Segmentation:
    result: Segmentation = predictor(scene)
    assert len(np.unique(result.mask)) > 3
    return result


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def refusals() -> Refusals:
    return Refusals()


@pytest.fixture(scope="module")
def address(predictor: Predictor, refusals: Refusals) -> Iterator[str]:
    limits = Limits(bytes=1 << 22, pixels=10**7)
    with serving(predictor, limits, wrap=refusals.before) as url:
        yield url


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    with opened(browser, address) as page:
        yield page


@contextmanager
def opened(browser: Any, address: str, **options: Any) -> Iterator[Any]:
    """Open the page in a context of its own; it must print nothing on its console."""
    context = browser.new_context(viewport={"width": 1200, "height": 800}, **options)
    faults: list[str] = []
    page = context.new_page()
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    try:
        page.goto(address)
        page.wait_for_function("about !== null || problem !== null")
        yield page
    finally:
        context.close()
    # A browser itself reports every response that is no 2xx, or that never came.
    assert [fault for fault in faults if "Failed to load resource" not in fault] == []


def give(page: Any, path: Path, script: str = DROP) -> None:
    page.evaluate(script, [base64.b64encode(path.read_bytes()).decode(), path.name])
    page.wait_for_function(SHOWN, arg=path.name)


def canvas(page: Any, name: str) -> np.ndarray:
    """Return the values (H, W, 4) of a canvas."""
    values = np.frombuffer(base64.b64decode(page.evaluate(CANVAS, name)), np.uint8)
    return values.reshape(*SIZE, 4)


def at(page: Any, row: int, column: int) -> tuple[float, float]:
    """Return where a pixel is on the screen."""
    box = page.locator("#stage").bounding_box()
    x = box["x"] + (column + 0.5) / SIZE[1] * box["width"]
    return x, box["y"] + (row + 0.5) / SIZE[0] * box["height"]


def color_table(segmentation: Segmentation) -> np.ndarray:
    """Return the class color of each pixel, (H, W, 3)."""
    return np.array(segmentation.labels.colors)[segmentation.mask]


@pytest.mark.parametrize("script", [DROP, PASTE], ids=["dropped", "pasted"])
def test_an_image_gets_its_overlay_and_its_classes(
    page: Any, script: str, scene: Path, wanted: Segmentation
) -> None:
    page.click("#drop .sample")
    page.wait_for_function(SHOWN, arg="street.png")
    assert page.evaluate("[result.width, result.height]") == [768, 480]
    give(page, scene, script)
    over = canvas(page, "over")
    assert np.array_equal(over[..., :3], color_table(wanted))
    assert (over[..., 3] == 255).all()
    assert np.array_equal(canvas(page, "under")[..., :3], wanted.image)
    counts = np.bincount(wanted.mask.ravel(), minlength=len(wanted.labels))
    order = sorted(np.flatnonzero(counts), key=lambda k: (-counts[k], k))
    status = page.inner_text("#status")
    assert re.fullmatch(rf"{len(order)} classes found in \d+\.\d s\.", status)
    page.locator("#opacity").fill("25")
    assert page.evaluate("getComputedStyle(document.getElementById('over')).opacity") == "0.25"
    # Largest first, and none is clipped.
    rows = page.locator("#classes button")
    names = [wanted.labels.names[k] for k in order]
    assert rows.locator(".name").all_inner_texts() == names
    assert rows.locator(".pixels").all_inner_texts() == [f"{counts[k]:,} px" for k in order]
    share = counts[order[0]] / wanted.mask.size
    assert rows.nth(0).locator(".share").inner_text() == f"{100 * share:.0f}%"
    size = "(({scrollHeight, clientHeight}) => scrollHeight <= clientHeight)"
    assert page.evaluate(f"{size}(document.getElementById('classes'))")
    for k in np.flatnonzero(counts == 0):
        assert wanted.labels.names[k] in page.inner_text("#missing")


def test_the_pointer_and_the_keys_name_the_class(
    page: Any, scene: Path, wanted: Segmentation
) -> None:
    give(page, scene)
    for row, column in ((5, 7), (80, 100), (149, 190), (60, 211)):
        page.mouse.move(*at(page, row, column))
        name, sure = page.locator("#tooltip b"), page.locator("#tooltip span:last-child")
        assert name.inner_text() == wanted.labels.names[wanted.mask[row, column]]
        share = float(sure.inner_text().removesuffix("%")) / 100
        assert share == pytest.approx(wanted.confidence[row, column], abs=0.0075)
    page.focus("#stage")
    for key in ("ArrowUp", "ArrowLeft", "Shift+ArrowDown", "Shift+ArrowRight"):
        page.keyboard.press(key)
    row, column = SIZE[0] // 2 + 1, SIZE[1] // 2 - 5 + 1
    spoken = page.inner_text("#point")
    assert spoken.startswith(f"{wanted.labels.names[wanted.mask[row, column]]}, ")
    assert spoken.endswith(f"%, column {column}, row {row}")
    box = page.locator("#marker").bounding_box()
    center = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert center == pytest.approx(at(page, row, column), abs=1)
    page.keyboard.press("Escape")
    assert page.locator("#marker").is_hidden()


def test_a_single_class_and_downloads(page: Any, scene: Path, wanted: Segmentation) -> None:
    give(page, scene)
    before, row = canvas(page, "over"), page.locator("#classes button").nth(1)
    name = row.locator(".name").inner_text()
    row.focus()
    page.keyboard.press("Enter")
    inside, over = wanted.mask == wanted.labels.index(name), canvas(page, "over")
    assert np.array_equal(over[inside], before[inside])
    assert (over[~inside, :3] < 40).all()  # in the shade
    assert (over[~inside, 3] == 140).all()
    assert row.get_attribute("aria-pressed") == "true"
    assert page.inner_text("#status") == f"Only {name} is shown."
    page.click("#all")
    assert np.array_equal(canvas(page, "over"), before)
    assert page.locator("#all").is_hidden()
    files = {}
    for button in ("#saveMask", "#saveOverlay", "#saveJson"):
        with page.expect_download() as download:
            page.click(button)
        files[download.value.suggested_filename] = Path(download.value.path()).read_bytes()
    assert set(files) == {"my scene_mask.png", "my scene_overlay.png", "my scene.json"}
    assert files["my scene_mask.png"] == wanted.encoded("mask")
    overlay = np.asarray(Image.open(io.BytesIO(files["my scene_overlay.png"])).convert("RGB"))
    assert np.abs(0.6 * color_table(wanted) + 0.4 * wanted.image - overlay).max() <= 2
    table = json.loads(files["my scene.json"])
    shares = {each["name"]: each["share"] for each in table["classes"] if each["pixels"]}
    assert shares == pytest.approx({name: area for name, area in wanted.area.items() if area})


def test_a_black_background_is_clear_unless_it_is_alone(
    browser: Any, predictor: Predictor, scene: Path, wanted: Segmentation
) -> None:
    model, most = predictor.model, int(np.bincount(wanted.mask.ravel()).argmax())
    names, colors = list(model.labels.names), list(model.labels.colors)
    names[most], colors[most] = "background", (0, 0, 0)
    labels = Labels(tuple(names), tuple(colors), model.labels.ignore_index)
    backed = Predictor(Model(model.network, labels, model.card), device="cpu", precision="float32")
    result = backed(scene)
    bare, table = result.mask == labels.index("background"), color_table(result)
    with serving(backed) as url, opened(browser, url) as page:
        give(page, scene)
        row = page.locator("#classes button").nth(0)
        for palette in ("safe", "model"):
            page.select_option("#colors", palette)
            over = canvas(page, "over")
            assert (over[bare, 3] == 0).all()
            assert (over[~bare, 3] == 255).all()
            assert (palette == "safe") | np.array_equal(over[~bare, :3], table[~bare])
            row.click()
            over = canvas(page, "over")
            safe = page.evaluate(f"color({most})")
            assert (over[bare, :3] == (safe if palette == "safe" else (255, 255, 255))).all()
            assert (over[~bare, 3] == 140).all()
            page.click("#all")
        with page.expect_download() as download:
            page.click("#saveOverlay")
        saved = np.asarray(Image.open(download.value.path()).convert("RGB"))
        assert np.array_equal(saved[bare], result.image[bare])
        assert np.abs(0.6 * table[~bare] + 0.4 * result.image[~bare] - saved[~bare]).max() <= 2


def test_colors_languages_and_a_phone(
    browser: Any, address: str, scene: Path, wanted: Segmentation
) -> None:
    phone = {"locale": "zh-CN", "color_scheme": "dark", "has_touch": True}
    with opened(browser, address, **phone) as page:
        page.set_viewport_size({"width": 360, "height": 740})
        assert page.inner_text("#drop strong") == "把图片拖到这里"
        assert page.get_attribute("html", "lang") == "zh-CN"
        give(page, scene)
        assert re.search(r"个类别，用时 \d+\.\d 秒", page.inner_text("#status"))
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == "rgb(20, 24, 27)"
        page.tap("#stage")
        assert page.locator("#tooltip b").inner_text()
        # The page asks the server for its own language.
        words = {"name": "a.png", "mimeType": "image/png", "buffer": b"words"}
        for language in ("zh-CN", "en"):
            with page.expect_request("**/predict*") as request:
                page.set_input_files("#file", words)
            assert request.value.headers["accept-language"] == language
            page.wait_for_function("problem?.kind === 415")
            if language == "zh-CN":
                page.click("#language")
                assert page.inner_text("#titleClasses") == "Classes"
        # Okabe and Ito's colors, then others.
        page.select_option("#colors", "safe")
        colors = np.array([page.evaluate("color", k) for k in range(len(wanted.labels))])
        assert np.array_equal(canvas(page, "over")[..., :3], colors[wanted.mask])
        assert colors[:4].tolist() == [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66]]
        page.evaluate("about.classes = Array.from({length: 40}, (_, id) => ({id, name: `${id}`}))")
        assert len({tuple(page.evaluate("color", k)) for k in range(40)}) == 40


def test_errors_and_the_key(
    browser: Any,
    page: Any,
    predictor: Predictor,
    refusals: Refusals,
    scene: Path,
    wanted: Segmentation,
) -> None:
    busy = {"error": "the queue is full.", "try": "send the request again"}
    refusals.next = [(503, busy, {"Retry-After": "7"})]
    page.set_input_files("#file", str(scene))
    page.wait_for_selector("#error:not([hidden])")
    assert page.inner_text("#error h2") == "The server is busy"
    assert page.inner_text("#error .what") == f"{busy['error']} Retry in about 7 s."
    assert page.inner_text("#error .try") == "Try: send the request again"
    page.click("#again")
    page.wait_for_function(SHOWN, arg=scene.name)
    assert page.locator("#error").is_hidden()
    page.set_input_files("#file", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"words"})
    page.wait_for_selector("#error:not([hidden])")
    assert page.inner_text("#error h2") == "Not an image"
    assert np.array_equal(page.evaluate("[...result.ids]"), wanted.mask.ravel())  # still there
    large = {"name": "a.png", "mimeType": "image/png", "buffer": bytes(5 << 20)}
    page.set_input_files("#file", large)
    page.wait_for_function("problem?.kind === 413")
    assert "The file has 5.2 MB" in page.inner_text("#error .what")
    page.route("**/predict*", lambda route: route.abort())
    page.set_input_files("#file", str(scene))
    page.wait_for_function("problem?.kind === 'network'")
    with serving(predictor, key="sesame-7") as url, opened(browser, url) as locked:
        assert locked.inner_text("#error h2") == "The server requires a key"
        for key in ("wrong", "sesame-7"):
            locked.get_by_label("Server key").fill(key)
            locked.keyboard.press("Enter")
            locked.wait_for_function("problem !== null" if key == "wrong" else "about !== null")
        give(locked, scene)
        assert locked.evaluate("sessionStorage.getItem('fullconv-key')") == "sesame-7"
        assert locked.evaluate("localStorage.length") == 0


@pytest.mark.slow
def test_models_without_scores_and_with_many_classes(
    browser: Any, exported_labels: Path, scene: Path
) -> None:
    labels_only = load_exported(exported_labels)
    names = tuple(f"class {k}" for k in range(300))
    colors = tuple((k // 2, 255 - k // 2, k % 7 + 1) for k in range(300))
    many = Predictor(lively(labels=Labels(names, colors, 65535)), device="cpu")
    for model in (labels_only, many):
        result = model(scene)
        row, column = (int(k) for k in np.argwhere(result.mask == result.mask.max())[0])
        name = result.labels.names[result.mask[row, column]]
        with serving(model) as url, opened(browser, url) as page:
            give(page, scene)
            assert np.array_equal(page.evaluate("[...result.ids]"), result.mask.ravel())
            assert np.array_equal(canvas(page, "over")[..., :3], color_table(result))
            page.mouse.move(*at(page, row, column))
            assert page.inner_text("#tooltip b") == name
            assert page.locator("#tooltip span:last-child").is_hidden() == (model is labels_only)
            with page.expect_download() as download:
                page.click("#saveMask")
            assert Path(download.value.path()).read_bytes() == result.encoded("mask")
    assert result.mask.max() > 255


def test_png_files_are_decoded_exactly(page: Any) -> None:
    random = np.random.default_rng(0)
    for kind in (np.uint8, np.uint16):
        noise = random.integers(0, np.iinfo(kind).max, (41, 53), kind, endpoint=True)
        slope = np.add.outer(np.arange(41) ** 2, 31 * np.arange(53)).astype(kind)
        for values in (noise, slope, noise[:1], noise[:, :1], noise[7:8, 7:8]):
            url = "data:image/png;base64," + base64.b64encode(png(values)).decode()
            decoded = page.evaluate("async (url) => [...await readGrayPng(url)]", url)
            assert np.array_equal(decoded, values.ravel())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility(browser: Any, address: str, scheme: str, scene: Path) -> None:
    axe = (node_modules() / "axe-core/axe.min.js").read_text(encoding="utf-8")
    with opened(browser, address, color_scheme=scheme) as page:
        page.evaluate(axe)
        for step in ("empty", "result", "alone", "error"):
            if step == "result":
                give(page, scene)
            elif step == "alone":
                page.click("#classes button >> nth=0")
            elif step == "error":
                page.evaluate("showError(new Problem(401, 'the key is missing.', '--key'))")
            results = page.evaluate("axe.run()")
            faults = [
                (fault["id"], [node["target"] for node in fault["nodes"]])
                for fault in results["violations"]
                if fault["impact"] in ("serious", "critical")
            ]
            assert not faults, step
            assert len(results["passes"]) > 10
