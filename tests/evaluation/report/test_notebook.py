"""Notebook views: everything that matters, of bounded size, with names that cannot break them."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from evaluated import FOUR, counted, matrices, written
from html_reader import Reader
from nbclient import NotebookClient
from PIL import Image

import fullconv as fc
from fullconv.core.labels import Labels
from fullconv.data.check.check import check
from fullconv.data.layouts.dataset import load_dataset
from fullconv.data.synthetic import scenes as synthetic
from fullconv.evaluation.evaluate import Evaluation
from fullconv.evaluation.metrics import Metrics
from fullconv.evaluation.protocol import protocol_card
from fullconv.evaluation.report import notebook
from fullconv.geometry.grid import Grid, Grids
from fullconv.inference.segmentation import Segmentation
from fullconv.models.run import Stage

NAMES = ("sky", "<b>", "a & b")


def read(html: str) -> Reader:
    assert not re.search(r"https?://", html)
    return Reader(html)


def segmentation(height: int = 40, width: int = 60, **options: Any) -> Segmentation:
    mask = np.zeros((height, width), np.uint8)
    mask[height // 2 :] = 1
    image = np.full((height, width, 3), 200, np.uint8)
    return Segmentation(mask, options.pop("labels", Labels(NAMES)), image, **options)


def test_a_segmentation_shows_its_classes_and_their_area() -> None:
    result = segmentation(source=Path("<i>.jpg"), heads={"rooms": segmentation()})
    reader = read(notebook.segmentation_html(result))
    assert "<b>" in reader.text
    assert {"b", "i"}.isdisjoint(reader.tags)
    assert reader.text.count(" 50.0% ") == 4
    assert "a & b" not in reader.text  # is not in the image
    assert "head rooms" in reader.text
    assert [image.size for image in reader.images] == [(60, 40)] * 2
    upper, lower = (np.asarray(reader.images[0])[row, 30].astype(int) for row in (5, 35))
    expected = (200 + np.array(Labels(NAMES).colors[:2])) / 2
    assert np.abs(np.stack([upper, lower]) - expected).max() < 8


def test_a_black_background_is_transparent() -> None:
    html = notebook.segmentation_html(segmentation(labels=Labels(("background", "crack", "leaf"))))
    upper, lower = (np.asarray(read(html).images[0])[row, 30].astype(int) for row in (5, 35))
    assert np.abs(upper - 200).max() < 8
    assert np.abs(lower - (164, 100, 100)).max() < 8
    assert re.search(r'class="swatch none"[^<]*</span>background', html)
    assert 'style="background: #800000"></span>crack' in html


@pytest.mark.parametrize("size", [(3000, 5000), (1, 1), (1, 900), (900, 1), (7, 1300)])
def test_any_size_is_shown_small(size: tuple[int, int]) -> None:
    result = segmentation(*size)
    html = notebook.segmentation_html(result)
    (shown,) = read(html).images
    assert max(shown.size) <= 720
    assert len(html) < 200_000
    with Image.open(io.BytesIO(notebook.segmentation_png(result))) as image:
        assert image.format == "PNG"
        assert image.width >= 240
        if size == (3000, 5000):
            assert shown.size == (720, 432)
            assert image.width == 720
            assert 432 < image.height < 600
            above, below = (image.convert("RGB").getpixel((300, y)) for y in (100, 300))
            assert above != below


def test_ignored_and_unsure_pixels_have_a_line() -> None:
    unsure = np.zeros((40, 60), bool)
    unsure[:10] = True
    result = segmentation(unsure=unsure)
    result.mask[:20] = 255
    text = read(notebook.segmentation_html(result)).text
    assert re.search(r"ignore\s+25\.0% ", text)
    assert text.count("25.0%") == 2


def test_metrics_show_the_four_and_every_class() -> None:
    metrics = Metrics(NAMES, np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]]))
    reader = read(notebook.metrics_html(metrics))
    for name in FOUR:
        assert f"{100 * getattr(metrics, name):.2f}%" in reader.text
    assert "85.71%" in reader.text  # precision: 6 of the 7 pixels predicted as sky
    assert "absent" in reader.text
    assert "b" not in reader.tags
    many = Metrics([f"class {k}" for k in range(171)], np.eye(171))
    html = notebook.metrics_html(many)
    assert "all 171" in read(html).text
    assert len(html) < 120_000


def test_an_evaluation_shows_its_heads_and_its_protocol() -> None:
    card = protocol_card(
        fingerprint="f" * 64, split="val", images=3, classes=NAMES, pretrained_on="",
        ignored_pixels=5,
    )  # fmt: skip
    heads = {"rooms": Metrics(("in", "out"), np.eye(2))}
    evaluation = Evaluation(Metrics(NAMES, np.eye(3)), card, heads)
    text = read(notebook.evaluation_html(evaluation)).text
    assert "head rooms" in text
    assert "sky, <b>, a & b" in text
    assert "evaluation protocol" in text


def test_grids_show_a_table_and_the_centers_of_cells() -> None:
    grids = Grids([Grid(2, 0, 7), Grid(8, 2, 11), Grid(16, 6, 19)])
    reader = read(notebook.grids_html(grids))
    assert all(f"{grid.field:g}" in reader.text for grid in grids)
    centers = [grid.center(cell) for grid in grids for cell in range(72)]
    assert reader.tags.count("circle") == sum(-0.5 <= center <= 71.5 for center in centers)
    text = read(notebook.grid_html(Grid(32, 15.5, float("inf"), ("squeeze-excite",)))).text
    assert "whole image squeeze-excite" in text
    html = notebook.grid_html(Grid(32, 15.5))
    assert 'cx="160.0"' in html  # the edge between pixels 15 and 16, ten to a pixel
    assert 'cx="480.0"' in html
    assert read(notebook.grids_html(Grids())).tags.count("circle") == 0


def test_a_dataset_shows_counts_classes_and_images(scenes: Path) -> None:
    reader = read(notebook.dataset_html(load_dataset(scenes)))
    assert "train 3, val 2, test 2" in reader.text
    assert all(name in reader.text for name in synthetic.LABELS.names)
    assert len(reader.images) == 6
    assert all(max(image.size) <= 240 for image in reader.images)
    report = check(scenes)
    text = read(notebook.check_report_html(report)).text
    pixels = report.class_pixels["train"]
    assert f"{100 * pixels[0] / sum(pixels):.2f}%" in text
    assert all(finding.rule in text for finding in report.findings)


def test_a_dataset_with_damaged_files_is_shown(tmp_path: Path) -> None:
    root = synthetic.write(tmp_path / "data", train=2, val=1, test=1, size=(48, 64))
    (root / "images/val/street_0000.jpg").write_bytes(b"nothing")
    Image.new("L", (9, 9)).save(root / "masks/test/street_0000.png")
    reader = read(notebook.dataset_html(load_dataset(root)))
    assert len(reader.images) == 2
    assert "test/street_0000: image and mask differ in size" in reader.text
    assert "val/street_0000: " in reader.text


def test_a_run_shows_its_metrics_curves_and_path(tmp_path: Path) -> None:
    run = fc.open_run(written(tmp_path / "<b>", counted(matrices(5), classes=NAMES)))
    reader = read(notebook.run_html(run))
    assert "b" not in reader.tags
    assert "resnet18 · FCN-8s · 3 epochs · best in epoch 3" in reader.text
    assert "training loss" in reader.text
    assert "on val, 5 images" in reader.text
    assert str(run.model) in reader.text
    stage = Stage("FCN-32s", "m", 0.5, None, None, None, 1, 1.0)
    bare = fc.Run(tmp_path / "c", tmp_path / "c/model", {}, tmp_path, (), (stage,))
    text = read(notebook.run_html(bare)).text
    assert "FCN-32s" in text
    assert "training loss" not in text


def test_ipython_uses_the_views() -> None:
    """All are registered by name, and nothing is imported before a result is shown."""
    lines = [
        "import sys, fullconv",
        "assert 'fullconv.evaluation.report.notebook' not in sys.modules",
        "from fullconv import _NOTEBOOK_VIEWS",
        "from fullconv.evaluation.report import notebook",
        "assert all(hasattr(notebook, view) for *_, view in _NOTEBOOK_VIEWS)",
        "from fullconv.geometry.grid import Grid, Grids",
        "Grids([Grid(8, 3.5, 99)])",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("\n".join(lines))])
    NotebookClient(book, timeout=120, kernel_name="python3").execute()
    (output,) = book.cells[0].outputs
    assert "3.5" in output.data["text/html"]
    assert output.data["text/plain"].startswith("[Grid(stride=8, offset=3.5")
