from __future__ import annotations

import pytest

from fullconv.data.layouts.class_table_files import name_list, parse_table, table_from_pairs


def test_value_and_name() -> None:
    labels = parse_table("0 sky\n1 potted plant\n2 tv/monitor\n\n255 void\n")
    assert labels is not None
    assert labels.names == ("sky", "potted plant", "tv/monitor")
    assert [labels.class_of(v) for v in (0, 1, 2, 255, 3)] == [0, 1, 2, 255, None]


def test_values_that_are_no_ids_close_the_table() -> None:
    labels = parse_table("0 membrane\n255 cell")
    assert labels is not None
    assert [labels.class_of(v) for v in (0, 255, 1)] == [0, 1, None]
    merged = parse_table("5 car\n3 road\n4 car")
    assert merged is not None
    assert merged.names == ("road", "car")
    assert [merged.class_of(v) for v in (3, 4, 5, 0, 1)] == [0, 1, 1, None, None]


def test_colors_and_names() -> None:
    for text in (
        "128 64 128 road\n0 0 0 Void\n9,8,7 sky",
        "road:128,64,128::\nvoid:0,0,0::\nsky:9,8,7::",
    ):
        labels = parse_table("# label:color_rgb:parts:actions\n" + text)
        assert labels is not None
        assert labels.names == ("road", "sky")
        assert labels.colors == ((128, 64, 128), (9, 8, 7))
        found = [labels.class_of(v) for v in ((128, 64, 128), (9, 8, 7), (0, 0, 0), (1, 1, 1))]
        assert found == [0, 1, 255, None]


def test_names_alone_are_counted() -> None:
    labels = parse_table("sky\nvoid\nroad")
    assert labels is not None
    assert labels.names == ("sky", "road")
    assert [labels.class_of(v) for v in (0, 1, 2)] == [0, 255, 1]
    labelme = parse_table("__ignore__\n_background_\ncar")
    assert labelme is not None
    assert [labelme.class_of(v) for v in (0, 1, 255, 2)] == [0, 1, 255, None]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0..127 background\n128..255 polyp (JPEG mask: threshold needed)",
        "masks/: 0 background, 255 crack",
        "index = COCO-Stuff id - 1 (0..90 things)",
        "void",
        "300 0 0 road",
        "0 sky\nroad",
    ],
)
def test_free_text_is_no_table(text: str) -> None:
    assert parse_table(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "2-wheeler\ncrack (old)\n",
        "_bg_\nhair, dark\n# a comment\n\n100% coal\n",
        "a",
        "Straße\n道路",
    ],
)
def test_a_name_on_each_line_is_a_list(text: str) -> None:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert name_list(text) == lines


@pytest.mark.parametrize(
    "text",
    [
        "0 sky\nroad",
        "0, sky",
        "0..127 background\n128..255 polyp (JPEG mask: threshold needed)",
        "0-127 background",
        "masks/: 0 background, 255 crack",
        "index = COCO-Stuff id - 1",
        "see semantic_segmentation/labels.txt (__ignore__ -> 255)",
        "the names of the classes are in the paper",
        "twice\ntwice",
        "x" * 60,
        "",
    ],
)
def test_what_is_no_list_of_names(text: str) -> None:
    assert name_list(text) == []


def test_pairs_without_a_name_that_counts_are_no_table() -> None:
    assert table_from_pairs([(0, "void")]) is None
