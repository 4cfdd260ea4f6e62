"""Which tool an annotation file is from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fullconv.data.annotations.kinds import convertible
from fullconv.data.layouts import read
from fullconv.errors import FullconvError

COCO = {"images": [], "annotations": [], "categories": []}


@pytest.mark.parametrize(
    ("table", "kind"),
    [
        ({"shapes": []}, "labelme"),
        (COCO, "coco"),
        ([{"data": {}, "annotations": []}], "label-studio"),
        ({"other": 1}, None),
        ([1, 2], None),
        ({**COCO, "info": "x" * (1 << 22)}, "coco"),
        ({"other": "x" * (1 << 22)}, None),
    ],
)
def test_by_what_is_in_it(tmp_path: Path, table: object, kind: str | None) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(table))
    assert convertible(path) == kind


def test_what_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    assert convertible(tmp_path / "a.json") is None


def test_a_folder_of_annotations_is_to_be_converted(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"shapes": []}')
    with pytest.raises(FullconvError, match=r"a\.json is a file of labelme") as caught:
        read(tmp_path)
    assert caught.value.hint == f"fullconv convert {tmp_path} {tmp_path}_masks"
