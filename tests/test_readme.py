"""README.md: what its blocks of Python say in comments is so. All blocks are run, and compared with
those of README.zh-CN.md, by tests/test_docs.py."""

from __future__ import annotations

import re
from typing import Any

from documented import ROOT, blocks_of, python_of

import fullconv as fc

PYTHON = [block.text for block in blocks_of("README.md") if block.language == "python"]


def executed(mark: str) -> tuple[str, dict[str, Any]]:
    """The block that has a mark, and the names that it leaves behind."""
    (text,) = (text for text in PYTHON if mark in text)
    names: dict[str, Any] = {}
    exec(compile(python_of(text), "README.md", "exec"), names)
    return text, names


def test_the_network_alone() -> None:
    text, names = executed("net = fc.FCN(")
    assert names["loss"].ndim == 0
    assert names["mask"].shape == (1, 97, 131)
    (grid,) = (grid for grid in fc.geometry.trace("resnet18") if grid.stride == 8)
    assert f"[..., {grid}, ...]" in text


def test_a_classifier_made_dense() -> None:
    text, names = executed("dense = fc.convolutionalize(")
    dense = names["dense"]
    assert f"# {tuple(names['scores'].shape)}" in text
    assert f"dense.names[817]  # {dense.names[817]!r}" in text
    assert 0 < dense.difference < 1e-5
    assert "zeros" in dense.caveats()[0]


def test_it_is_short_enough_to_be_read() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 250


def test_it_names_every_folder_of_the_source() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    source = ROOT / "src/fullconv"
    folders = {path.parent.name for path in source.rglob("*.py")} - {"fullconv"}
    assert {name for name in folders if not re.search(rf"\b{name}/", text)} == set()
