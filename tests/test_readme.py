"""The claims of README.md. tests/test_docs.py runs its blocks."""

from __future__ import annotations

import json
import re
from typing import Any

from documented import ROOT, blocks_of, python_of, text_of

import fullconv as fc

README = text_of("README.md")


def run_block(page: str, mark: str) -> tuple[str, dict[str, Any]]:
    """Run the Python block that contains a text; return the block and the names it defines."""
    (text,) = (b.text for b in blocks_of(page) if b.language == "python" and mark in b.text)
    names: dict[str, Any] = {}
    exec(compile(python_of(text), page, "exec"), names)
    return text, names


def test_the_network_of_the_readme_has_the_shapes_it_states() -> None:
    _, names = run_block("README.md", "net = fc.FCN(")
    assert names["loss"].ndim == 0
    assert names["mask"].shape == (1, 97, 131)
    assert names["scores"].grid.stride == 8


def test_a_convolutionalized_classifier_has_the_values_its_page_states() -> None:
    text, names = run_block("docs/heatmaps.md", "dense = fc.convolutionalize(")
    dense = names["dense"]
    assert f"# {tuple(names['scores'].shape)}" in text
    assert f"dense.names[817]  # {dense.names[817]!r}" in text
    assert 0 < dense.difference < 1e-5
    assert "zeros" in dense.caveats()[0]


def test_the_grid_of_the_explanation_is_the_computed_one() -> None:
    (grid,) = (grid for grid in fc.geometry.trace("resnet18") if grid.stride == 8)
    assert f"# ... {grid} ..." in text_of("docs/explanation/idea.md")


def test_the_readme_is_short_and_begins_with_an_image() -> None:
    lines = README.splitlines()
    assert len(lines) <= 130
    assert "](docs/images/predictions.png)" in README.split("## ")[0]
    assert "语义分割" in text_of("README.zh-CN.md").split("## ")[0]


def test_the_number_of_check_rules_is_that_of_the_table() -> None:
    table = text_of("docs/data.md").split("| rule | level |")[1].split("\n\n")[0]
    rules = set(re.findall(r"`([a-z-]+)`", "\n".join(re.findall(r"^\| (.*?) \|", table, re.M))))
    source = "".join(p.read_text() for p in (ROOT / "src/fullconv/data/check").glob("*.py"))
    assert {rule for rule in rules if rule.split("-")[0] not in source} == set()
    assert f"[{len(rules)} rules]" in README


def test_the_results_table_has_the_numbers_of_the_result_files() -> None:
    runs = json.loads((ROOT / "benchmarks/results/camvid_skips.json").read_text())
    text = json.dumps(runs)
    for row in re.findall(r"^\| FCN-\d+s \| (.*) \|$", README, re.M):
        for number in row.split(" | "):
            digits = [float(value) for value in re.findall(r"0\.\d+", text)]
            assert any(round(100 * value, 1) == float(number) for value in digits), number
