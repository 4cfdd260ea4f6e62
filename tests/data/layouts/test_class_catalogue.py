"""Class tables of published data sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from fullconv.core.errors import FullconvError
from fullconv.data.layouts.class_catalogue import ade20k, cityscapes, numbered_names, pascal_context


def test_the_nineteen_classes_of_cityscapes() -> None:
    labels = cityscapes(train_ids=False)
    assert len(labels) == 19
    assert [labels.class_of(value) for value in (7, 8, 11, 33, 0, 9, 29, 255)] == [
        *(0, 1, 2, 18),
        *(255, 255, 255, 255),
    ]
    assert labels.class_of(34) is None
    assert labels.colors[labels.index("person")] == (220, 20, 60)
    assert cityscapes(train_ids=True).class_of(18) == 18


def test_ade20k_counts_numbered_from_one(shared: Path) -> None:
    table = shared / "data/ade20k_sample/objectInfo150.csv"
    for labels in (ade20k(None), ade20k(table)):
        assert len(labels) == 150
        assert labels.class_of(0) == 255
        assert labels.class_of(1) == labels.index("wall") == 0
        assert labels.class_of(150) == 149
    assert ade20k(None).names == ade20k(table).names


def test_a_short_table_of_ade20k_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "objectInfo150.csv"
    path.write_text("Idx,Name\n1,wall\n")
    with pytest.raises(FullconvError, match="names 1 class; expected 150"):
        ade20k(path)


def test_the_chosen_classes_of_pascal_context(tmp_path: Path) -> None:
    labels, chosen = tmp_path / "labels.txt", tmp_path / "59_labels.txt"
    labels.write_text("1: accordion\n2: aeroplane\n3: air conditioner\n")
    assert numbered_names(labels)[3] == "air conditioner"
    whole = pascal_context(labels, None)
    assert (whole.class_of(0), whole.class_of(3)) == (65535, 2)
    chosen.write_text("1: aeroplane\n")
    few = pascal_context(labels, chosen)
    assert few.names == ("background", "aeroplane")
    assert [few.class_of(value) for value in (0, 1, 2, 3)] == [0, 0, 1, 0]
    chosen.write_text("1: zebra\n")
    with pytest.raises(FullconvError, match="chooses 'zebra'"):
        pascal_context(labels, chosen)
    labels.write_text("accordion\n")
    with pytest.raises(FullconvError, match="not a list of lines with a number"):
        pascal_context(labels, None)
