"""The report: its tables and images, and the page as readers see it, one file on any screen."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import chromium, node_modules
from evaluated import write_dataset
from html_reader import Reader
from hypothesis import given
from hypothesis import strategies as st
from lively import lively
from PIL import Image

from fullconv import save_report
from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.data.check.iou_ceiling import iou_ceiling
from fullconv.data.io.images import read_image
from fullconv.data.io.masks import read_mask
from fullconv.data.synthetic import scenes as synthetic
from fullconv.data.synthetic.scenes import LABELS
from fullconv.evaluation.error_analysis import Quality
from fullconv.evaluation.evaluate import Evaluation, evaluate
from fullconv.evaluation.metrics import Metrics, confusion_matrix
from fullconv.evaluation.report.build import head_charts, training_charts
from fullconv.evaluation.report.images import HeadImages, head_images, rank_images
from fullconv.evaluation.report.tables import (
    MATRIX_SIZE,
    OTHERS,
    HeadTables,
    confusion_table,
    head_tables,
    most_confused,
)
from fullconv.inference.predictor import Predictor
from fullconv.models.model import Model
from fullconv.visualization.overlay import WRONG, colorize

MakeModel = Callable[..., Model]
OpenPage = Callable[..., Any]
REPEAT = "fullconv train --config 'my run/config.toml' --out NEW"


def read(page: Path) -> Reader:
    """Read a page without its charts."""
    html = page.read_text(encoding="utf-8")
    return Reader(re.sub("<svg.*?</svg>", "", html, flags=re.DOTALL))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.write(tmp_path_factory.mktemp("data"), train=2, val=5, test=2, size=(96, 128))


@pytest.fixture(scope="module")
def result(data: Path) -> Evaluation:
    return evaluated(lively(stride=8), data)


@pytest.fixture(scope="module")
def run(result: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with two stages and a report."""
    folder = tmp_path_factory.mktemp("runs") / "my run"
    head = "epoch,step,loss,lr,mean_iou,pixel_accuracy,seconds"
    for part, seconds in (("32s", 60), ("", 75)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        rows = [f"{k},{k},{1 / k},0.001,{k / 20},{k / 9},{seconds * k / 3}" for k in (1, 2, 3)]
        (folder / part / "log.csv").write_text("\n".join([head, *rows]))
    assert save_report(result, folder / "report.html", run=folder, repeat=REPEAT)
    return folder


def metrics_of(confusion: np.ndarray) -> Metrics:
    return Metrics([f"class {k}" for k in range(len(confusion))], confusion)


def evaluated(model: Model, data: Path) -> Evaluation:
    return evaluate(Predictor(model, device="cpu"), data, split="val")


def tables_of(result: Evaluation) -> list[HeadTables]:
    assert result.context is not None
    return head_tables(result, result.context)


def images_of(result: Evaluation) -> HeadImages:
    """The images of the only head."""
    assert result.context is not None
    (images,) = head_images(result.context, tables_of(result))
    return images


def test_the_confusion_table_has_the_classes_that_occur() -> None:
    counts = np.array([[6, 2, 0, 0], [0, 0, 0, 0], [1, 0, 3, 0], [0, 0, 0, 0]])
    names, rows = confusion_table(metrics_of(counts))
    assert names == ("class 0", "class 1", "class 2")  # class 1 is only predicted
    assert [[cell.pixels for cell in row] for row in rows] == counts[:3, :3].tolist()
    assert [cell.share for cell in rows[0]] == [0.75, 0.25, 0]
    assert [cell.share for cell in rows[1]] == [0, 0, 0]


def test_of_many_classes_those_with_most_errors_are_shown_and_no_pixel_is_lost() -> None:
    counts = np.random.default_rng(0).integers(0, 50, (171, 171))
    counts[7, 9] = counts[100, 3] = 100_000
    names, rows = confusion_table(metrics_of(counts))
    assert len(names) == len(rows) == MATRIX_SIZE
    assert names[-1] == OTHERS
    assert {"class 3", "class 7", "class 9", "class 100"} <= set(names)
    assert sum(cell.pixels for row in rows for cell in row) == counts.sum()
    assert rows[names.index("class 7")][names.index("class 9")].pixels == 100_000
    numbers = [int(name.split()[1]) for name in names[:-1]]
    assert numbers == sorted(numbers)


def test_the_most_confused_pair_comes_first() -> None:
    quality = Quality(["a", "b", "c"])
    quality.worst_image[1, 0] = 4
    counts = np.array([[90, 10, 0], [30, 60, 10], [0, 0, 5]])
    pairs = most_confused(metrics_of(counts), quality)
    expected = [(1, 0, 30), (0, 1, 10), (1, 2, 10)]
    assert [(pair.truth, pair.prediction, pair.pixels) for pair in pairs] == expected
    assert (pairs[0].share, pairs[0].image) == (0.3, 4)
    assert most_confused(metrics_of(np.diag([5, 5])), Quality(["a", "b"])) == ()


def test_the_upper_bound_is_that_of_the_models_stride(
    result: Evaluation, data: Path, make_model: MakeModel
) -> None:
    (head,) = tables_of(result)
    ceiling = iou_ceiling(data, split="val")
    by_name = dict(zip(ceiling.names, ceiling.class_iou[8], strict=True))
    assert head.mean_upper_bound == ceiling.mean_iou[8]
    for row in head.rows:
        assert row.upper_bound == pytest.approx(by_name[row.name], nan_ok=True)
    assert sum(row.share for row in head.rows) == pytest.approx(1)
    assert {row.name for row in head.rows} | set(head.absent) == set(LABELS.names)
    (head,) = tables_of(evaluated(make_model(("boat", *LABELS.names)), data))  # which lacks boats
    boats = [row for row in head.rows if row.name == "boat"]
    assert all(math.isnan(row.upper_bound) for row in boats)
    assert boats or "boat" in head.absent


def test_best_median_and_worst_by_the_mean_iou_of_each_image(result: Evaluation) -> None:
    images, context = images_of(result), result.context
    assert context is not None
    pairs = {pair.name: pair for pair in context.dataset.splits["val"]}
    truths = {name: read_mask(pair.mask, LABELS) for name, pair in pairs.items()}
    predictions = {k: context.model.label_map(read_image(pair.image)) for k, pair in pairs.items()}
    ious = {
        name: Metrics(LABELS.names, confusion_matrix(truths[name], predictions[name], 8)).mean_iou
        for name in pairs
    }
    order = sorted(ious, key=lambda name: -ious[name])
    ranked = [(image.rank, image.name, image.mean_iou) for image in images.ranked]
    places = (("best", order[0]), ("median", order[2]), ("worst", order[4]))
    assert ranked == [(rank, name, ious[name]) for rank, name in places]
    best = images.ranked[0]
    image, truth, prediction, errors = (np.asarray(p.convert("RGB")) for p in best.panels)
    assert (image == read_image(pairs[best.name].image)).all()
    assert (truth == colorize(truths[best.name], LABELS)).all()
    assert (prediction == colorize(predictions[best.name], LABELS)).all()
    wrong = (truths[best.name] != predictions[best.name]) & (truths[best.name] != 255)
    assert ((errors == WRONG).all(axis=2) == wrong).all()
    assert set(images.crops) == set(tables_of(result)[0].confused)
    assert best.sheet().width > 4 * 200


def test_large_images_are_made_smaller(model_folder: Path, tmp_path: Path) -> None:
    scenes = synthetic.write(tmp_path, train=1, val=1, test=1, size=(240, 800))
    (ranked,) = images_of(evaluate(model_folder, scenes, split="val")).ranked
    assert {panel.size for panel in ranked.panels} == {(640, 192)}


@given(st.lists(st.floats(0, 1) | st.just(float("nan")), max_size=12))
def test_ranks_are_of_different_images(image_iou: list[float]) -> None:
    ranks = rank_images(image_iou)
    labeled = sorted(iou for iou in image_iou if iou == iou)
    assert len(ranks) == len(set(ranks.values())) == min(3, len(labeled))
    if labeled:
        assert image_iou[ranks["best"]] == labeled[-1]
    if len(labeled) > 1:
        assert image_iou[ranks["worst"]] == labeled[0]
    if len(labeled) > 2:
        assert image_iou[ranks["median"]] == labeled[(len(labeled) - 1) // 2]


def test_charts_without_confidence_and_without_a_log(result: Evaluation) -> None:
    quality = result.qualities[0]
    assert set(head_charts(quality)) == {"edges", "sizes", "confidence"}
    counts = quality.calibration_counts
    quality.calibration_counts = np.zeros_like(counts)
    assert set(head_charts(quality)) == {"edges", "sizes"}
    quality.calibration_counts = counts
    assert training_charts([]) == {}


def test_the_page_has_the_numbers_of_the_evaluation(run: Path, result: Evaluation) -> None:
    text = read(run / "report.html").text
    metrics, quality = result.metrics, result.qualities[0]
    for value in (metrics.mean_iou, metrics.pixel_accuracy, metrics.mean_accuracy):
        assert f" {100 * value:.1f}% " in text
    columns = (metrics.class_iou, metrics.class_accuracy, metrics.class_precision)
    for name, *shares in zip(LABELS.names, *columns, strict=True):
        iou, recall, precision = (rf"{100 * x:.1f}%" if x == x else "[^ ]+" for x in shares)
        assert re.search(rf"{name} {iou} [\d.]+% {recall} {precision} ", text), name
    for part in (
        f"Boundary F1 {100 * quality.boundary_f1:.1f}% within",
        f"calibration error: {100 * quality.calibration_error:.1f}%,",
        f"Mean IoU within 5 pixels of a true edge: {100 * quality.band_iou[4]:.1f}%.",
        result.protocol["data_fingerprint"],
        REPEAT,
        "training FCN-32s 1:00 training FCN-8s 1:15 training, all stages 2:15",
        "Best : street_000",
        "Worst : street_000",
        "torch 2.",
    ):
        assert part in text
    errors = np.array(metrics.confusion)
    np.fill_diagonal(errors, 0)
    i, j = np.unravel_index(errors.argmax(), errors.shape)
    truth, prediction = LABELS.names[int(i)], LABELS.names[int(j)]
    share = f"{100 * errors.max() / metrics.confusion[i].sum():.1f}%"
    assert f"{truth} predicted as {prediction} ({share} of {truth} pixels)" in text
    page = (run / "report.html").read_text(encoding="utf-8")
    assert re.search(
        f'title="{truth} predicted as {prediction}: .*, {errors.max():,} pixels"', page
    )
    assert page.count("<svg") == 6
    assert "loss by epoch" in page


def test_the_page_is_one_file_that_loads_nothing(run: Path) -> None:
    reader = read(run / "report.html")
    assert [to for to in reader.links if not to.startswith(("data:image/", "#"))] == []
    assert "link" not in reader.tags
    page = (run / "report.html").read_text(encoding="utf-8")
    page = re.sub(r"data:image/\w+;base64,[\w+/=]+", "", page)
    assert not re.search(r"http|url\((?!#)|@import", page)
    assert (run / "report.html").stat().st_size < 2_000_000


def test_the_markdown_has_the_same_numbers_and_its_images_exist(run: Path) -> None:
    text = (run / "report.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([a-z]+) \| ([\d.]+%) \|", text, re.MULTILINE)
    assert [name for name, _ in rows][: len(LABELS)] == list(LABELS.names)
    page = read(run / "report.html").text
    assert all(f"{name} {number} " in page for name, number in rows[: len(LABELS)])
    paths = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert len(paths) == len(set(paths)) == 3 + 6 + 3 + 3
    assert {path.name for path in (run / "images").iterdir()} == {Path(p).name for p in paths}
    for path in paths:
        if path.endswith(".jpg"):
            with Image.open(run / path) as image:
                assert image.width > 200
    assert f"    {REPEAT}\n" in text
    assert not re.search(r"\n{4}", text)


def write_noise(root: Path, names: tuple[str, ...], masks: list[np.ndarray]) -> Path:
    """Write noise images with these masks, in train and val."""
    random = np.random.default_rng(0)
    train, val = (
        [(random.integers(0, 255, (*mask.shape, 3)), mask) for mask in masks] for _ in range(2)
    )
    return write_dataset(root, names, train=train, val=val)


def test_a_single_class_without_ignored_pixels(tmp_path: Path, make_model: MakeModel) -> None:
    root = write_noise(tmp_path / "data", ("all",), [np.zeros((40, 50), int)] * 3)
    result = evaluated(make_model(("all",)), root)
    text = read(save_report(result, tmp_path / "report.html")).text
    assert "3 images, 1 class " in text
    assert "Boundary F1 - within" in text
    assert "Most confused classes" not in text


def test_no_labeled_pixel(
    tmp_path: Path, model_folder: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `--ignore-rules` may leave it."""

    def read_ignored(path: Path, labels: Labels) -> np.ndarray:
        return np.full_like(read_mask(path, labels), 255)

    monkeypatch.setattr("fullconv.evaluation.evaluate.read_mask", read_ignored)
    result = evaluate(model_folder, scenes, split="val")
    reader = read(save_report(result, tmp_path / "report.html"))
    assert "No pixel of this split is labeled" in reader.text
    assert reader.tags.count("img") == 0
    assert "No pixel" in (tmp_path / "report.md").read_text()


def test_each_head_has_its_own_part(tmp_path: Path) -> None:
    scenes = synthetic.write(tmp_path / "data", train=1, val=2, test=1, size=(48, 64))
    shutil.copytree(scenes / "masks", scenes / "far")
    shutil.copy(scenes / "dataset.toml", scenes / "far/dataset.toml")
    result = evaluated(lively(stride=8, heads={"far": LABELS}, head="things"), scenes)
    assert set(result.to_dict()["heads"]["far"]) >= {"boundary", "calibration", "mean_iou"}
    reader = read(save_report(result, tmp_path / "report.html"))
    assert reader.tags.count("img") == 2 + 2 * (2 * (4 + 2) + 6)
    assert len(re.findall("Boundary F1 [0-9]", reader.text)) == 2
    assert "#scores-2" in reader.links
    text = (tmp_path / "report.md").read_text()
    assert "## far" in text
    assert "images/report-head2-best.jpg" in text


def test_names_cannot_write_the_page(tmp_path: Path, make_model: MakeModel) -> None:
    names = ("<script>alert(1)</script>", 'a "b" | c')
    root = write_noise(tmp_path / "data", names, [np.indices((40, 50))[1] // 25] * 2)
    result = evaluated(make_model(names), root)
    reader = read(save_report(result, tmp_path / "report.html"))
    assert reader.tags.count("script") == 1
    assert names[0] in reader.text
    assert r'| a "b" \| c |' in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    ("path", "changes", "message", "hint"),
    [
        ("report.pdf", {}, "saved as .html, not as 'report.pdf'", "--report report.html"),
        ("report.html", {"qualities": ()}, "has no error analysis", "quality=True"),
        ("report.html", {"context": None}, "has no error analysis", "quality=True"),
    ],
)
def test_what_makes_no_report(
    result: Evaluation, path: str, changes: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(FullconvError, match=message) as caught:
        save_report(replace(result, **changes), path)
    assert hint in caught.value.hint


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as instance:
        yield instance


@pytest.fixture
def open_page(browser: Any) -> Iterator[OpenPage]:
    """Opens a page from disk without network; fails if it asks for anything."""
    contexts = []

    def open_offline(page: Path, **options: Any) -> Any:
        contexts.append(browser.new_context(offline=True, **options))
        view = contexts[-1].new_page()
        requests: list[str] = []
        view.on("request", lambda r: None if r.url.startswith("data:") else requests.append(r.url))
        view.on("pageerror", lambda error: requests.append(str(error)))
        view.goto(page.as_uri())
        assert requests == [page.as_uri()]
        return view

    yield open_offline
    for context in contexts:
        context.close()


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_is_wider_than_the_screen(open_page: OpenPage, run: Path, width: int) -> None:
    view = open_page(run / "report.html", viewport={"width": width, "height": 800})
    assert view.evaluate("document.documentElement.scrollWidth") == width
    sizes = view.evaluate("[...document.images].map((image) => image.naturalWidth)")
    assert sizes
    assert all(sizes)
    tops = view.evaluate(
        "[...document.querySelectorAll('.sample')].map((sample) => ['.wipe', '.panels']"
        ".map((part) => sample.querySelector(part).getBoundingClientRect().top))"
    )
    assert len(tops) == 3
    assert all((slider == panels) == (width > 640) for slider, panels in tops)


def test_the_slider_moves_by_keys_between_two_images(open_page: OpenPage, run: Path) -> None:
    view = open_page(run / "report.html", viewport={"width": 1000, "height": 900})
    sample = view.locator(".sample").first
    sources = sample.locator(".panels img").evaluate_all("(all) => all.map((image) => image.src)")
    stage = sample.locator(".stage img")
    assert stage.evaluate_all("(all) => all.map((i) => i.src)") == [sources[0], sources[2]]
    sample.get_by_role("slider").focus()
    clip = "(image) => getComputedStyle(image).clipPath"
    before = stage.nth(1).evaluate(clip)
    for _ in range(10):
        view.keyboard.press("ArrowRight")
    after = stage.nth(1).evaluate(clip)
    assert (before, after) == ("inset(0px 0px 0px 50%)", "inset(0px 0px 0px 60%)")
    sample.locator("select.left").select_option("ground truth")
    assert stage.nth(0).evaluate("(image) => image.src") == sources[1]


def test_without_scripts_only_the_slider_is_missing(open_page: OpenPage, run: Path) -> None:
    view = open_page(run / "report.html", java_script_enabled=False)
    assert view.locator(".wipe").first.is_hidden()
    assert view.locator(".panels img").nth(3).is_visible()


def test_on_paper_it_is_black_on_white_and_complete(
    open_page: OpenPage, run: Path, tmp_path: Path
) -> None:
    view = open_page(run / "report.html", color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    assert view.evaluate(background) == "rgb(20, 23, 26)"
    view.emulate_media(media="print")
    assert view.evaluate(background) == "rgb(255, 255, 255)"
    assert view.locator(".wipe").first.is_hidden()
    view.pdf(path=tmp_path / "report.pdf", format="A4")
    assert (tmp_path / "report.pdf").read_bytes().count(b"/Type /Page\n") in range(3, 12)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible(open_page: OpenPage, run: Path, scheme: str) -> None:
    axe = (node_modules() / "axe-core/axe.min.js").read_text(encoding="utf-8")
    view = open_page(run / "report.html", color_scheme=scheme)
    view.evaluate(axe)
    report = view.evaluate("axe.run()")
    assert [
        (fault["id"], fault["impact"], [node["target"] for node in fault["nodes"]][:4])
        for fault in report["violations"]
    ] == []
    assert len(report["passes"]) > 15


def test_hundreds_of_classes_stay_readable_and_small(
    tmp_path: Path, make_model: MakeModel, open_page: OpenPage
) -> None:
    names = tuple(f"class number {k}, a long name" for k in range(171))
    masks = [np.indices((96, 128))[1] // 4 + 40 * k for k in range(4)]
    root = write_noise(tmp_path / "data", names, masks)
    result = evaluated(make_model(names), root)
    page = save_report(result, tmp_path / "report.html")
    assert page.stat().st_size < 1_500_000
    assert "class number 17, a long name" in read(page).text
    view = open_page(page, viewport={"width": 390, "height": 800})
    assert view.evaluate("document.documentElement.scrollWidth") == 390
    assert view.locator(".matrix tbody tr").count() == 25
    assert view.locator(".tall").first.bounding_box()["height"] < 560
