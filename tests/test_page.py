"""The web page in a browser, and the server that it talks to."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Refusals, chromium, node_modules
from lively import lively
from PIL import Image
from served import pixels, png, serving

from fullconv.core.labels import Labels
from fullconv.data.synthetic import scenes as drawn
from fullconv.deploy.export import export
from fullconv.deploy.serve.uploads import Limits
from fullconv.inference.exported import ExportedModel, load_exported
from fullconv.inference.predictor import Predictor
from fullconv.inference.segmentation import Segmentation
from fullconv.models.model import Model

SIZE = (150, 212)
DROP = """([content, name]) => {
  const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, {type: "image/png"}));
  for (const kind of ["dragenter", "dragover", "drop"]) {
    document.body.dispatchEvent(new DragEvent(kind, {dataTransfer: data, bubbles: true}));
  }
}"""
PASTE = """([content, name]) => {
  const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, {type: "image/png"}));
  document.body.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true}));
}"""
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
    found: Segmentation = predictor(scene)
    assert len(np.unique(found.mask)) > 3
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


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
    """The page, which must not complain on its console."""
    with Opened(browser, address) as found:
        yield found


class Opened:
    """A page in a context of its own."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": 1200, "height": 800}, **options)
        self.faults: list[str] = []
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.faults.append(message.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.goto(address)
        self.page.wait_for_function("about !== null || problem !== null")

    def __enter__(self) -> Any:
        return self.page

    def __exit__(self, kind: Any, *_: Any) -> None:
        self.context.close()
        # What a browser itself says of every answer that is no 2xx, or that never came.
        faults = [fault for fault in self.faults if "Failed to load resource" not in fault]
        assert kind or not faults


def give(page: Any, path: Path, script: str = DROP) -> None:
    page.evaluate(script, [base64.b64encode(path.read_bytes()).decode(), path.name])
    page.wait_for_function(SHOWN, arg=path.name)


def canvas(page: Any, name: str) -> np.ndarray:
    """(H, W, 4) of one of the two."""
    values = np.frombuffer(base64.b64decode(page.evaluate(CANVAS, name)), np.uint8)
    return values.reshape(*SIZE, 4)


def at(page: Any, row: int, column: int) -> tuple[float, float]:
    """Where a pixel is on the screen."""
    box = page.locator("#stage").bounding_box()
    x = box["x"] + (column + 0.5) / SIZE[1] * box["width"]
    return x, box["y"] + (row + 0.5) / SIZE[0] * box["height"]


@pytest.mark.parametrize("script", [DROP, PASTE], ids=["dropped", "pasted"])
def test_a_image_gets_its_overlay(
    page: Any, script: str, scene: Path, wanted: Segmentation
) -> None:
    give(page, scene, script)
    colors = np.array(wanted.labels.colors)[wanted.mask]
    over = canvas(page, "over")
    assert np.array_equal(over[..., :3], colors)
    assert (over[..., 3] == 255).all()
    assert np.array_equal(canvas(page, "under")[..., :3], wanted.image)
    count = len(np.unique(wanted.mask))
    said = rf"{count} classes found in \d+\.\d s\."
    assert re.fullmatch(said, page.inner_text("#status"))
    page.locator("#opacity").fill("25")
    assert page.evaluate("getComputedStyle(document.getElementById('over')).opacity") == "0.25"
    assert page.inner_text("#opacityNow") == "25 %"


def test_areas_stand_beside_their_classes_largest_first(
    page: Any, scene: Path, wanted: Segmentation
) -> None:
    give(page, scene)
    counts = np.bincount(wanted.mask.ravel(), minlength=len(wanted.labels))
    order = sorted(np.flatnonzero(counts), key=lambda k: (-counts[k], k))
    rows = page.locator("#classes button").all()
    assert [row.locator(".name").inner_text() for row in rows] == [
        wanted.labels.names[k] for k in order
    ]
    assert [row.locator(".pixels").inner_text() for row in rows] == [
        f"{counts[k]:,} px" for k in order
    ]
    first = counts[order[0]] / wanted.mask.size
    assert rows[0].locator(".share").inner_text() == f"{100 * first:.0f} %"
    for k in np.flatnonzero(counts == 0):
        assert wanted.labels.names[k] in page.inner_text("#missing")


def test_the_pointer_and_the_keys_name_what_is_there(
    page: Any, scene: Path, wanted: Segmentation
) -> None:
    give(page, scene)
    confidence = wanted.confidence
    for row, column in ((5, 7), (80, 100), (149, 190), (120, 30), (60, 211)):
        page.mouse.move(*at(page, row, column))
        name, sure = page.locator("#said b"), page.locator("#said span:last-child")
        assert name.inner_text() == wanted.labels.names[wanted.mask[row, column]]
        share = float(sure.inner_text().removesuffix(" %")) / 100
        assert share == pytest.approx(confidence[row, column], abs=0.0075)
    page.focus("#stage")
    for key in ("ArrowUp", "ArrowLeft", "Shift+ArrowDown", "Shift+ArrowRight"):
        page.keyboard.press(key)
    row, column = SIZE[0] // 2 + 1, SIZE[1] // 2 - 5 + 1
    name = wanted.labels.names[wanted.mask[row, column]]
    spoken = page.inner_text("#point")
    assert spoken.startswith(f"{name}, ")
    assert spoken.endswith(f" %, column {column}, row {row}")
    box = page.locator("#marker").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert middle == pytest.approx(at(page, row, column), abs=1)
    page.keyboard.press("Escape")
    assert page.locator("#marker").is_hidden()


def test_a_class_alone_and_all_again(page: Any, scene: Path, wanted: Segmentation) -> None:
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
    assert page.inner_text("#status") == f"{name} alone is shown."
    page.click("#all")
    assert np.array_equal(canvas(page, "over"), before)
    assert page.locator("#all").is_hidden()


def test_downloads(page: Any, scene: Path, wanted: Segmentation) -> None:
    give(page, scene)
    found = {}
    for button in ("#saveMask", "#saveOverlay", "#saveJson"):
        with page.expect_download() as download:
            page.click(button)
        found[download.value.suggested_filename] = Path(download.value.path()).read_bytes()
    assert set(found) == {"my scene_mask.png", "my scene_overlay.png", "my scene.json"}
    assert found["my scene_mask.png"] == wanted.encoded("mask")
    overlay = np.asarray(Image.open(io.BytesIO(found["my scene_overlay.png"])).convert("RGB"))
    colors = np.array(wanted.labels.colors)[wanted.mask]
    assert np.abs(0.6 * colors + 0.4 * wanted.image - overlay).max() <= 2
    table = json.loads(found["my scene.json"])
    assert (table["height"], table["width"]) == SIZE
    shares = {one["name"]: one["share"] for one in table["classes"] if one["pixels"]}
    assert shares == pytest.approx({name: of for name, of in wanted.area.items() if of})


@pytest.fixture(scope="module")
def backed(predictor: Predictor, wanted: Segmentation) -> Predictor:
    """The class that covers most is called background, and is black."""
    model, most = predictor.model, int(np.bincount(wanted.mask.ravel()).argmax())
    names, colors = list(model.labels.names), list(model.labels.colors)
    names[most], colors[most] = "background", (0, 0, 0)
    labels = Labels(tuple(names), tuple(colors), model.labels.ignore_index)
    return Predictor(Model(model.network, labels, model.card), device="cpu", precision="float32")


def test_a_black_background_is_clear_unless_it_is_alone(
    browser: Any, backed: Predictor, scene: Path
) -> None:
    found = backed(scene)
    bare = found.mask == backed.labels.index("background")
    colors = np.array(backed.labels.colors)[found.mask]
    with serving(backed) as url, Opened(browser, url) as page:
        give(page, scene)
        row = page.locator("#classes button").nth(0)
        swatch = "getComputedStyle(document.querySelector('#classes .swatch'))"
        for palette in ("model", "safe"):
            page.select_option("#colours", palette)
            over = canvas(page, "over")
            assert (over[bare, 3] == 0).all()
            assert (over[~bare, 3] == 255).all()
            assert (palette == "safe") | np.array_equal(over[~bare, :3], colors[~bare])
            assert row.locator(".name").inner_text() == "background"
            assert row.locator(".share").inner_text() == f"{100 * bare.mean():.0f} %"
            assert "linear-gradient" in page.evaluate(f"{swatch}.backgroundImage")
            row.click()
            over = canvas(page, "over")
            fill = {
                "model": (255, 255, 255),
                "safe": page.evaluate(f"colour({found.mask[bare][0]})"),
            }
            assert (over[bare] == (*fill[palette], 255)).all()
            assert (over[~bare, 3] == 140).all()
            shown = page.evaluate(f"{swatch}.backgroundColor")
            assert shown == f"rgb({', '.join(map(str, fill[palette]))})"
            page.click("#all")
        y, x = np.argwhere(bare)[len(np.argwhere(bare)) // 2]
        page.mouse.move(*at(page, int(y), int(x)))
        assert page.locator("#said b").inner_text() == "background"
        page.select_option("#colours", "model")
        with page.expect_download() as download:
            page.click("#saveOverlay")
        saved = np.asarray(Image.open(download.value.path()).convert("RGB"))
        assert np.array_equal(saved[bare], found.image[bare])
        mixed = 0.6 * colors[~bare] + 0.4 * found.image[~bare]
        assert np.abs(mixed - saved[~bare]).max() <= 2
        with page.expect_download() as download:
            page.click("#saveMask")
        assert Path(download.value.path()).read_bytes() == found.encoded("mask")


def test_colours_for_every_vision(page: Any, scene: Path, wanted: Segmentation) -> None:
    give(page, scene)
    page.select_option("#colours", "safe")
    colors = np.array([page.evaluate("colour", k) for k in range(len(wanted.labels))])
    assert np.array_equal(canvas(page, "over")[..., :3], colors[wanted.mask])
    assert colors[:4].tolist() == [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66]]
    page.evaluate("about.classes = Array.from({length: 40}, (_, id) => ({id, name: `${id}`}))")
    assert len({tuple(page.evaluate("colour", k)) for k in range(40)}) == 40


def test_the_drawn_street(page: Any) -> None:
    page.click("#drop .sample")
    page.wait_for_function(SHOWN, arg="street.png")
    assert page.evaluate("[result.width, result.height]") == [768, 480]


def test_other_languages_light_and_width(browser: Any, address: str, scene: Path) -> None:
    phone = {"locale": "zh-CN", "color_scheme": "dark", "has_touch": True}
    with Opened(browser, address, **phone) as page:
        page.set_viewport_size({"width": 360, "height": 740})
        assert page.inner_text("#drop strong") == "把图片拖到这里"
        assert page.get_attribute("html", "lang") == "zh-CN"
        give(page, scene)
        assert re.search(r"个类别，用时 \d+\.\d 秒", page.inner_text("#status"))
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == "rgb(20, 24, 27)"
        page.tap("#stage")
        assert page.locator("#said b").inner_text()
        page.click("#language")
        assert page.inner_text("#titleClasses") == "Classes"


def test_errors_are_said_in_the_words_of_the_server(
    page: Any, refusals: Refusals, scene: Path, wanted: Segmentation
) -> None:
    busy = {"error": "32 images are waiting already.", "try": "send it again"}
    refusals.next = [(503, busy, {"Retry-After": "7"})]
    page.set_input_files("#file", str(scene))
    page.wait_for_selector("#error:not([hidden])")
    assert page.inner_text("#error h2") == "The server is busy"
    assert page.inner_text("#error .what") == f"{busy['error']} It has room again in about 7 s."
    assert page.inner_text("#error .try") == "Try: send it again"
    page.click("#again")
    page.wait_for_function(SHOWN, arg=scene.name)
    assert page.locator("#error").is_hidden()
    page.set_input_files("#file", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"words"})
    page.wait_for_selector("#error:not([hidden])")
    assert page.inner_text("#error h2") == "This is no image"
    assert np.array_equal(page.evaluate("[...result.ids]"), wanted.mask.ravel())  # still there
    large = {"name": "a.png", "mimeType": "image/png", "buffer": bytes(5 << 20)}
    page.set_input_files("#file", large)
    page.wait_for_function("problem?.kind === 413")
    assert "The file has 5.2 MB" in page.inner_text("#error .what")
    page.route("**/predict*", lambda route: route.abort())
    page.set_input_files("#file", str(scene))
    page.wait_for_function("problem?.kind === 'network'")


def test_a_key_is_asked_for_where_one_is_wanted(
    browser: Any, predictor: Predictor, scene: Path
) -> None:
    with serving(predictor, key="sesame-7") as url, Opened(browser, url) as page:
        assert page.inner_text("#error h2") == "The server wants a key"
        page.get_by_label("Key of the server").fill("wrong")
        page.keyboard.press("Enter")
        page.wait_for_function("problem !== null")
        page.get_by_label("Key of the server").fill("sesame-7")
        page.keyboard.press("Enter")
        page.wait_for_function("about !== null")
        give(page, scene)
        assert page.evaluate("sessionStorage.getItem('fullconv-key')") == "sesame-7"
        assert page.evaluate("localStorage.length") == 0


@pytest.fixture(scope="module")
def sparing(tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    """A file that gives class ids and no scores."""
    made = export(lively(), tmp_path_factory.mktemp("inside"), with_labels=True)
    return load_exported(made.path)


def test_a_model_without_scores(browser: Any, sparing: ExportedModel, scene: Path) -> None:
    found = sparing(scene)
    row, column = SIZE[0] // 2, SIZE[1] // 2
    name = found.labels.names[found.mask[row, column]]
    with serving(sparing) as url, Opened(browser, url) as page:
        give(page, scene)
        assert page.locator("#error").is_hidden()
        colors = np.array(found.labels.colors)[found.mask]
        assert np.array_equal(canvas(page, "over")[..., :3], colors)
        page.mouse.move(*at(page, row, column))
        assert page.inner_text("#said") == name
        assert page.locator("#said span:last-child").is_hidden()
        page.focus("#stage")
        page.keyboard.press("Home")
        assert page.inner_text("#point") == f"{name}, column {column}, row {row}"
        with page.expect_download() as download:
            page.click("#saveMask")
        assert Path(download.value.path()).read_bytes() == found.encoded("mask")


def test_more_classes_than_a_byte_has_values(browser: Any, scene: Path) -> None:
    names = tuple(f"class {k}" for k in range(300))
    colors = tuple((k // 2, 255 - k // 2, k % 7 + 1) for k in range(300))
    model = lively(labels=Labels(names, colors, 65535))
    predictor = Predictor(model, device="cpu", precision="float32")
    found = predictor(scene)
    assert (found.mask > 255).any()
    assert len(np.unique(found.mask & 255)) > 3  # and the upper bytes alone would not do
    row, column = (int(of) for of in np.argwhere(found.mask > 255)[0])
    name = names[found.mask[row, column]]
    with serving(predictor) as url, Opened(browser, url) as page:
        give(page, scene)
        assert np.array_equal(page.evaluate("[...result.ids]"), found.mask.ravel())
        assert np.array_equal(canvas(page, "over")[..., :3], np.array(colors)[found.mask])
        page.mouse.move(*at(page, row, column))
        assert page.inner_text("#said b") == name
        page.locator("#classes button").filter(has=page.get_by_text(name, exact=True)).click()
        inside, over = found.mask == found.mask[row, column], canvas(page, "over")
        assert np.array_equal(over[..., 3] == 255, inside)
        with page.expect_download() as download:
            page.click("#saveMask")
        assert Path(download.value.path()).read_bytes() == found.encoded("mask")


def filtered(values: np.ndarray) -> bytes:
    """A grey PNG of (H, W) uint8 or uint16, whose rows take turns with the five ways to tell bytes
    by what is left of them and above."""
    height, width = values.shape
    size = values.itemsize
    raw = np.frombuffer(values.astype(f">u{size}").tobytes(), np.uint8).reshape(height, -1)
    left = np.pad(raw.astype(int), ((0, 0), (size, 0)))[:, :-size]
    above, corner = (np.pad(of, ((1, 0), (0, 0)))[:-1] for of in (raw.astype(int), left))
    near = np.stack([left, above, corner])
    paeth = np.take_along_axis(near, np.abs(left + above - corner - near).argmin(0)[None], 0)[0]
    ways = np.arange(height)[:, None] % 5
    told = raw - np.choose(ways, [raw * 0, left, above, (left + above) // 2, paeth])
    rows = zlib.compress(np.hstack([ways, told]).astype(np.uint8).tobytes())
    head = struct.pack(">IIBBBBB", width, height, 8 * size, 0, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", rows[:9]), (b"IDAT", rows[9:]), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(of)) + name + of + struct.pack(">I", zlib.crc32(name + of))
        for name, of in parts
    )


def test_numbers_come_through_as_they_were_sent(page: Any) -> None:
    random = np.random.default_rng(0)
    for kind in (np.uint8, np.uint16):
        noise = random.integers(0, np.iinfo(kind).max, (41, 53), kind, endpoint=True)
        slope = np.add.outer(np.arange(41) ** 2, 31 * np.arange(53)).astype(kind)
        for values in (noise, slope, noise[:1], noise[:, :1], noise[7:8, 7:8]):
            for file in (filtered(values), png(values)):
                assert np.array_equal(pixels(file), values)
                url = "data:image/png;base64," + base64.b64encode(file).decode()
                found = page.evaluate("async (url) => [...await grey(url)]", url)
                assert np.array_equal(found, values.ravel())


@pytest.mark.parametrize(("locale", "into"), [("en-US", "zh"), ("zh-CN", "en")])
def test_the_server_speaks_the_language_that_was_chosen(
    browser: Any, address: str, locale: str, into: str
) -> None:
    words = {"name": "a.png", "mimeType": "image/png", "buffer": b"words"}
    with Opened(browser, address, locale=locale) as page:
        page.click("#language")
        page.set_input_files("#file", words)
        page.wait_for_function("problem?.kind === 415")
        what, hint = page.inner_text("#error .what"), page.inner_text("#error .try")
        for text in (what, hint):
            assert bool(re.search("[\u4e00-\u9fff]", text)) == (into == "zh"), text
        page.click("#language")
        page.set_input_files("#file", words)
        page.wait_for_function("(what) => problem?.what && problem.what !== what", arg=what)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_bars_anybody(browser: Any, address: str, scheme: str, scene: Path) -> None:
    axe = (node_modules() / "axe-core/axe.min.js").read_text(encoding="utf-8")
    with Opened(browser, address, color_scheme=scheme) as page:
        page.evaluate(axe)
        for step in ("empty", "result", "alone", "error"):
            if step == "result":
                give(page, scene)
            elif step == "alone":
                page.click("#classes button >> nth=0")
            elif step == "error":
                page.evaluate("complain(new Problem(401, 'the key is missing.', '--key'))")
            found = page.evaluate("axe.run()")
            faults = [
                (fault["id"], [node["target"] for node in fault["nodes"]])
                for fault in found["violations"]
                if fault["impact"] in ("serious", "critical")
            ]
            assert not faults, step
            assert len(found["passes"]) > 10
