from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.data.io import masks
from fullconv.data.layouts import class_table as tables
from fullconv.data.layouts.class_table import (
    UNDETERMINED,
    UndeterminedLabels,
    _count_mask_values,
    infer_labels,
    is_blurred,
    otsu_threshold,
    read_labels,
    read_settings,
)


def infer(paths, notes):
    return infer_labels(_count_mask_values(paths), notes)


def toml(folder: Path, text: str) -> Path:
    (folder / "dataset.toml").write_text(text)
    return folder


def labels_of(folder: Path, known: Labels | None = None) -> tuple[Labels, bool, list[str]]:
    table = read_labels(folder, read_settings(folder), [], layout_labels=known)
    return table.labels, table.named, [*table.notes, *([table.source] if table.source else [])]


def grey(folder: Path, *masks: object) -> list[Path]:
    found = []
    for number, values in enumerate(masks):
        found.append(folder / f"{number}.png")
        Image.fromarray(np.asarray(values)).save(found[-1])
    return found


def test_a_full_dataset_toml(tmp_path: Path) -> None:
    toml(
        tmp_path,
        'classes = ["sky", "road"]\nignore_index = 99\n'
        '[map]\n7 = "road"\n"#0a0b0c" = "ignore"\n8 = "ignore"\n[colors]\nroad = "#804080"\n',
    )
    labels, named, notes = labels_of(tmp_path, layout_labels=tables.VOC)
    assert (labels.names, labels.ignore_index, named, notes) == (("sky", "road"), 99, True, [])
    assert labels.colors == ((0, 0, 0), (128, 64, 128))
    values = (0, 1, 7, 8, 99, (10, 11, 12), (128, 64, 128))
    assert [labels.class_of(v) for v in values] == [0, 1, 1, 99, 99, 99, 1]


def test_dataset_toml_without_classes_lies_on_top_of_the_other_table(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("0 sky\n1 road\n2 void\n")
    toml(tmp_path, 'ignore_index = 77\n[map]\n5 = "road"')
    labels, named, notes = labels_of(tmp_path)
    assert [labels.class_of(v) for v in (0, 1, 2, 5, 77, 3)] == [0, 1, 77, 1, 77, None]
    assert (named, notes) == (True, ["class names from classes.txt"])


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            "clases = []",
            "unknown key 'clases'; there are classes, ignore_index",
            "classes in place",
        ),
        ("classes = 3", "classes is 3; expected a list of names", "classes = ["),
        ("classes = [1]", r"classes is \[1\]; expected a list of names", "classes = ["),
        ("ignore_index = true", "ignore_index is True; expected a whole", "ignore_index = 255"),
        ("map = 3", "map is 3; expected a table", "[map]"),
        ("classes = [", "is not valid TOML", "classes"),
        (
            'classes = ["a"]\n[map]\n3 = "b"',
            "no class 'b'; there are a and ignore",
            'in place of "b"',
        ),
        ('classes = ["road"]\n[map]\n3 = "raod"', "no class 'raod'", '"road" in place of "raod"'),
        ('classes = ["a"]\n[map]\nx = "a"', "key 'x'; expected a whole number or a c", "#804080"),
        ('classes = ["a"]\n[map]\n"#12" = "a"', "colour '#12' is not of the form", "#804080"),
        ('classes = ["a"]\n[colors]\na = "red"', "colour 'red' is not of the form", "#804080"),
        ('classes = ["a"]\nignore_index = 0', "also the id of class 'a'", "ignore_index = 255"),
        ('classes = ["a"]\nignore_index = -100', "does not fit a mask", "ignore_index = 255"),
        ('classes = ["a", "a"]', "must differ", "classes = ["),
    ],
)
def test_a_wrong_dataset_toml_is_named(tmp_path: Path, text: str, message: str, hint: str) -> None:
    toml(tmp_path, text)
    with pytest.raises(FullconvError, match=message) as caught:
        labels_of(tmp_path)
    assert str(tmp_path / "dataset.toml") in caught.value.message
    assert hint in caught.value.hint


def test_without_dataset_toml_there_are_no_settings(tmp_path: Path) -> None:
    assert read_settings(tmp_path) == {}


def test_free_text_is_left_alone_and_said(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("see the paper: 0, 255")
    labels, named, notes = labels_of(tmp_path, layout_labels=tables.VOC)
    assert (labels, named) == (tables.VOC, True)
    assert "classes.txt is not a class table" in notes[0]
    assert notes[1] == "class names: the 21 that the layout is known for"


@pytest.mark.parametrize(
    ("text", "values", "names", "said"),
    [
        ("dry (old)\n2-wheeler\n", [0, 1, 255], ("dry (old)", "2-wheeler"), "a name on each line"),
        ("a (1)\nvoid\nc", [0, 1, 2], ("a (1)", "c"), "a name on each line"),
        ("sky\nroad", [0, 1], ("sky", "road"), "a name on each line"),
        ("sky\nroad\ncar", [0, 1], ("sky", "road", "car"), ""),
        ("a (1)\nb\nc", [0, 1], ("a (1)", "b", "c"), "a name on each line"),
        ("crack", [0, 1], ("background", "crack"), "the rest is background"),
        ("crack (old)", [0, 1, 255], ("background", "crack (old)"), "the rest is background"),
    ],
)
def test_a_list_of_names_counts_where_it_fits_the_ids(
    tmp_path: Path, text: str, values: list[int], names: tuple[str, ...], said: str
) -> None:
    paths = grey(tmp_path, np.array([values], np.uint8))
    (tmp_path / "classes.txt").write_text(text)
    labels, named, notes = read_labels(tmp_path, {}, paths)
    assert (labels.names, named) == (names, True)
    assert notes == [f"class names from classes.txt{': ' * bool(said)}{said}"]
    assert labels.class_of(255) == 255


@pytest.mark.parametrize("values", [[0, 255], [*[0] * 60, *[255] * 60, *range(0, 256, 16)]])
@pytest.mark.parametrize(
    ("text", "proposed"),
    [
        ("dry\nwet", ("dry", "wet")),
        ("crack", ("background", "crack")),
        ("crack (old)", ("background", "crack (old)")),
    ],
)
def test_names_for_black_and_white_are_proposed_not_taken(
    tmp_path: Path, text: str, proposed: tuple[str, ...], values: list[int]
) -> None:
    paths = grey(tmp_path, np.array([values], np.uint8))
    (tmp_path / "classes.txt").write_text(text)
    labels, named, notes = read_labels(tmp_path, {}, paths)
    assert isinstance(labels, UndeterminedLabels)
    assert (labels.proposed, named) == (proposed, False)
    assert notes[0].startswith("class names from classes.txt: ")
    assert labels.class_of(255) is None
    # With a map somebody has said what is meant.
    toml(tmp_path, f'[map]\n255 = "{proposed[1]}"\n')
    labels, named, _ = read_labels(tmp_path, read_settings(tmp_path), paths)
    assert (labels.names, named, labels.class_of(255), labels.class_of(0)) == (proposed, True, 1, 0)


@pytest.mark.parametrize(
    ("text", "values", "said"),
    [
        ("a (1)\nb", [0, 1, 2], "is set aside: its 2 names do not fit mask values to 2"),
        ("a (1)\nb\nc", [0, 255], "is set aside: its 3 names do not fit mask values to 255"),
        ("crack (old)", [0, 1, 2], "is set aside: its 1 name does not fit mask values to 2"),
        ("masks: 0, 255", [0, 1], "is not a class table (a line is 'value name', 'r g b name' or"),
    ],
)
def test_a_list_of_names_that_does_not_fit_is_set_aside_and_said(
    tmp_path: Path, text: str, values: list[int], said: str
) -> None:
    paths = grey(tmp_path, np.array([values], np.uint8))
    (tmp_path / "classes.txt").write_text(text)
    labels, named, notes = read_labels(tmp_path, {}, paths)
    assert not named
    assert notes[0].startswith(f"classes.txt {said}")
    assert labels.names[0] == "class 0"
    assert "see" not in " ".join(notes)  # `check` prints them


def test_a_wrong_classes_txt_is_named(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe\x00")
    assert "not a class table" in labels_of(tmp_path, layout_labels=tables.VOC)[2][0]


def test_known_names_keep_known_colours(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("\n".join(tables.CAMVID.names))
    assert labels_of(tmp_path, layout_labels=tables.CAMVID)[0].colors == tables.CAMVID.colors


def test_ids_are_inferred_from_the_masks(tmp_path: Path) -> None:
    notes: list[str] = []
    masks = grey(tmp_path, np.uint8([[0, 3]]), np.uint8([[1, 255]]))
    (tmp_path / "broken.png").touch()
    labels = infer([*masks, tmp_path / "broken.png"], notes)
    assert labels == Labels(("class 0", "class 1", "class 2", "class 3"))
    assert notes == [
        "class names made up: mask values go from 0 to 3",
        "mask value 255 taken as ignore",
    ]
    wide = infer(grey(tmp_path, np.uint16([[0, 299, 65535]])), notes)
    assert (len(wide), wide.ignore_index) == (300, 65535)


@pytest.mark.parametrize(
    "mask",
    [
        np.uint8([[0, 255]]),
        np.uint8([[255, 255]]),
        np.uint8([[[1, 2, 3]]]),
        np.uint16([[0, 5000]]),
        np.uint8([[0] * 60 + [255] * 60 + list(range(0, 256, 16))]),
    ],
)
def test_what_is_no_id_is_left_undecided_and_cannot_be_read_as_one(
    tmp_path: Path, mask: np.ndarray
) -> None:
    notes: list[str] = []
    assert infer(grey(tmp_path, mask), notes) is UNDETERMINED
    assert len(notes) == 1
    assert UNDETERMINED.class_of(255) is None


def test_soft_is_not_many_classes_beside_ignore() -> None:
    voc = dict.fromkeys(range(21), 10) | {0: 1000, 255: 100}
    assert not is_blurred(voc)
    assert is_blurred(dict.fromkeys(range(0, 256, 20), 10) | {0: 1000, 255: 1000})
    assert not is_blurred(dict.fromkeys(range(256), 10))
    assert not is_blurred({0: 10, 255: 10})


@given(st.dictionaries(st.integers(0, 255), st.integers(1, 1000), min_size=2, max_size=12))
def test_otsu_leaves_the_least_spread(counts: dict[int, int]) -> None:
    """Against every threshold there is, by the definition: the weighted variance of both sides."""
    values = np.repeat(list(counts), list(counts.values())).astype(np.float64)

    def spread(threshold: float) -> float:
        sides = values[values <= threshold], values[values > threshold]
        return sum(side.var() * side.size for side in sides if side.size)

    levels = sorted(counts)
    best = min(spread(level) for level in levels[:-1])
    assert spread(otsu_threshold(counts)) <= best * (1 + 1e-9) + 1e-6


def test_what_the_masks_hold_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = grey(tmp_path, np.array([[0, 7]], np.uint8), np.array([[3, 255]], np.uint8))
    first = infer(paths, [])
    assert len(first) == 8

    def never(*_: object, **__: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr("fullconv.data.io.masks.count_values", never)
    assert infer(paths, []) == first


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("names: [sky, road, void]", [[0, 1, 2]], [[0, 1, 255]]),
        ("names: {0: sky, 1: road}", [[0, 1, 255]], [[0, 1, 255]]),
        (
            "names: [sky, road]\nlabel_mapping: {0: 0, 3: ignore_label, 7: 1}",
            [[0, 7, 3]],
            [[0, 1, 255]],
        ),
    ],
)
def test_names_in_the_yaml_file_of_ultralytics(
    tmp_path: Path, text: str, values: list[list[int]], expected: list[list[int]]
) -> None:
    paths = grey(tmp_path, np.array(values, np.uint8))
    (tmp_path / "data.yaml").write_text(text)
    labels, named, notes = read_labels(tmp_path, {}, paths)
    assert (labels.names, named, notes) == (("sky", "road"), True, ["class names from data.yaml"])
    assert masks.read_mask(paths[0], labels).tolist() == expected
    assert read_labels(tmp_path, {}, paths, layout_labels=tables.CAMVID)[0] == tables.CAMVID
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    assert read_labels(tmp_path, {}, paths)[0].names == ("a", "b", "c")


def test_what_a_mapping_leaves_out_has_no_class(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("names: [sky, road]\nlabel_mapping: {7: 0, 8: 1}")
    labels = read_labels(tmp_path, {}, [])[0]
    assert [labels.class_of(value) for value in (7, 8, 0, 1)] == [0, 1, None, None]
