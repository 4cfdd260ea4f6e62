"""The terminal's text: what must be read in it, and that columns stay columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluated import counted, matrices, written
from rich.cells import cell_len

from fullconv.evaluation.bootstrap import Interval
from fullconv.evaluation.compare import Comparison, compare
from fullconv.evaluation.report.comparison import interval, points, text_of, verdict

NAN = float("nan")


def compared(
    tmp_path: Path, ones: list[np.ndarray], names: list[str], **further: Any
) -> Comparison:
    runs = [
        written(tmp_path / name, counted(one, **further), stride=8 * (k + 1))
        for k, (name, one) in enumerate(zip(names, ones, strict=True))
    ]
    return compare(*runs, resamples=200)


def test_all_of_it_is_there(tmp_path: Path) -> None:
    found = compared(tmp_path, [matrices(30, right=r) for r in (0.6, 0.75)], ["a", "b"])
    text = found.text()
    assert text.startswith("split val: 30 images, 360 x 480; in percent\n")
    value = found.runs[0].metrics.mean_iou
    assert f"a     {100 * value:.2f}" in text
    assert "stride  8  16" in text
    assert "b against a\n" in text
    one = found.differences[0].metrics["mean_iou"]
    line = next(line for line in text.splitlines() if line.startswith("mean IoU  "))
    assert line.split() == [
        *("mean", "IoU", f"{100 * one.value:+.2f}"),
        *(f"{100 * one.low:+.2f}", "..", f"{100 * one.high:+.2f}", "better"),
    ]
    assert "better *" in text
    assert "200 resamples of the 30 images" in text
    assert "not what another seed of the training would" in text
    assert "Of 3 classes some lie outside by chance" in text
    assert "ewer than" not in text


def test_what_the_intervals_cannot_say_is_said(tmp_path: Path) -> None:
    ones = [matrices(12, 4, right=r) for r in (0.6, 0.7, 0.72)]
    for one in ones:
        one[2:, 3] = 0
    names = ("sky", "road", "tree", "pole")
    found = compared(tmp_path, ones, ["a", "b", "c"], classes=names)
    text = text_of(found)
    assert "Fewer than 20 images: how often" in text
    assert "Too few images for an interval (fewer than 6): pole." in text
    assert "2 runs against one: each has a chance to look real by luck." in text


def test_wide_letters_and_long_names_stay_in_their_columns(tmp_path: Path) -> None:
    names = ("天空", "r" * 60, "tree")
    ones = [matrices(20, right=r) for r in (0.6, 0.7)]
    text = compared(tmp_path, ones, ["a", "b"], classes=names).text()
    lines = text.splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("IoU of"))
    places = {cell_len(line[: line.index("..")]) for line in lines[start + 1 : start + 4]}
    assert len(places) == 1
    assert "r" * 26 + "…" in text or "r" * 27 + "…" in text
    assert "r" * 29 not in text


def test_of_very_many_classes_those_that_differ_most(tmp_path: Path) -> None:
    ones = [matrices(20, 60, right=r) for r in (0.6, 0.7)]
    names = [f"class {k}" for k in range(60)]
    found = compared(tmp_path, ones, ["a", "b"], classes=names)
    text = found.text()
    assert "... and 20 more classes that differ less (--json)" in text
    sizes = [abs(one.value) for one in found.differences[0].classes]
    largest = int(np.argmax(sizes))
    assert f"\nclass {largest} " in text
    assert f"\nclass {int(np.argmin(sizes))} " not in text


@pytest.mark.parametrize(
    ("one", "said", "span"),
    [
        (Interval(0.02, 0.01, 0.03), "better", "+1.00 .. +3.00"),
        (Interval(-0.02, -0.03, -0.01), "worse", "-3.00 .. -1.00"),
        (Interval(0.02, -0.01, 0.05), "not told apart", "-1.00 .. +5.00"),
        (Interval(0.0, 0.0, 0.0), "the same", "0.00 .. 0.00"),
        (Interval(0.02, NAN, NAN), "", ""),
        (Interval(NAN, NAN, NAN), "", ""),
    ],
)
def test_what_an_interval_says(one: Interval, said: str, span: str) -> None:
    assert (verdict(one), interval(one)) == (said, span)
    assert points(NAN) == "-"
