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


def quarter(value: int, other: int) -> np.ndarray:
    mask = np.full(SIZE, value)
    mask[:10] = other
    return mask


def test_named_ids_need_no_table(tmp_path: Path) -> None:
    report = check(draw(tmp_path, quarter(0, 1), 'classes = ["sky", "road"]'))
    assert report.meanings == ()
    assert "value  color" not in report.text()
    assert report.to_dict()["mask_values"] == []


def test_a_map_is_shown_with_the_share_of_each_value(tmp_path: Path) -> None:
    toml = 'classes = ["sky", "road"]\n[map]\n7 = "road"\n9 = "ignore"\n[colors]\nroad = "#0000ff"'
    report = check(draw(tmp_path, quarter(7, 9), toml))
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


def test_values_without_a_class(tmp_path: Path) -> None:
    report = check(draw(tmp_path, quarter(0, 77), 'classes = ["sky", "road"]'))
    assert [(m.value, m.name) for m in report.meanings] == [(0, "sky"), (77, "")]
    assert "77             25.00%  (no class)" in report.text()


def test_a_proposal_for_black_and_white(tmp_path: Path) -> None:
    report = check(draw(tmp_path, quarter(0, 255)))
    assert report.meanings == (
        Meaning(0, (0, 0, 0), 0.75, "background", True),
        Meaning(255, (128, 0, 0), 0.25, "object", True),  # as in a repaired copy
    )
    assert "background (proposed)" in report.text()


def test_a_proposal_for_colors_but_not_for_blends(tmp_path: Path) -> None:
    mask = np.zeros((100, 100, 3))
    mask[:40] = (128, 0, 0)
    mask[40, :9] = (64, 0, 0)  # between the two
    report = check(draw(tmp_path, mask))
    names = {m.value: (m.name, m.proposed) for m in report.meanings}
    assert names == {
        (0, 0, 0): ("class 0", True),
        (128, 0, 0): ("class 1", True),
        (64, 0, 0): ("", False),
    }


def test_made_up_ids_are_shown(tmp_path: Path) -> None:
    report = check(draw(tmp_path, quarter(0, 3)))
    assert [(m.value, m.name, m.proposed) for m in report.meanings] == [
        (0, "class 0", False),
        (3, "class 3", False),
    ]


def test_rare_values_of_long_tables_are_counted() -> None:
    common = [Meaning(k, None, 0.01, "") for k in range(13)]
    rare = [Meaning(100 + k, None, 0.001, "") for k in range(5)]
    lines = value_table([*common, *rare]).splitlines()
    assert len(lines) == 1 + 13 + 1
    assert lines[-1].endswith("5 more values, each in 0.10% of the pixels or less")
    assert len(value_table(rare).splitlines()) == 1 + 5  # a short table is complete
    assert len(value_table([Meaning(k, None, 0.01, "") for k in range(30)]).splitlines()) == 26
    assert value_table(()) == ""


def test_shares_are_never_rounded_to_nothing_or_all() -> None:
    rows = [Meaning(0, None, 0.99998, ""), Meaning(1, None, 0.00002, "")]
    shares = [line.split()[1] for line in value_table(rows).splitlines()[1:]]
    assert shares == [">99.99%", "<0.01%"]
