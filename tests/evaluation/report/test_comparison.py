"""A comparison as text, page and plot: complete, in straight columns, safe whatever names say."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluated import NAN, counted, matrices, written
from html_reader import Reader
from PIL import Image
from rich.cells import cell_len

from fullconv.core.errors import FullconvError
from fullconv.evaluation.bootstrap import Interval
from fullconv.evaluation.compare import Comparison, compare
from fullconv.evaluation.report.comparison import (
    comparison_html,
    comparison_text,
    interval_cells,
    save_comparison,
)

ODD_NAMES = ("sky", "<b>road</b>", "$x_1$ & tree")


def compared(folder: Path, runs: dict[str, np.ndarray], **options: Any) -> Comparison:
    folders = [
        written(folder / name, counted(counts, **options), stride=8 * (k + 1), epochs=6)
        for k, (name, counts) in enumerate(runs.items())
    ]
    return compare(*folders, resamples=200)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Runs and classes whose names mean something in HTML and TeX."""
    runs = {name: matrices(30, right=r) for name, r in (("<i>a", 0.6), ("b$", 0.7), ("c", 0.71))}
    return compared(tmp_path_factory.mktemp("runs"), runs, classes=ODD_NAMES)


def test_the_text_has_all_numbers(tmp_path: Path) -> None:
    comparison = compared(tmp_path, {"a": matrices(30, right=0.6), "b": matrices(30, right=0.75)})
    text = comparison_text(comparison)
    assert text.startswith("split val: 30 images, 360 x 480\n")
    rows = [line.split() for line in text.splitlines()]
    for run in comparison.runs:
        iou, accuracy = run.metrics.mean_iou, run.metrics.pixel_accuracy
        (row,) = [row for row in rows if row[:1] == [run.name] and row[-1] == "6"]
        assert row[1:3] == [f"{100 * iou:.2f}%", f"{100 * accuracy:.2f}%"]
    assert ["stride", "8", "16"] in rows
    mean = comparison.differences[0].metrics["mean_iou"]
    low, value, high = (f"{100 * x:+.2f}" for x in (mean.low, mean.value, mean.high))
    assert ["mean", "IoU", value, low, "..", high, "better"] in rows
    for part in (
        "b compared with a\n",
        "better *",
        "200 resamples of the 30 images",
        "not what another training seed would change",
        "Of 3 classes, some exclude 0 by chance",
    ):
        assert part in text
    assert "ewer than" not in text


def test_the_text_says_what_the_intervals_cannot(tmp_path: Path) -> None:
    runs = {name: matrices(12, 4, right=r) for name, r in (("a", 0.6), ("b", 0.7), ("c", 0.72))}
    for counts in runs.values():
        counts[2:, 3] = 0
    text = comparison_text(compared(tmp_path, runs, classes=("sky", "road", "tree", "pole")))
    assert "Fewer than 20 images: how often" in text
    assert "Too few images for an interval (fewer than 6): pole." in text
    assert "2 runs are compared with one: each may look significant by chance." in text


def test_wide_letters_and_long_names_stay_in_their_columns(tmp_path: Path) -> None:
    runs = {"a": matrices(20, right=0.6), "b": matrices(20, right=0.7)}
    text = comparison_text(compared(tmp_path, runs, classes=("天空", "r" * 60, "tree")))
    lines = text.splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("IoU of"))
    ends = {cell_len(line[: line.index("..")]) for line in lines[start + 1 : start + 4]}
    assert len(ends) == 1
    assert "r" * 27 + "…" in text


def test_of_many_classes_those_that_differ_most_are_listed(tmp_path: Path) -> None:
    runs = {"a": matrices(20, 60, right=0.6), "b": matrices(20, 60, right=0.7)}
    comparison = compared(tmp_path, runs, classes=[f"class {k}" for k in range(60)])
    text = comparison_text(comparison)
    assert "... and 20 more classes with smaller differences (--json)" in text
    sizes = [abs(interval.value) for interval in comparison.differences[0].classes]
    assert f"\nclass {int(np.argmax(sizes))} " in text
    assert f"\nclass {int(np.argmin(sizes))} " not in text
    plot = save_comparison(comparison, tmp_path / "c.svg").read_text(encoding="utf-8")
    assert len(re.findall(r">class \d+", plot)) == 40


@pytest.mark.parametrize(
    ("interval", "cells"),
    [
        (Interval(0.02, 0.01, 0.03), ["+2.00", "+1.00 .. +3.00", "better"]),
        (Interval(0.02, 0.01, 0.03, True), ["+2.00", "+1.00 .. +3.00", "better *"]),
        (Interval(-0.02, -0.03, -0.01), ["-2.00", "-3.00 .. -1.00", "worse"]),
        (Interval(0.02, -0.01, 0.05), ["+2.00", "-1.00 .. +5.00", "not significant"]),
        (Interval(0.0, 0.0, 0.0), ["0.00", "0.00 .. 0.00", "the same"]),
        (Interval(0.02, NAN, NAN), ["+2.00", "", ""]),
        (Interval(NAN, NAN, NAN), ["-", "", ""]),
    ],
)
def test_an_interval_in_words(interval: Interval, cells: list[str]) -> None:
    assert interval_cells(interval) == cells


def test_the_page_is_one_file_and_shows_everything(odd: Comparison, tmp_path: Path) -> None:
    path = save_comparison(odd, tmp_path / "new folder" / "compare.html")
    text = path.read_text(encoding="utf-8")
    reader = Reader(text)
    for name in (*ODD_NAMES, "<i>a", "b$", "b$ compared with <i>a", "training loss"):
        assert name in reader.text, name
    assert {"script", "link", "iframe"}.isdisjoint(reader.tags)
    assert all(link.startswith(("#", "data:")) for link in reader.links)
    assert not re.search(r"url\((?!#)|https?:", text)
    assert reader.tags.count("table") == 2 + 2 * 2
    assert "<b>road" not in text
    assert path.stat().st_size < 300_000
    html = comparison_html(odd)
    assert "html" not in Reader(html).tags
    assert "<b>road</b>" in Reader(html).text
    assert "currentColor" in html


def test_plots(odd: Comparison, tmp_path: Path) -> None:
    with Image.open(save_comparison(odd, tmp_path / "c.png")) as image:
        assert image.format == "PNG"
        assert image.width > 900
        assert len(image.convert("RGB").getcolors(1 << 20) or []) > 10
    text = save_comparison(odd, tmp_path / "c.svg").read_text(encoding="utf-8")
    assert "&lt;b&gt;road&lt;/b&gt;" in text
    assert "$x_1$ &amp; tree" in text
    assert save_comparison(odd, tmp_path / "d.svg").read_text(encoding="utf-8") == text


def test_runs_without_a_log(tmp_path: Path) -> None:
    files = [
        counted(matrices(30, right=r)).save(tmp_path / f"{name}.npz")
        for name, r in (("a", 0.6), ("b", 0.7))
    ]
    comparison = compare(*files, resamples=100)
    assert "training loss" not in comparison_html(comparison)
    assert "epochs" in comparison_text(comparison)
    content = save_comparison(comparison, tmp_path / "c.png").read_bytes()
    assert Image.open(io.BytesIO(content)).height > 100


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("c.pdf", r"saved as .html, .png, .svg, not as 'c.pdf'", "--out compare.html"),
        ("c.html", r"could not write the comparison to .*c.html: Is a dir", "another_folder/"),
    ],
)
def test_what_cannot_be_written(
    odd: Comparison, tmp_path: Path, name: str, message: str, hint: str
) -> None:
    (tmp_path / "c.html").mkdir()
    with pytest.raises(FullconvError, match=message) as caught:
        save_comparison(odd, tmp_path / name)
    assert hint in caught.value.hint
