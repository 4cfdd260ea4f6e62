from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pairs import write_pairs

from fullconv.data.check.check import CheckReport, check
from fullconv.data.check.value_meanings import Meaning, value_table

NAMED = 'classes = ["sky", "road"]'
MAPPED = NAMED + '\n[map]\n7 = "road"\n9 = "ignore"\n[colors]\nroad = "#0000ff"'


def report_of(root: Path, mask: np.ndarray, toml: str = "") -> CheckReport:
    return check(write_pairs(root, {"a": mask, "b": mask}, toml=toml))


def quarter(value: int, other: int) -> np.ndarray:
    mask = np.full((40, 50), value)
    mask[:10] = other
    return mask


def test_named_ids_need_no_table(tmp_path: Path) -> None:
    report = report_of(tmp_path, quarter(0, 1), NAMED)
    assert report.meanings == ()
    assert "value  color" not in report.text()
    assert report.to_dict()["mask_values"] == []


BLACK, BLUE, RED, GREEN = (0, 0, 0), (0, 0, 255), (128, 0, 0), (128, 128, 0)
# The proposed colors are those of a repaired copy.
# fmt: off
TABLES = {
    "map": (MAPPED, (7, BLUE, 0.75, "road"), (9, None, 0.25, "ignore"),
            "        7  #0000ff    75.00%  road\n        9             25.00%  ignore"),
    "no class": (NAMED, (0, BLACK, 0.75, "sky"), (77, None, 0.25, ""),
                 "77             25.00%  (no class)"),
    "black and white": ("", (0, BLACK, 0.75, "background", True), (255, RED, 0.25, "object", True),
                        "background (proposed)"),
    "ids": ("", (0, BLACK, 0.75, "class 0"), (3, GREEN, 0.25, "class 3"), "25.00%  class 3"),
}
# fmt: on


@pytest.mark.parametrize(("toml", "first", "second", "text"), TABLES.values(), ids=TABLES)
def test_a_table_of_values(tmp_path: Path, toml: str, first: Any, second: Any, text: str) -> None:
    report = report_of(tmp_path, quarter(first[0], second[0]), toml)
    assert report.meanings == (Meaning(*first), Meaning(*second))
    assert text in report.text()


def test_meanings_in_json(tmp_path: Path) -> None:
    report = report_of(tmp_path, quarter(7, 9), MAPPED)
    row = {"value": 7, "color": "#0000ff", "share": 0.75, "class": "road", "proposed": False}
    assert report.to_dict()["mask_values"][0] == row


def test_a_proposal_for_colors_but_not_for_blends(tmp_path: Path) -> None:
    mask = np.zeros((100, 100, 3))
    mask[:40] = (128, 0, 0)
    mask[40, :9] = (64, 0, 0)  # between the two
    names = {m.value: (m.name, m.proposed) for m in report_of(tmp_path, mask).meanings}
    assert names == {
        (0, 0, 0): ("class 0", True),
        (128, 0, 0): ("class 1", True),
        (64, 0, 0): ("", False),
    }


def test_rare_values_of_long_tables_are_counted() -> None:
    common = [Meaning(k, None, 0.01, "") for k in range(30)]
    rare = [Meaning(100 + k, None, 0.001, "") for k in range(5)]
    lines = value_table([*common[:13], *rare]).splitlines()
    assert len(lines) == 1 + 13 + 1
    assert lines[-1].endswith("5 more values, each in 0.10% of the pixels or less")
    assert len(value_table(rare).splitlines()) == 1 + 5  # a short table is complete
    assert len(value_table(common).splitlines()) == 26
    assert value_table(()) == ""
