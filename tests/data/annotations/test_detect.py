"""Which tool an annotation file is from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fullconv.core.errors import FullconvError
from fullconv.data.annotations.detect import read_annotations, read_json
from fullconv.data.layouts.annotation_formats import tool_of_file
from fullconv.data.layouts.dataset import load_dataset as read_layout

COCO = {"images": [], "annotations": [], "categories": []}


@pytest.mark.parametrize(
    ("table", "kind"),
    [
        ({"shapes": []}, "labelme"),
        (COCO, "coco"),
        ([{"data": {}, "annotations": []}], "label-studio"),
        ({"data": {}, "completions": []}, "label-studio"),
        ({"other": 1}, None),
        ([1, 2], None),
        ({**COCO, "info": "x" * (1 << 22)}, "coco"),
        ({"other": "x" * (1 << 22)}, None),
        ([{"annotations": [], "data": {"text": "x" * (1 << 22)}}], "label-studio"),
        (["x" * (1 << 22)], None),
    ],
)
def test_by_what_is_in_it(tmp_path: Path, table: object, kind: str | None) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(table))
    assert tool_of_file(path) == kind


def test_what_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    assert tool_of_file(tmp_path / "a.json") is None


def test_a_folder_of_annotations_is_to_be_converted(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"shapes": []}')
    with pytest.raises(FullconvError, match=r"a\.json is a file of labelme") as caught:
        read_layout(tmp_path)
    assert caught.value.hint == f"fullconv convert {tmp_path} {tmp_path}_masks"


@pytest.mark.parametrize("where", ["", "train"])
def test_a_folder_of_outlines_is_to_be_converted(tmp_path: Path, where: str) -> None:
    for kind in ("images", "labels"):
        (tmp_path / where / kind).mkdir(parents=True)
    (tmp_path / where / "labels/a.txt").write_text("0 0 0 1 0 1 1")
    with pytest.raises(
        FullconvError, match=r"a\.txt has outlines in the format of Ultralytics"
    ) as caught:
        read_layout(tmp_path)
    assert caught.value.hint == f"fullconv convert {tmp_path} {tmp_path}_masks"


def test_one_tool_at_a_time(tmp_path: Path) -> None:
    assert read_annotations(tmp_path, tmp_path, tool=None, order="auto").tool == ""
    (tmp_path / "a.json").write_text(json.dumps(COCO))
    (tmp_path / "b.json").write_text('[{"data": {}, "annotations": []}]')
    (tmp_path / "c.json").write_text('{"other": 1}')
    with pytest.raises(FullconvError, match=r"2 tools: coco \(.*a\.json\), label-studio \(") as e:
        read_annotations(tmp_path, tmp_path, tool=None, order="auto")
    assert e.value.hint.endswith("OUT --layout coco   # or --layout label-studio")
    for tool in ("coco", "label-studio", "labelme", "ultralytics"):
        found = read_annotations(tmp_path, tmp_path, tool=tool, order="auto")
        assert (found.tool, found.images, found.problems) == (tool, [], [])
        assert len(found.others) == (tool != "ultralytics")
    alone = read_annotations(tmp_path, tmp_path / "a.json", tool=None, order="auto")
    assert (alone.tool, alone.others) == ("coco", [])


def test_a_file_that_is_cut_off_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{\n"shapes": [')
    with pytest.raises(FullconvError, match=r"a\.json, line 2, column 12: .*truncated"):
        read_json(tmp_path / "a.json")
    found = read_annotations(tmp_path, tmp_path, tool=None, order="auto")
    assert len(found.problems) == 1
