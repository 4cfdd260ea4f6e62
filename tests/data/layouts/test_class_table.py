"""Class tables: from dataset.toml, text and YAML files, published datasets, and mask values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.data.io import masks
from fullconv.data.layouts.class_catalogue import ade20k, cityscapes, numbered_names, pascal_context
from fullconv.data.layouts.class_table import (
    CAMVID,
    UNDETERMINED,
    VOC,
    LabelSource,
    UndeterminedLabels,
    read_labels,
)
from fullconv.data.layouts.class_table_files import (
    name_list,
    parse_table,
    read_yaml,
    table_from_pairs,
)
from fullconv.data.layouts.settings_file import read_settings

BLURRED = [*[0] * 60, *[255] * 60, *range(0, 256, 16)]


def read(
    root: Path, *values: Any, layout_labels: Labels | None = None, **texts: str
) -> LabelSource:
    """Read the class table of a folder with these files, for masks with these values."""
    for name, text in texts.items():
        suffix = {"dataset": "toml", "data": "yaml"}.get(name, "txt")
        (root / f"{name}.{suffix}").write_text(text)
    paths = []
    for number, mask in enumerate(values):
        array = mask if isinstance(mask, np.ndarray) else np.array([mask], np.uint8)
        paths.append(root / f"{number}.png")
        Image.fromarray(array).save(paths[-1])
    return read_labels(root, read_settings(root), paths, layout_labels=layout_labels)


def class_ids(labels: Labels | None, *values: Any) -> list[int | None]:
    assert labels is not None
    return [labels.class_of(value) for value in values]


# dataset.toml


def test_dataset_toml(tmp_path: Path) -> None:
    text = (
        'classes = ["sky", "road"]\nignore_index = 99\n[map]\n7 = "road"\n"#0a0b0c" = "ignore"\n'
        '8 = "ignore"\n[colors]\nroad = "#804080"\n'
    )
    table = read(tmp_path, layout_labels=VOC, dataset=text)
    assert (table.named, table.source, table.notes) == (True, "", [])
    assert (table.labels.names, table.labels.ignore_index) == (("sky", "road"), 99)
    assert table.labels.colors == ((0, 0, 0), (128, 64, 128))
    values = (0, 1, 7, 8, 99, (10, 11, 12), (128, 64, 128))
    assert class_ids(table.labels, *values) == [0, 1, 1, 99, 99, 99, 1]


def test_dataset_toml_without_classes_changes_another_table(tmp_path: Path) -> None:
    text = 'ignore_index = 77\n[map]\n5 = "road"'
    table = read(tmp_path, classes="0 sky\n1 road\n2 void\n", dataset=text)
    assert class_ids(table.labels, 0, 1, 2, 5, 77, 3) == [0, 1, 77, 1, 77, None]
    assert (table.named, table.source) == (True, "class names from classes.txt")


A = 'classes = ["a"]\n'


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("clases = []", "unknown key 'clases'; expected one of classes, ", "by classes"),
        ("classes = 3", "classes is 3; expected a list of names", "classes = ["),
        ("classes = [1]", "classes is [1]; expected a list of names", "classes = ["),
        ("ignore_index = true", "ignore_index is True; expected a whole", "ignore_index = 255"),
        ("map = 3", "map is 3; expected a table", "[map]"),
        ("classes = [", "is not valid TOML", "classes"),
        (A + '[map]\n3 = "b"', "no class 'b'; expected one of a, ignore", 'replace "b" by "'),
        (A + '[map]\n3 = "ignor"', "no class 'ignor'", 'replace "ignor" by "ignore"'),
        (A + '[map]\nx = "a"', "key 'x'; expected a whole number or a color", "#804080"),
        (A + '[map]\n"#12" = "a"', "color '#12' is not of the form", "#804080"),
        (A + '[colors]\na = "red"', "color 'red' is not of the form", "#804080"),
        (A + "ignore_index = 0", "also the id of class 'a'", "ignore_index = 255"),
        (A + "ignore_index = -100", "does not fit", "ignore_index = 255"),
        ('classes = ["a", "a"]', "must be unique", "classes = ["),
    ],
)
def test_a_wrong_dataset_toml(tmp_path: Path, text: str, message: str, hint: str) -> None:
    with pytest.raises(FullconvError) as caught:
        read(tmp_path, dataset=text)
    assert message in caught.value.message
    assert str(tmp_path / "dataset.toml") in caught.value.message
    assert hint in caught.value.hint


# classes.txt

COLORED = {(1, 2, 3): 0, (9, 8, 7): 1, (0, 0, 0): 255, (1, 1, 1): None}


@pytest.mark.parametrize(
    ("text", "names", "class_ids"),
    [
        ("0 sky\n1 potted plant\n2 tv/monitor\n\n255 void\n", "sky|potted plant|tv/monitor",
         {0: 0, 1: 1, 2: 2, 255: 255, 3: None}),
        ("0 membrane\n255 cell", "membrane|cell", {0: 0, 255: 1, 1: None}),
        ("5 car\n3 road\n4 car", "road|car", {3: 0, 4: 1, 5: 1, 0: None}),
        ("sky\nvoid\nroad", "sky|road", {0: 0, 1: 255, 2: 1}),
        ("__ignore__\n_bg_\ncar", "_bg_|car", {0: 0, 1: 1, 255: 255, 2: None}),
        ("1 2 3 road\n0 0 0 Void\n9,8,7 sky", "road|sky", COLORED),
        ("# label:color_rgb:parts:actions\nroad:1,2,3::\nvoid:0,0,0::\nsky:9,8,7::", "road|sky",
         COLORED),
    ],
)  # fmt: skip
def test_tables_in_text(text: str, names: str, class_ids: dict[Any, int | None]) -> None:
    labels = parse_table(text)
    assert labels is not None
    assert "|".join(labels.names) == names
    assert {value: labels.class_of(value) for value in class_ids} == class_ids
    if class_ids is COLORED:
        assert labels.colors == ((1, 2, 3), (9, 8, 7))


FREE_TEXT = (
    "",
    "0..127 background\n128..255 polyp (JPEG mask: threshold needed)",
    "masks/: 0 background, 255 crack",
    "index = COCO-Stuff id - 1 (0..90 things)",
    "0 sky\nroad",
)
SENTENCES = ("0, sky", "0-127 background", "the names of the classes are in the paper")
NO_LISTS = ("twice\ntwice", "x" * 60, "see labels.txt (__ignore__ -> 255)", *SENTENCES)


@pytest.mark.parametrize("text", [*FREE_TEXT, "void", "300 0 0 road"])
def test_free_text_is_no_table(text: str) -> None:
    assert parse_table(text) is None
    assert table_from_pairs([(0, "void")]) is None


@pytest.mark.parametrize("text", [*FREE_TEXT, *NO_LISTS])
def test_free_text_is_no_list_of_names(text: str) -> None:
    assert name_list(text) == []


@pytest.mark.parametrize(
    "text",
    ["2-wheeler\ncrack (old)\n", "_bg_\nhair, dark\n# no\n\n100% coal\n", "a", "Straße\n道路"],
)
def test_one_name_per_line_is_a_list(text: str) -> None:
    assert name_list(text) == [x for x in text.splitlines() if x and not x.startswith("#")]


@pytest.mark.parametrize(
    ("text", "values", "names", "how"),
    [
        ("dry (old)\n2-wheeler\n", [0, 1, 255], ("dry (old)", "2-wheeler"), ": a name on each"),
        ("a (1)\nvoid\nc", [0, 1, 2], ("a (1)", "c"), ": a name on each line"),
        ("sky\nroad", [0, 1], ("sky", "road"), ": a name on each line"),
        ("sky\nroad\ncar", [0, 1], ("sky", "road", "car"), ""),
        ("disc\nbar", [0, 1, 2, 255], ("background", "disc", "bar"), ": 0 is background"),
        ("a\nb\nc", [0, 3], ("background", "a", "b", "c"), ": 0 is background"),
        ("crack", [0, 1], ("background", "crack"), ": the rest is background"),
        ("crack (old)", [0, 1, 255], ("background", "crack (old)"), ": the rest is background"),
    ],
)
def test_a_list_of_names_that_fits_the_ids(
    tmp_path: Path, text: str, values: list[int], names: tuple[str, ...], how: str
) -> None:
    table = read(tmp_path, values, classes=text)
    assert (table.labels.names, table.named, table.notes) == (names, True, [])
    assert table.source.startswith(f"class names from classes.txt{how}")
    assert table.labels.class_of(255) == 255


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("label_colors.txt", "0 0 0 sky\n250 50 83 road", {(0, 0, 0): 0, (250, 50, 83): 1}),
        ("class_dict.csv", "name,r,g,b\nsky,0,0,0\nroad,250,50,83", {(250, 50, 83): 1}),
        ("class_dict.csv", "Class;Red;Green;Blue\nsky;0;0;0\nroad;9;8;7\n", {(9, 8, 7): 1}),
        ("_classes.csv", "Pixel Value, Class\n 0, sky\n 1, road", {0: 0, 1: 1, 2: None}),
        ("classes.csv", "id\tname\n7\tsky\n9\troad", {7: 0, 9: 1, 0: None}),
        ("codes.txt", "sky\nroad", {0: 0, 1: 1}),
        ("classes.json", '["sky", "road"]', {0: 0, 1: 1}),
        ("classes.json", '{"0": "sky", "3": "road"}', {0: 0, 3: 1, 1: None}),
        ("classes.json", '{"classes": [{"name": "sky", "color": "#000000"}, '
         '{"name": "road", "color": [1, 2, 3]}]}', {(1, 2, 3): 1}),
        ("classes.json", '[{"id": 1, "name": "road", "color": "#010203"}, '
         '{"id": 0, "name": "sky"}]', {0: 0, 1: 1, (1, 2, 3): 1}),
        ("classes.csv", "id,name,r,g,b\n1,road,1,2,3\n0,sky,9,9,9", {0: 0, 1: 1, (1, 2, 3): 1}),
        ("dataset.json", '{"labels": {"road": 1, "sky": 0}, "numTraining": 3}', {0: 0, 1: 1}),
    ],
)  # fmt: skip
def test_files_of_other_names(tmp_path: Path, name: str, text: str, values: dict[Any, Any]) -> None:
    (tmp_path / name).write_text(text)
    table = read(tmp_path, [0, 1])
    assert (table.labels.names, table.named, table.notes) == (("sky", "road"), True, [])
    assert {value: table.labels.class_of(value) for value in values} == values


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("class_dict.csv", "name,r,g,b\nsky,0,0"),
        ("class_dict.csv", "name,r,g,b\nsky,0,0,x"),
        ("class_dict.csv", "color,r,g,b\nsky,0,0,256"),
        ("classes.json", '{"a": {"b": 1}}'),
        ("classes.json", '[{"id": 1}]'),
        ("classes.json", '[{"name": "a", "color": [1, 2]}]'),
        ("classes.json", "[" * 100_000),
        ("classes.json", '{"labels": 3}'),
        ("classes.json", '{"classes": [0, 1, 2]}'),
        ("classes.json", '{"labels": {"a": ' + "9" * 5000 + "}}"),
        ("_classes.csv", "Pixel Value, Class\n0," + "x" * 200_000),
        ("codes.txt", "a\0" * 600_000),
    ],
)
def test_files_that_are_no_class_table(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert not read(tmp_path, [0, 1]).named


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "0 background\n1 disc\n1 ring"),
        ("classes.txt", "0 0 0 sky\n1 1 1 road\n1 1 1 car"),
        ("classes.json", '{"a": 0, "b": 0}'),
    ],
)
def test_a_value_with_two_names_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(FullconvError, match=f"{name}: the value .* has two names"):
        read(tmp_path, [0, 1])


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("utf-16", "gb道路"), ("gb2312", "道路"), ("cp1252", "Straße"), ("utf-8-sig", "道路")],
)
def test_encodings(tmp_path: Path, encoding: str, name: str) -> None:
    (tmp_path / "classes.txt").write_bytes(f"sky\n{name}\n".encode(encoding))
    table = read(tmp_path, [0, 1])
    assert table.labels.names == ("sky", name)
    expected = [] if encoding == "utf-8-sig" else [f"classes.txt is read as {encoding}"]
    assert table.notes == expected


def test_the_tables_of_the_splits_must_agree(tmp_path: Path) -> None:
    paths = [tmp_path / split / "a_mask.png" for split in ("train", "valid")]
    for path, name in zip(paths, ("road", "car"), strict=True):
        path.parent.mkdir()
        Image.fromarray(np.eye(3, dtype=np.uint8)).save(path)
        (path.parent / "_classes.csv").write_text(f"Pixel Value, Class\n0, sky\n1, {name}\n")
    with pytest.raises(FullconvError, match="are different class tables"):
        read_labels(tmp_path, {}, paths)
    (tmp_path / "valid/_classes.csv").write_bytes((tmp_path / "train/_classes.csv").read_bytes())
    assert read_labels(tmp_path, {}, paths).labels.names == ("sky", "road")


@pytest.mark.parametrize(
    ("values", "named"),
    [([0, 1, 2], False), ([0, 4], True), ([0, 2], True), ([9, 11], True), ([11, 11], True)],
)
def test_own_classes_in_the_folders_of_a_published_dataset(
    tmp_path: Path, values: list[int], named: bool
) -> None:
    read(tmp_path, values)
    table = read_labels(
        tmp_path, {}, [tmp_path / "0.png"], layout_labels=CAMVID, layout_is_generic=True
    )
    assert table.named == named
    assert table.labels.names[0] == ("sky" if named else "class 0")
    assert ("do not look like the 11 classes" in table.notes[0]) == (not named)


@pytest.mark.parametrize("values", [[0, 255], BLURRED])
@pytest.mark.parametrize(
    ("text", "proposed"),
    [("dry\nwet", ("dry", "wet")), ("crack (old)", ("background", "crack (old)"))],
)
def test_names_for_black_and_white_are_only_proposed(
    tmp_path: Path, text: str, proposed: tuple[str, ...], values: list[int]
) -> None:
    table = read(tmp_path, values, classes=text)
    assert isinstance(table.labels, UndeterminedLabels)
    assert (table.labels.proposed, table.named) == (proposed, False)
    assert table.source.startswith("class names from classes.txt: ")
    assert table.labels.class_of(255) is None
    # With a map, the user has confirmed the meaning.
    table = read(tmp_path, values, dataset=f'[map]\n255 = "{proposed[1]}"\n')
    assert (table.labels.names, table.named) == (proposed, True)
    assert class_ids(table.labels, 0, 255) == [0, 1]


@pytest.mark.parametrize(
    ("text", "values", "note"),
    [
        ("a (1)\nb", [0, 1, 3], "its 2 names do not fit mask values up to 3"),
        ("void (1)\nbackground", [0, 1, 2], "its 2 names do not fit mask values up to 2"),
        ("a (1)\nb\nc", [0, 255], "its 3 names do not fit mask values up to 255"),
        ("crack (old)", [0, 1, 2], "its 1 name does not fit mask values up to 2"),
        ("masks: 0, 255", [0, 1], "is not a class table (a line is 'value name', 'r g b name' or"),
    ],
)
def test_a_list_of_names_that_does_not_fit_is_noted(
    tmp_path: Path, text: str, values: list[int], note: str
) -> None:
    table = read(tmp_path, values, classes=text)
    assert (table.named, table.labels.names[0]) == (False, "class 0")
    assert note in table.notes[0]


def test_layout_labels_and_a_text_file(tmp_path: Path) -> None:
    table = read(tmp_path, layout_labels=VOC, classes="see the paper: 0, 255")
    assert (table.labels, table.named) == (VOC, True)
    assert "classes.txt is not a class table" in table.notes[0]
    assert table.notes[1] == "class names: the 21 of the layout"
    table = read(tmp_path, layout_labels=CAMVID, classes="\n".join(CAMVID.names))
    assert table.labels.colors == CAMVID.colors
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe\x00")
    assert "not a class table" in read(tmp_path, layout_labels=VOC).notes[0]


# data.yaml


@pytest.mark.parametrize(
    ("text", "names", "mapping"),
    [
        ("names: [road, car]", {0: "road", 1: "car"}, {}),
        ("names:\n  0: road\n  2: car", {0: "road", 2: "car"}, {}),
        ("path: x\nnames: ['1', 2]", {0: "1", 1: "2"}, {}),
        ("names: [yes, no, 1.50]", {0: "yes", 1: "no", 2: "1.50"}, {}),
        ("names: {0: off, 1: true}\nlabel_mapping: {4: 0, no: 1}", {0: "off", 1: "true"}, {4: 0}),
        (
            "names: [a, b]\nlabel_mapping: {-1: ignore_label, 0: ignore_label, 7: 0, 30: 9, x: 1}",
            {0: "a", 1: "b"},
            {0: None, 7: 0, 30: None},
        ),
    ],
)
def test_yaml(tmp_path: Path, text: str, names: dict[int, str], mapping: Any) -> None:
    (tmp_path / "any.yml").write_text(text)
    table = read_yaml(tmp_path)
    assert table is not None
    assert (table.names, table.path, table.mapping) == (names, tmp_path / "any.yml", mapping)
    all_names = tuple(names.get(k, "class 1") for k in range(max(names) + 1))
    assert read(tmp_path).labels.names == all_names


@pytest.mark.parametrize(
    "text",
    [
        *("", "names: road", "names: []", "names: {a: b}", "names: {-1: b}", "names: {0: [x]}"),
        *("names: [~, [x]]", "names: {99999999: x}", "[1, 2]", "names: [", "a: &a [*a]", "- x: 1"),
    ],
)
def test_yaml_without_names_is_skipped(tmp_path: Path, text: str) -> None:
    (tmp_path / "data.yaml").write_text(text)
    assert read_yaml(tmp_path) is None
    (tmp_path / "zz.yaml").write_text("names: [road]")
    assert getattr(read_yaml(tmp_path), "path", None) == tmp_path / "zz.yaml"


def test_the_usual_yaml_file_is_preferred(tmp_path: Path) -> None:
    for name in ("a.yaml", "dataset.yaml", "data.yaml"):
        (tmp_path / name).write_text(f"names: [{name}]")
    assert getattr(read_yaml(tmp_path), "names", None) == {0: "data.yaml"}
    (tmp_path / "data.yaml").write_bytes(b"\xff\xfe\x00")
    assert getattr(read_yaml(tmp_path), "names", None) == {0: "dataset.yaml"}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("names: [sky, road, void]", [0, 1, 2]),
        ("names: {0: sky, 1: road}", [0, 1, 255]),
        ("names: [sky, road]\nlabel_mapping: {0: 0, 3: ignore_label, 7: 1}", [0, 7, 3]),
    ],
)
def test_yaml_is_used_without_another_table(tmp_path: Path, text: str, values: list[int]) -> None:
    table = read(tmp_path, values, data=text)
    assert (table.labels.names, table.named) == (("sky", "road"), True)
    assert table.source == "class names from data.yaml"
    assert masks.read_mask(tmp_path / "0.png", table.labels).tolist() == [[0, 1, 255]]
    assert read(tmp_path, values, layout_labels=CAMVID).labels == CAMVID
    assert read(tmp_path, values, classes="a\nb\nc\n").labels.names == ("a", "b", "c")


def test_values_that_a_mapping_leaves_out_have_no_class(tmp_path: Path) -> None:
    labels = read(tmp_path, data="names: [sky, road]\nlabel_mapping: {7: 0, 8: 1}").labels
    assert class_ids(labels, 7, 8, 0, 1) == [0, 1, None, None]


# Mask values


def test_ids_are_inferred_from_the_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = read(tmp_path, [0, 3], [1, 255])
    assert table.labels == Labels(("class 0", "class 1", "class 2", "class 3"))
    assert table.notes == [
        "class names made up: the mask values are 0 to 3",
        "mask value 255 is ignored",
    ]
    (tmp_path / "broken.png").touch()  # `check` reports it
    paths = [tmp_path / name for name in ("0.png", "1.png", "broken.png")]
    assert read_labels(tmp_path, {}, paths).labels == table.labels
    monkeypatch.setattr("fullconv.data.io.masks.count_values", lambda *_, **__: 1 / 0)
    # The readable masks are counted once.
    assert read_labels(tmp_path, {}, paths[:2]).labels == table.labels
    monkeypatch.undo()
    wide = read(tmp_path, np.array([[*range(0, 301, 3), 65535]], np.uint16)).labels
    assert (len(wide), wide.ignore_index) == (301, 65535)


@pytest.mark.parametrize(
    "mask",
    [
        [0, 255],
        [255, 255],
        [0, 251, 255],
        [0, 64, 128, 255],
        [0, 40],
        [[1, 2, 3]],
        np.array([[0, 5000]], np.uint16),
        BLURRED,
    ],
    ids=["black and white", "white", "stray", "grays", "gap", "color", "large", "blurred"],
)
def test_values_that_are_no_ids_are_undetermined(tmp_path: Path, mask: Any) -> None:
    table = read(tmp_path, mask)
    assert (table.labels, len(table.notes)) == (UNDETERMINED, 1)
    assert UNDETERMINED.class_of(255) is None


# Published datasets


def test_cityscapes() -> None:
    labels = cityscapes(train_ids=False)
    assert len(labels) == 19
    assert class_ids(labels, 7, 8, 11, 33) == [0, 1, 2, 18]
    assert class_ids(labels, 0, 9, 29, 255, 34) == [255, 255, 255, 255, None]
    assert labels.colors[labels.index("person")] == (220, 20, 60)
    assert cityscapes(train_ids=True).class_of(18) == 18


def test_ade20k_counts_from_one(shared: Path, tmp_path: Path) -> None:
    table = shared / "data/ade20k_sample/objectInfo150.csv"
    for labels in (ade20k(None), ade20k(table)):
        assert len(labels) == 150
        assert class_ids(labels, 0, 1, 150) == [255, labels.index("wall"), 149]
    assert ade20k(None).names == ade20k(table).names
    path = tmp_path / "objectInfo150.csv"
    path.write_text("Idx,Name\n1,wall\n")
    with pytest.raises(FullconvError, match="names 1 class; expected 150"):
        ade20k(path)


def test_pascal_context_and_its_subset(tmp_path: Path) -> None:
    labels, subset = tmp_path / "labels.txt", tmp_path / "59_labels.txt"
    labels.write_text("1: accordion\n2: aeroplane\n3: air conditioner\n")
    assert numbered_names(labels)[3] == "air conditioner"
    assert class_ids(pascal_context(labels, None), 0, 3) == [65535, 2]
    subset.write_text("1: aeroplane\n")
    few = pascal_context(labels, subset)
    assert few.names == ("background", "aeroplane")
    assert class_ids(few, 0, 1, 2, 3) == [0, 0, 1, 0]
    subset.write_text("1: zebra\n")
    with pytest.raises(FullconvError, match="selects 'zebra'"):
        pascal_context(labels, subset)
    labels.write_text("accordion\n")
    with pytest.raises(FullconvError, match="not a list of lines with a number"):
        pascal_context(labels, None)
