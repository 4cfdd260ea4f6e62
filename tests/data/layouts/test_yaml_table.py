"""Class tables in YAML files, and what is passed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from fullconv.data.layouts.class_table_files import read_yaml


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: [road, car]", {0: "road", 1: "car"}),
        ("names:\n  0: road\n  2: car", {0: "road", 2: "car"}),
        ("path: x\nnames: ['1', 2]", {0: "1", 1: "2"}),
    ],
)
def test_names(tmp_path: Path, text: str, names: dict[int, str]) -> None:
    (tmp_path / "any.yml").write_text(text)
    found = read_yaml(tmp_path)
    assert found is not None
    assert (found.names, found.path, found.mapping) == (names, tmp_path / "any.yml", {})
    assert found.all_names == [names.get(k, "class 1") for k in range(max(names) + 1)]


@pytest.mark.parametrize(
    "text",
    [
        *("", "names: road", "names: []", "names: {a: b}", "names: {-1: b}", "names: {0: [x]}"),
        *("names: [~, [x]]", "names: {99999999: x}", "[1, 2]", "names: [", "a: &a [*a]", "- x: 1"),
    ],
)
def test_what_has_no_names_is_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "data.yaml").write_text(text)
    assert read_yaml(tmp_path) is None
    (tmp_path / "zz.yaml").write_text("names: [road]")
    found = read_yaml(tmp_path)
    assert found is not None
    assert found.path.name == "zz.yaml"


def test_names_that_yaml_takes_for_something_else_are_names(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("names: [yes, no, on, 3, 1.50]\n")
    found = read_yaml(tmp_path)
    assert found is not None
    assert found.all_names == ["yes", "no", "on", "3", "1.50"]
    (tmp_path / "data.yaml").write_text("names: {0: off, 1: true}\nlabel_mapping: {4: 0, no: 1}\n")
    found = read_yaml(tmp_path)
    assert found is not None
    assert (found.all_names, found.mapping) == (["off", "true"], {4: 0})


def test_which_file_counts(tmp_path: Path) -> None:
    for name in ("a.yaml", "dataset.yaml", "data.yaml"):
        (tmp_path / name).write_text(f"names: [{name}]")
    assert getattr(read_yaml(tmp_path), "names", None) == {0: "data.yaml"}
    (tmp_path / "data.yaml").write_bytes(b"\xff\xfe\x00")
    assert getattr(read_yaml(tmp_path), "names", None) == {0: "dataset.yaml"}


def test_the_mapping_of_values(tmp_path: Path) -> None:
    """As in the file that Ultralytics has for Cityscapes."""
    (tmp_path / "data.yaml").write_text(
        "names: [road, car]\n"
        "label_mapping: {-1: ignore_label, 0: ignore_label, 7: 0, 26: 1, 30: 9, x: 1}\n"
    )
    assert getattr(read_yaml(tmp_path), "mapping", None) == {0: None, 7: 0, 26: 1, 30: None}
