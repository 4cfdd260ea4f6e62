"""What notebooks show: everything that matters, bounded, with names that cannot break it."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from evaluated import counted, matrices, written
from nbclient import NotebookClient
from PIL import Image

import fullconv as fc
from fullconv.core.labels import Labels
from fullconv.data.check.check import check
from fullconv.data.layouts.dataset import load_dataset
from fullconv.data.synthetic import scenes as drawn
from fullconv.evaluation.evaluate import Evaluation
from fullconv.evaluation.metrics import Metrics
from fullconv.evaluation.protocol import protocol_card
from fullconv.geometry.grid import Grid, Grids
from fullconv.geometry.trace_network import trace
from fullconv.inference.segmentation import Segmentation
from fullconv.models.run import Stage

NAMES = ("sky", "<b>", "a & b")


class Shown(HTMLParser):
    """The words, tags and images of a piece of HTML."""

    def __init__(self, found: Any) -> None:
        super().__init__()
        self.words, self.tags, self.images, self.inside = "", [], [], ""
        text = found._repr_html_()
        assert text.count("<div") == text.count("</div>")
        assert not re.search(r"https?://(?!www\.w3\.org)", text)
        self.size = len(text)
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.inside = tag
        if tag == "img":
            content = (dict(attrs)["src"] or "").partition(";base64,")[2]
            self.images.append(Image.open(io.BytesIO(base64.b64decode(content))))

    def handle_data(self, data: str) -> None:
        self.words += f"{data} " if self.inside != "style" else ""


def segmentation(height: int = 40, width: int = 60, **further: Any) -> Segmentation:
    mask = np.zeros((height, width), np.uint8)
    mask[height // 2 :] = 1
    image = np.full((height, width, 3), 200, np.uint8)
    return Segmentation(mask, Labels(NAMES), image, **further)


def test_a_segmentation_shows_its_classes_and_their_shares() -> None:
    shown = Shown(segmentation(source=Path("<i>.jpg"), heads={"rooms": segmentation()}))
    assert "<b>" in shown.words
    assert {"b", "i"}.isdisjoint(shown.tags)
    assert shown.words.count(" 50.0 ") == 4
    assert "a & b" not in shown.words  # is not in the image
    assert "head rooms" in shown.words
    assert [image.size for image in shown.images] == [(60, 40)] * 2
    upper, lower = (np.asarray(shown.images[0])[row, 30].astype(int) for row in (5, 35))
    expected = (200 + np.array(Labels(NAMES).colors[:2])) / 2
    assert np.abs(np.stack([upper, lower]) - expected).max() < 8


def test_a_black_background_is_no_veil() -> None:
    one = segmentation()
    labels = Labels(("background", "crack", "leaf"))
    found = Segmentation(one.mask, labels, one.image)
    upper, lower = (np.asarray(Shown(found).images[0])[row, 30].astype(int) for row in (5, 35))
    assert np.abs(upper - 200).max() < 8
    assert np.abs(lower - (164, 100, 100)).max() < 8
    assert re.search(r'class="swatch none"[^<]*</span>background', found._repr_html_())
    assert re.search(r'style="background: #800000"></span>crack', found._repr_html_())


def test_a_large_result_is_shown_small() -> None:
    large = segmentation(3000, 5000)
    shown = Shown(large)
    assert shown.images[0].size == (720, 432)
    assert shown.size < 200_000
    with Image.open(io.BytesIO(large._repr_png_())) as image:
        assert image.format == "PNG"
        assert image.width == 720
        assert 432 < image.height < 600
        above, below = (image.convert("RGB").getpixel((300, y)) for y in (100, 300))
    assert above != below


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (7, 1300)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    one = segmentation(*size)
    assert max(Shown(one).images[0].size) <= 720
    assert Image.open(io.BytesIO(one._repr_png_())).width >= 1


def test_ignored_and_unsure_pixels_have_a_line() -> None:
    one = segmentation()
    one.mask[:20] = 255
    unsure = np.zeros(one.mask.shape, bool)
    unsure[:10] = True
    words = Shown(Segmentation(one.mask, one.labels, one.image, unsure=unsure)).words
    assert re.search(r"ignore +25\.0 ", words)
    assert re.search(r"unsure +25\.0 ", words)


def test_metrics_show_the_four_numbers_and_every_class() -> None:
    confusion = np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    of = Metrics(NAMES, confusion)
    shown = Shown(of)
    for value in (of.mean_iou, of.pixel_accuracy, of.mean_accuracy, of.frequency_weighted_iou):
        assert f"{100 * value:.2f}" in shown.words
    assert re.search(r"85\.71 +", shown.words)  # precision: 6 of the 7 that are called so
    assert "not there" in shown.words
    assert "b" not in shown.tags
    many = Shown(Metrics([f"class {k}" for k in range(171)], np.eye(171)))
    assert "all 171" in many.words
    assert many.size < 120_000


def test_an_evaluation_shows_its_heads_and_its_card() -> None:
    card = protocol_card(
        fingerprint="f" * 64, split="val", images=3, classes=NAMES, pretrained_on="",
        ignored_pixels=5,
    )  # fmt: skip
    one = Metrics(NAMES, np.eye(3))
    shown = Shown(Evaluation(one, card, {"rooms": Metrics(("in", "out"), np.eye(2))}))
    assert "head rooms" in shown.words
    assert "sky, <b>, a & b" in shown.words
    assert "protocol card" in shown.words


def test_grids_show_a_table_and_where_cells_sit() -> None:
    convolutions = [torch.nn.Conv2d(3, 3, k, s, p) for k, s, p in ((7, 2, 3), (3, 4, 1), (2, 2, 0))]

    class Pyramid(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList(convolutions)

        def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
            maps = [image]
            for layer in self.layers:
                maps.append(layer(maps[-1]))
            return maps[1:]

    found = trace(Pyramid())
    assert isinstance(found, Grids)
    assert isinstance(found, list)
    shown = Shown(found)
    for grid in found:
        assert f"{grid.field:g}" in shown.words
    centres = [grid.center(cell) for grid in found for cell in range(72)]
    assert shown.tags.count("circle") == sum(-0.5 <= centre <= 71.5 for centre in centres)
    one = Shown(Grid(32, 15.5, float("inf"), ("squeeze-excite",)))
    assert "whole image" in one.words
    assert "squeeze-excite" in one.words
    text = Grid(32, 15.5)._repr_html_()
    assert 'cx="160.0"' in text  # the edge between pixels 15 and 16, ten to a pixel
    assert 'cx="480.0"' in text
    assert Shown(Grids()).tags.count("circle") == 0


def test_a_data_set_shows_counts_classes_and_images(scenes: Path) -> None:
    data = load_dataset(scenes)
    shown = Shown(data)
    assert "train 3, val 2, test 2" in shown.words
    assert all(name in shown.words for name in drawn.LABELS.names)
    assert len(shown.images) == 6
    assert all(max(image.size) <= 240 for image in shown.images)
    report = check(scenes)
    words = Shown(report).words
    pixels = report.class_pixels["train"]
    assert f"{100 * pixels[0] / sum(pixels):.2f}" in words
    assert all(finding.rule in words for finding in report.findings)


def test_a_data_set_with_damaged_files_is_shown_all_the_same(tmp_path: Path) -> None:
    root = drawn.write(tmp_path / "data", train=2, val=1, test=1, size=(48, 64))
    (root / "images/val/street_0000.jpg").write_bytes(b"nothing")
    Image.new("L", (9, 9)).save(root / "masks/test/street_0000.png")
    shown = Shown(load_dataset(root))
    assert len(shown.images) == 2
    assert "test/street_0000: image and mask differ in size" in shown.words
    assert "val/street_0000: " in shown.words


def test_a_run_shows_its_numbers_curves_and_path(tmp_path: Path) -> None:
    run = fc.open_run(written(tmp_path / "<b>", counted(matrices(5), classes=NAMES)))
    shown = Shown(run)
    assert "b" not in shown.tags
    assert "resnet18 · FCN-8s · 3 epochs · best in epoch 3" in shown.words
    assert "training loss" in shown.words
    assert "on val, 5 images" in shown.words
    assert str(run.model) in shown.words
    stage = Stage("FCN-32s", "m", 0.5, None, None, None, 1, 1.0)
    bare = fc.Run(tmp_path / "c", tmp_path / "c/model", {}, tmp_path, (), (stage,))
    words = Shown(bare).words
    assert "FCN-32s" in words
    assert "training loss" not in words


def test_in_a_real_notebook() -> None:
    lines = "from fullconv.geometry.trace_network import Grid, Grids\nGrids([Grid(8, 3.5, 99)])"
    cells = [nbformat.v4.new_code_cell(lines)]
    book = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(book, timeout=120, kernel_name="python3").execute()
    (output,) = book.cells[0].outputs
    assert "3.5" in output.data["text/html"]
    assert output.data["text/plain"].startswith("[Grid(stride=8, offset=3.5")
