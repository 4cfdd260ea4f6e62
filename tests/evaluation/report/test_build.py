"""The report as a reader meets it: one file without network, on any screen, with nothing in it that
the numbers do not say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import chromium, node_modules
from lively import lively
from PIL import Image

from fullconv import save_report
from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.data.synthetic import scenes as drawn
from fullconv.data.synthetic.scenes import LABELS
from fullconv.evaluation.evaluate import evaluate
from fullconv.evaluation.report.build import head_charts, training_charts
from fullconv.inference.predictor import Predictor, load
from fullconv.models.model import Model

MakeModel = Callable[..., Model]


class Reader(HTMLParser):
    """The text of a page without its style and script, its tags, and what it points at."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.text, self.tags, self.addresses, self.open = "", [], [], []  # type: ignore[var-annotated]
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.tags.append(tag)
        self.open.append(tag)
        wanted = ("src", "href", "data", "action", "srcset")
        self.addresses += [value for name, value in attributes if name in wanted and value]
        if tag in ("meta", "input", "img", "br"):
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text += f" {data}"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn.write(tmp_path_factory.mktemp("data"), train=2, val=4, test=2, size=(96, 128))


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with a report, and the stages before it."""
    folder = tmp_path_factory.mktemp("runs") / "my run"
    head = "epoch,step,loss,rate,mean_iou,pixel_accuracy,seconds"
    for part, seconds in (("32s", 60), ("", 75)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        rows = [f"{k},{k},{1 / k},0.001,{k / 20},{k / 9},{seconds * k / 3}" for k in (1, 2, 3)]
        (folder / part / "log.csv").write_text("\n".join([head, *rows]))
    result = evaluate(Predictor(lively(stride=8), device="cpu"), data, split="val")
    command = "fullconv train --config 'my run/config.toml' --out NEW"
    assert save_report(result, folder / "report.html", run=folder, repeat=command)
    return folder


def test_the_page_says_what_the_evaluation_found(run: Path, data: Path) -> None:
    reader = Reader(run / "report.html")
    result = evaluate(Predictor(lively(stride=8), device="cpu"), data, split="val")
    metrics, quality = result.metrics, result.qualities[0]
    text = " ".join(reader.text.split())
    for value in (metrics.mean_iou, metrics.pixel_accuracy, metrics.mean_accuracy):
        assert f" {100 * value:.1f} " in text
    columns = (metrics.class_iou, metrics.class_accuracy, metrics.class_precision)
    for name, *shares in zip(LABELS.names, *columns, strict=True):
        iou, accuracy, precision = (f"{100 * x:.1f}" if x == x else "[^ ]+" for x in shares)
        assert re.search(rf"{name} {iou} [\d.]+ {accuracy} {precision} ", text), name
    assert f"Boundary F1 {100 * quality.boundary_f1:.1f} within" in text
    assert f"calibration error: {100 * quality.calibration_error:.1f}," in text
    assert f"Mean IoU within 5 pixels of a true edge: {100 * quality.band_iou[4]:.1f}." in text
    assert result.protocol["data_fingerprint"] in text
    assert "fullconv train --config 'my run/config.toml' --out NEW" in text
    assert "training FCN-32s 1 min 0 s training FCN-8s 1 min 15 s" in text
    assert "best : street_000" in text
    assert "worst : street_000" in text
    assert "torch 2." in text
    page = (run / "report.html").read_text(encoding="utf-8")
    most = np.array(metrics.confusion)
    np.fill_diagonal(most, 0)
    i, j = np.unravel_index(most.argmax(), most.shape)
    words = f"{LABELS.names[int(i)]} called {LABELS.names[int(j)]}: {most.max():,} pixels"
    assert f'title="{words}' in page
    assert words.replace(" called ", "  called  ").replace(": ", " : ").replace("  ", " ") in text


def test_the_page_is_one_file_that_points_nowhere(run: Path) -> None:
    reader = Reader(run / "report.html")
    outside = [to for to in reader.addresses if not to.startswith(("data:image/", "#"))]
    assert outside == []
    assert "link" not in reader.tags
    page = (run / "report.html").read_text(encoding="utf-8")
    without = re.sub(r"data:image/\w+;base64,[\w+/=]+", "", page)
    assert "http" not in without
    assert "url(" not in without
    assert "@import" not in without
    assert reader.open == []
    assert (run / "report.html").stat().st_size < 2_000_000


def test_the_markdown_says_the_same_and_its_images_are_there(run: Path, data: Path) -> None:
    text = (run / "report.md").read_text(encoding="utf-8")
    reader = Reader(run / "report.html")
    numbers = re.findall(r"^\| ([a-z]+) \| ([\d.]+) \|", text, re.MULTILINE)
    assert [name for name, _ in numbers][: len(LABELS)] == list(LABELS.names)
    flat = " ".join(reader.text.split())
    assert all(f"{name} {number} " in flat for name, number in numbers[: len(LABELS)])
    shown = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert len(shown) == len(set(shown)) == 3 + 6 + 3 + 3
    for name in shown:
        assert (run / name).is_file(), name
        if name.endswith(".jpg"):
            with Image.open(run / name) as image:
                assert image.width > 200
    assert sorted(path.name for path in (run / "images").iterdir()) == sorted(
        Path(name).name for name in shown
    )
    assert "    fullconv train --config 'my run/config.toml' --out NEW\n" in text
    assert not re.search(r"\n{4}", text)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def opened(browser: Any, page: Path, **options: Any) -> Any:
    """The page from disk, with the network off; fails where it asks for anything."""
    context = browser.new_context(offline=True, **options)
    view = context.new_page()
    asked: list[str] = []
    view.on("request", lambda r: asked.append(r.url) if not r.url.startswith("data:") else None)
    view.on("pageerror", lambda error: asked.append(str(error)))
    view.goto(page.as_uri())
    assert asked == [page.as_uri()]
    return view


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_runs_out_of_the_screen(browser: Any, run: Path, width: int) -> None:
    view = opened(browser, run / "report.html", viewport={"width": width, "height": 800})
    assert view.evaluate("document.documentElement.scrollWidth") == width
    sizes = view.evaluate("[...document.images].map((one) => one.naturalWidth)")
    assert sizes
    assert all(sizes)
    tops = view.evaluate(
        "[...document.querySelectorAll('.row')].map((row) => new Set([...row.children]"
        ".map((one) => one.getBoundingClientRect().top)).size)"
    )
    assert tops == [1 if width > 640 else 2] * 3
    view.context.close()


def test_the_slider_moves_by_keys_between_two_images(browser: Any, run: Path) -> None:
    view = opened(browser, run / "report.html", viewport={"width": 1000, "height": 900})
    sample = view.locator(".sample").first
    slider = sample.get_by_role("slider")
    sources = sample.locator(".row img").evaluate_all("(all) => all.map((one) => one.src)")
    stage = sample.locator(".stage img")
    assert stage.evaluate_all("(all) => all.map((one) => one.src)") == [sources[0], sources[2]]
    slider.focus()
    before = stage.nth(1).evaluate("(one) => getComputedStyle(one).clipPath")
    for _ in range(10):
        view.keyboard.press("ArrowRight")
    after = stage.nth(1).evaluate("(one) => getComputedStyle(one).clipPath")
    assert (before, after) == ("inset(0px 0px 0px 50%)", "inset(0px 0px 0px 60%)")
    sample.locator("select.left").select_option("truth")
    assert stage.nth(0).evaluate("(one) => one.src") == sources[1]
    view.context.close()


def test_without_scripts_all_but_the_slider_is_there(browser: Any, run: Path) -> None:
    view = opened(browser, run / "report.html", java_script_enabled=False)
    assert view.locator(".wipe").first.is_hidden()
    assert view.locator(".row img").nth(3).is_visible()
    view.context.close()


def test_on_paper_it_is_black_on_white_and_whole(browser: Any, run: Path, tmp_path: Path) -> None:
    view = opened(browser, run / "report.html", color_scheme="dark")
    dark = view.evaluate("getComputedStyle(document.body).backgroundColor")
    view.emulate_media(media="print")
    assert dark == "rgb(20, 23, 26)"
    assert view.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert view.locator(".wipe").first.is_hidden()
    view.pdf(path=tmp_path / "report.pdf", format="A4")
    assert (tmp_path / "report.pdf").read_bytes().count(b"/Type /Page\n") in range(3, 12)
    view.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_bars_anybody(browser: Any, run: Path, scheme: str) -> None:
    axe = (node_modules() / "axe-core/axe.min.js").read_text(encoding="utf-8")
    view = opened(browser, run / "report.html", color_scheme=scheme)
    view.evaluate(axe)
    found = view.evaluate("axe.run()")
    faults = [
        (fault["id"], fault["impact"], [node["target"] for node in fault["nodes"]][:4])
        for fault in found["violations"]
    ]
    assert faults == []
    assert len(found["passes"]) > 15
    view.context.close()


def write_data(root: Path, labels: Labels, masks: list[np.ndarray]) -> Path:
    """Grey photos with masks, in train and val."""
    names = ", ".join(f'"{name}"' for name in labels.names)
    for split in ("train", "val"):
        for folder in ("images", "masks"):
            (root / folder / split).mkdir(parents=True)
        for number, mask in enumerate(masks):
            random = np.random.default_rng(number + 10 * (split == "val"))
            photo = random.integers(0, 255, (*mask.shape, 3), np.uint8)
            Image.fromarray(photo).save(root / "images" / split / f"{number}.png")
            Image.fromarray(mask.astype(np.uint8)).save(root / "masks" / split / f"{number}.png")
    (root / "dataset.toml").write_text(f"classes = [{names}]\n", encoding="utf-8")
    return root


def test_hundreds_of_classes_stay_readable_and_small(
    tmp_path: Path, make_model: MakeModel, browser: Any
) -> None:
    labels = Labels(tuple(f"class number {k}, a long name" for k in range(171)))
    masks = [np.indices((96, 128))[1] // 4 + 40 * k for k in range(4)]
    root = write_data(tmp_path / "data", labels, masks)
    result = evaluate(Predictor(make_model(labels.names), device="cpu"), root, split="val")
    page = save_report(result, tmp_path / "report.html")
    assert page.stat().st_size < 1_500_000
    reader = Reader(page)
    assert reader.text.count("class number 17, a long name") >= 1
    view = opened(browser, page, viewport={"width": 390, "height": 800})
    assert view.evaluate("document.documentElement.scrollWidth") == 390
    assert view.locator(".matrix tbody tr").count() == 25
    assert view.locator(".tall").first.bounding_box()["height"] < 560
    view.context.close()


def test_a_single_class_without_void(tmp_path: Path, make_model: MakeModel) -> None:
    root = write_data(tmp_path / "data", Labels(("all",)), [np.zeros((40, 50), int)] * 3)
    result = evaluate(Predictor(make_model(("all",)), device="cpu"), root, split="val")
    reader = Reader(save_report(result, tmp_path / "report.html"))
    assert "3 images, 1 class." in reader.text
    assert "Boundary F1 –" in reader.text
    assert "What is confused most" not in reader.text


def test_nothing_labelled_at_all(
    tmp_path: Path, model_folder: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `--ignore-rules` may leave it."""
    from fullconv.evaluation import evaluate as evaluation

    real = evaluation.read_mask
    monkeypatch.setattr(evaluation, "read_mask", lambda *to: np.full_like(real(*to), 255))
    result = evaluate(load(model_folder, device="cpu"), scenes, split="val")
    reader = Reader(save_report(result, tmp_path / "report.html"))
    assert "No pixel of this split is labelled" in reader.text
    assert reader.tags.count("img") == 0
    assert "No pixel" in (tmp_path / "report.md").read_text()


def test_each_head_has_its_own_part(tmp_path: Path, make_model: MakeModel) -> None:
    import shutil

    scenes = drawn.write(tmp_path / "data", train=1, val=2, test=1, size=(48, 64))
    shutil.copytree(scenes / "masks", scenes / "far")
    shutil.copy(scenes / "dataset.toml", scenes / "far/dataset.toml")
    model = lively(stride=8, heads={"far": LABELS}, head="things")
    result = evaluate(Predictor(model, device="cpu"), scenes, split="val")
    assert set(result.to_dict()["heads"]["far"]) >= {"boundary", "calibration", "mean_iou"}
    reader = Reader(save_report(result, tmp_path / "report.html"))
    assert reader.tags.count("img") == 2 * (2 * (4 + 2) + 6)
    assert len(re.findall("Boundary F1 [0-9]", reader.text)) == 2
    assert "#scores-2" in reader.addresses
    text = (tmp_path / "report.md").read_text()
    assert "## far" in text
    assert "images/report-head2-best.jpg" in text


def test_names_cannot_write_the_page(tmp_path: Path, make_model: MakeModel) -> None:
    labels = Labels(("<script>alert(1)</script>", 'a "b" | c'))
    masks = [np.indices((40, 50))[1] // 25] * 2
    root = write_data(tmp_path / "data", Labels(("a", "b")), masks)
    names = ["<script>alert(1)</script>", 'a \\"b\\" | c']
    (root / "dataset.toml").write_text(f'classes = ["{names[0]}", "{names[1]}"]\n')
    result = evaluate(Predictor(make_model(labels.names), device="cpu"), root, split="val")
    reader = Reader(save_report(result, tmp_path / "report.html"))
    assert reader.tags.count("script") == 1
    assert labels.names[0] in reader.text
    assert r'| a "b" \| c |' in (tmp_path / "report.md").read_text()


def test_what_is_no_page_and_what_has_nothing_to_show(model_folder: Path, scenes: Path) -> None:
    result = evaluate(load(model_folder, device="cpu"), scenes, split="val", quality=False)
    with pytest.raises(FullconvError) as caught:
        save_report(result, "report.pdf")
    assert caught.value.message == (
        "the report report.pdf would be no page; expected a name that ends in .html."
    )
    assert caught.value.hint == "--report report.html"
    with pytest.raises(FullconvError, match="without what a report shows") as caught:
        save_report(result, "report.html")
    assert "evaluate(quality=True)" in caught.value.hint
    with pytest.raises(FullconvError, match="without what a report shows"):
        save_report(replace(result, context=None), "report.html")


def test_charts_without_confidence_and_curves_without_a_log(
    model_folder: Path, scenes: Path
) -> None:
    result = evaluate(load(model_folder, device="cpu"), scenes, split="val")
    quality = result.qualities[0]
    assert set(head_charts(quality)) == {"edges", "sizes", "confidence"}
    quality.calibration_counts[:] = 0
    assert set(head_charts(quality)) == {"edges", "sizes"}
    assert training_charts([]) == {}
