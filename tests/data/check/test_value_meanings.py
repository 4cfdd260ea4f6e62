from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from fullconv.data.check.check import check
from fullconv.data.check.value_meanings import Meaning, value_table

SIZE = (40, 50)


def draw(root: Path, mask: np.ndarray, toml: str = "") -> Path:
    for number, name in enumerate("ab"):
        pixels = np.random.default_rng(number).integers(0, 256, (*mask.shape[:2], 3), np.uint8)
        for folder, content in (("images", pixels), ("masks", mask.astype(np.uint8))):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(root / folder / f"{name}.png")
    if toml:
        (root / "dataset.toml").write_text(toml)
    return root


def halves(one: int, other: int) -> np.ndarray:
    mask = np.full(SIZE, one)
    mask[:10] = other
    return mask


def test_ids_that_are_named_need_no_table(tmp_path: Path) -> None:
    report = check(draw(tmp_path, halves(0, 1), 'classes = ["sky", "road"]'))
    assert report.meanings == ()
    assert "value  colour" not in report.text()
    assert report.to_dict()["mask_values"] == []


def test_a_map_is_shown_with_the_share_of_each_value(tmp_path: Path) -> None:
    toml = 'classes = ["sky", "road"]\n[map]\n7 = "road"\n9 = "ignore"\n[colors]\nroad = "#0000ff"'
    report = check(draw(tmp_path, halves(7, 9), toml))
    assert report.meanings == (
        Meaning(7, (0, 0, 255), 0.75, "road"),
        Meaning(9, None, 0.25, "ignore"),
    )
    assert (
        "        7  #0000ff    75.00%  road\n        9             25.00%  ignore" in report.text()
    )
    assert report.to_dict()["mask_values"][0] == {
        "value": 7,
        "color": "#0000ff",
        "share": 0.75,
        "class": "road",
        "proposed": False,
    }


def test_what_has_no_class_is_shown_without_one(tmp_path: Path) -> None:
    report = check(draw(tmp_path, halves(0, 77), 'classes = ["sky", "road"]'))
    assert [(m.value, m.name) for m in report.meanings] == [(0, "sky"), (77, "")]
    assert "77             25.00%  none" in report.text()


def test_black_and_white_gets_a_proposal(tmp_path: Path) -> None:
    report = check(draw(tmp_path, halves(0, 255)))
    assert report.meanings == (
        Meaning(0, (0, 0, 0), 0.75, "background", True),
        Meaning(255, (128, 0, 0), 0.25, "object", True),  # as a repaired copy is drawn
    )
    assert "background (proposed)" in report.text()


def test_colours_get_a_proposal_and_blends_none(tmp_path: Path) -> None:
    mask = np.zeros((100, 100, 3))
    mask[:40] = (128, 0, 0)
    mask[40, :9] = (64, 0, 0)  # between the two
    report = check(draw(tmp_path, mask))
    found = {m.value: (m.name, m.proposed) for m in report.meanings}
    assert found == {
        (0, 0, 0): ("class 0", True),
        (128, 0, 0): ("class 1", True),
        (64, 0, 0): ("", False),
    }


def test_made_up_ids_are_shown(tmp_path: Path) -> None:
    report = check(draw(tmp_path, halves(0, 3)))
    assert [(m.value, m.name, m.proposed) for m in report.meanings] == [
        (0, "class 0", False),
        (3, "class 3", False),
    ]


def test_long_tables_are_cut() -> None:
    rows = [Meaning(k, None, 0.01, "") for k in range(30)]
    text = value_table(rows)
    assert len(text.splitlines()) == 1 + 24 + 1
    assert text.endswith("more values, of 1.00% and less")
    assert value_table(()) == ""


def test_what_is_there_is_never_shown_as_nothing() -> None:
    rows = [Meaning(0, None, 0.99998, ""), Meaning(1, None, 0.00002, "")]
    shares = [line.split()[1] for line in value_table(rows).splitlines()[1:]]
    assert shares == [">99.99%", "<0.01%"]
