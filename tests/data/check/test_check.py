from __future__ import annotations

import gettext
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from fullconv.core import i18n
from fullconv.core.errors import FullconvError
from fullconv.core.i18n import translate
from fullconv.core.labels import voc_color
from fullconv.data.check import rules
from fullconv.data.check.check import check
from fullconv.data.layouts.dataset import load_dataset
from fullconv.data.synthetic import scenes as drawn

pytestmark = pytest.mark.usefixtures("small_images")

TOML = 'classes = ["sky", "road"]\n'


def draw(root: Path, *, values: object = ((0, 1), (1, 255)), toml: str = TOML) -> Path:
    for number, name in enumerate(("train/a", "train/b", "val/c")):
        pixels = np.full((2, 2, 3), 40 * number, np.uint8)
        mask = np.array(values, np.uint8)
        for folder, content in (("images", pixels), ("masks", mask)):
            path = root / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(path)
    (root / "dataset.toml").write_text(toml)
    return root


def test_pixels_and_sizes_are_counted(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    data = load_dataset(draw(tmp_path))
    report = check(data, progress=lambda done, total: calls.append((done, total)))
    assert report.dataset is data
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert report.class_pixels == {"train": [2, 4], "val": [1, 2]}
    assert report.ignored_pixels == {"train": 2, "val": 1}
    assert report.value_pixels == {0: 3, 1: 6, 255: 3}
    assert report.sizes == {(2, 2): 3}
    assert (report.findings, report.errors, report.warnings, report.lossy) == ((), (), (), False)
    assert [row.name for row in report.class_rows] == ["sky", "road", "(ignored)"]
    assert [row.shares["train"] for row in report.class_rows] == [1 / 3, 2 / 3, 1 / 4]


def test_the_fingerprint_depends_on_the_content_not_the_place(tmp_path: Path) -> None:
    first = check(draw(tmp_path / "one")).fingerprint
    assert len(first) == 64
    assert int(first, 16) > 0
    shutil.copytree(tmp_path / "one", tmp_path / "else" / "where")
    assert check(tmp_path / "else" / "where").fingerprint == first
    data = load_dataset(tmp_path / "one")
    reversed_splits = {split: pairs[::-1] for split, pairs in reversed(data.splits.items())}
    assert check(replace(data, splits=reversed_splits)).fingerprint == first


@pytest.mark.parametrize("change", ["image", "mask", "name", "split", "class", "value"])
def test_every_change_changes_the_fingerprint(tmp_path: Path, change: str) -> None:
    first = check(draw(tmp_path)).fingerprint
    if change == "image":
        Image.new("RGB", (2, 2), "red").save(tmp_path / "images/train/a.png")
    elif change == "mask":
        Image.new("L", (2, 2)).save(tmp_path / "masks/train/a.png")
    elif change == "class":
        (tmp_path / "dataset.toml").write_text('classes = ["sky", "street"]')
    elif change == "value":
        (tmp_path / "dataset.toml").write_text(TOML + '[map]\n7 = "sky"')
    else:
        target = "train/z" if change == "name" else "val/a"
        for folder in ("images", "masks"):
            (tmp_path / folder / "train/a.png").rename(tmp_path / folder / f"{target}.png")
    assert check(tmp_path).fingerprint != first


def test_json_text_and_error_of_a_report(tmp_path: Path) -> None:
    report = check(draw(tmp_path, values=((0, 1), (9, 255))))
    table = json.loads(json.dumps(report.to_dict()))
    assert table["class_pixels"]["val"] == {"sky": 1, "road": 1}
    assert table["ignored_pixels"] == {"train": 2, "val": 1}
    assert table["images"] == {"train": 2, "val": 1}
    assert table["sizes"] == [{"height": 2, "width": 2, "images": 3}]
    assert (table["errors"], table["warnings"]) == (1, 0)
    assert table["findings"][0]["rule"] == "unknown-value"
    assert table["findings"][0]["files"][0] == "masks/train/a.png"
    assert table["fingerprint"] == report.fingerprint
    assert table["labels"]["classes"] == ["sky", "road"]

    text = report.text()
    assert "layout folders (images and masks with a folder per split)" in text
    assert "images: train 2, val 1" in text
    assert " 1 #800000 road 50.00% 50.00% (ignored) 33.33% 33.33% of all " in " ".join(text.split())
    assert (
        "ERROR unknown-value: 1 mask value has no class (25.00% of all pixels): 9 25.00%.\n" in text
    )
    assert "    masks/train/a.png\n" in text
    assert '\n    9 = "ignore"' in text
    assert text.endswith("1 error, 0 warnings, 0 notes")
    assert "No problems found." in check(draw(tmp_path)).text()

    with pytest.raises(FullconvError) as caught:
        report.raise_for_errors()
    lines = caught.value.message.splitlines()
    assert lines[0] == f"1 error in the dataset {tmp_path}:"
    assert lines[1].startswith("  unknown-value: 1 mask value has no class (25.00%")
    assert lines[2].startswith("    fix: add to ")
    assert '      9 = "ignore"' in lines
    assert caught.value.hint == f"fullconv check {tmp_path}"


def test_a_report_is_translated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a catalog that turns templates into capitals, no English is left."""
    report = check(draw(tmp_path, values=((0, 1), (9, 255))))

    class Capitals(gettext.NullTranslations):
        def gettext(self, message: str) -> str:
            return re.sub(
                r"{.*?}|[^{}]", lambda m: m[0] if m[0][0] == "{" else m[0].upper(), message
            )

        def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
            return self.gettext(msgid1 if n == 1 else msgid2)

    monkeypatch.setattr(i18n, "_catalog", lambda language: Capitals())
    text = translate(report.text(), "zh").replace(str(tmp_path), "")
    assert "MASK VALUE HAS NO CLASS" in text
    data = {"folders", "images", "masks", "train", "unknown", "value", "dataset", "ignore"}
    assert set(re.findall(r"[a-z]{5,}", text.replace(report.fingerprint, ""))) <= data


def test_five_files_are_listed_and_the_others_counted(tmp_path: Path) -> None:
    draw(tmp_path)
    for number in range(3000):
        (tmp_path / f"images/train/z{number:04}.png").touch()
    report = check(tmp_path)
    assert len(report.to_dict()["findings"][0]["files"]) == 3000
    text = report.text()
    assert "left out 3000 images without a mask of the same name.\n" in text
    assert "z0004.png\n    ... and 2995 more\n" in text
    assert "z0005.png" not in text
    assert len(text.splitlines()) < 30


def test_rare_classes_differ_from_absent_ones(tmp_path: Path) -> None:
    mask = np.zeros((200, 200), np.uint8)
    mask[0, 0] = 1
    draw(tmp_path)
    for name in ("train/a", "train/b", "val/c"):
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
        Image.new("RGB", (200, 200)).save(tmp_path / "images" / f"{name}.png")
    assert " road <0.01% <0.01% " in " ".join(check(tmp_path).text().split())


def test_many_classes_that_never_occur_are_counted(tmp_path: Path) -> None:
    names = ", ".join(f'"thing {k}"' for k in range(75))
    text = check(draw(tmp_path, toml=f"classes = [{names}]\n")).text()
    rows = [line for line in text.splitlines() if " #" in line]
    assert [row.split()[3] for row in rows] == ["0", "1"]
    assert "      ... and 73 classes that never occur\n" in text
    assert "73 of 75 classes never occur: thing 2, " in text
    assert "thing 13 and 61 more.\n" in text
    few = check(draw(tmp_path, toml='classes = ["a", "b", "c"]\n')).text()
    assert " 2  #008000  c " in few


def test_mean_and_std_are_over_all_pixels(tmp_path: Path) -> None:
    every = []
    for number, (name, size) in enumerate({"train/a": (20, 30), "val/b": (50, 60)}.items()):
        pixels = np.random.default_rng(number).integers(0, 100 + 99 * number, (*size, 3), np.uint8)
        for folder, content in (("images", pixels), ("masks", np.zeros(size, np.uint8))):
            path = tmp_path / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(path)
        every.append(pixels.reshape(-1, 3))
    (tmp_path / "dataset.toml").write_text(TOML)
    report = check(tmp_path)
    pixels = np.concatenate(every) / 255
    np.testing.assert_allclose(report.mean, pixels.mean(0))
    np.testing.assert_allclose(report.std, pixels.std(0))
    values = " ".join(f"{value:.3f}" for value in report.mean)
    assert f"red, green and blue, 0-1: mean {values}, std" in report.text()


# Real datasets.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("camvid", ["note near-duplicate"]),
        ("voc2012_sample", ["warning absent-class", "note class-only-in-train", "note imbalance"]),
        ("isbi2012_em", []),  # its classes.txt has the line "255 cell"
        ("kvasir_sample", ["error lossy-mask"]),
        ("fasseg_face", ["error unknown-color", "warning leak"]),
    ],
)
def test_findings_on_real_datasets(shared: Path, name: str, expected: list[str]) -> None:
    report = check(shared / "data" / name)
    assert [f"{finding.level} {finding.rule}" for finding in report.findings] == expected
    pixels = sum(map(sum, report.class_pixels.values())) + sum(report.ignored_pixels.values())
    if name == "camvid":
        assert pixels == 701 * 360 * 480
        assert all(min(counts) > 0 for counts in report.class_pixels.values())
        # Frames a second apart, while the car with the camera waits.
        assert all("/0001TP_009" in file for file in report.findings[0].files)
    elif name == "isbi2012_em":
        assert report.dataset.labels.names == ("membrane", "cell")
        assert report.class_pixels["train"][1] > 3 * report.class_pixels["train"][0] > 0
    elif name == "fasseg_face":
        assert "(2.34% of all pixels)" in report.errors[0].message
        assert "The 6 colors that were probably meant: #ff0000, #7f0000" in report.errors[0].fix
        assert report.warnings[0].message.startswith("6 images are in more than one split")


@pytest.mark.parametrize(
    ("name", "folders"),
    [("isbi2012_em", ("images", "labels")), ("crackforest", ("images", "masks"))],
)
def test_black_and_white_datasets_pass_once_the_fix_is_pasted(
    shared: Path, tmp_path: Path, name: str, folders: tuple[str, str]
) -> None:
    for folder in folders:
        shutil.copytree(shared / "data" / name / folder, tmp_path / folder)
    (finding,) = check(tmp_path).errors
    assert finding.rule == "black-and-white"
    first, lines = finding.fix.split("\n", 1)
    assert first.startswith(f"write {tmp_path / 'dataset.toml'}")
    (tmp_path / "dataset.toml").write_text(lines)
    report = check(tmp_path)
    report.raise_for_errors()
    assert report.dataset.labels.names == ("background", "object")
    assert all(min(pixels) > 0 for pixels in report.class_pixels.values())
    assert report.ignored_pixels == {"train": 0, "val": 0}


# The fault that each rule reports, planted into synthetic scenes.

TABLE = 'classes = ["sky", "building", "road", "pavement", "tree", "car", "person", "pole"]\n'


def values_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def put(values: np.ndarray, path: Path) -> None:
    Image.fromarray(values.astype(np.uint8)).save(path)


def every(root: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change the values of all masks."""
    for mask in root.glob("masks/*/*.png"):
        put(change(values_of(mask)), mask)


def replaced(*pairs: tuple[int, int]) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        table = np.arange(256)
        for old, new in pairs:
            table[old] = new
        return table[values]

    return change


def without_table(root: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    every(root, change)
    (root / "dataset.toml").unlink()


def blurred(values: np.ndarray) -> np.ndarray:
    white = Image.fromarray(np.where(values == 2, 255, 0).astype(np.uint8))
    return np.asarray(white.filter(ImageFilter.GaussianBlur(1)))


def as_jpeg(root: Path) -> None:
    for mask in list(root.glob("masks/*/*.png")):
        Image.fromarray(values_of(mask)).save(mask.with_suffix(".jpg"))
        mask.unlink()


def turned(root: Path) -> None:
    path = root / "images/train/street_0000.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as image:
        image.load()
        image.save(path, exif=exif)


def saved_again(root: Path, source: str, target: str, **options: Any) -> None:
    """Replace an image by another one, byte for byte without options."""
    path = root / f"images/{target}.jpg"
    if not options:
        path.write_bytes((root / f"images/{source}.jpg").read_bytes())
        return
    with Image.open(root / f"images/{source}.jpg") as image:
        image.save(path, **options)


def moved(root: Path, *names: str, by: tuple[int, int]) -> None:
    for name in names:
        mask = root / f"masks/{name}.png"
        put(np.roll(values_of(mask), by, (0, 1)), mask)


def enlarged(root: Path, name: str, factor: int) -> None:
    for path in (root / f"images/{name}.jpg", root / f"masks/{name}.png"):
        values = values_of(path).repeat(factor, 0).repeat(factor, 1)
        put(values[:192], path)  # long, not high


def reduced(root: Path, name: str) -> None:
    for path in (root / f"images/{name}.jpg", root / f"masks/{name}.png"):
        put(values_of(path)[:31], path)


def only_in(root: Path, split: str) -> None:
    """Keep class 7 in one split only."""
    for mask in root.glob("masks/*/*.png"):
        if mask.parent.name != split:
            put(replaced((7, 1))(values_of(mask)), mask)


def named_background(root: Path) -> None:
    (root / "dataset.toml").write_text(TABLE.replace("sky", "background"))


def emptied(root: Path) -> None:
    named_background(root)
    mask = root / "masks/train/street_0001.png"
    put(values_of(mask) * 0, mask)


def filled_with(root: Path, value: int, name: str = "train/street_0001") -> None:
    mask = root / f"masks/{name}.png"
    put(values_of(mask) * 0 + value, mask)


ALL = [f"train/street_000{k}" for k in range(8)]
ALL += [f"{split}/street_000{k}" for split in ("val", "test") for k in range(2)]
SPARE = "train/street_0001"
# rule -> how the fault is planted, and other rules that it breaks inevitably.
FAULTS: dict[str, tuple[Callable[[Path], None], set[str]]] = {
    "unreadable": (lambda r: (r / f"images/{SPARE}.jpg").write_bytes(b"no image"), set()),
    "doubled-stem": (lambda r: put(np.zeros((9, 9, 3)), r / f"images/{SPARE}.png"), set()),
    "unpaired-image": (lambda r: put(np.zeros((9, 9)), r / "images/val/more.png"), set()),
    "unpaired-mask": (lambda r: put(np.zeros((9, 9)), r / "masks/val/more.png"), set()),
    "empty-split": (
        lambda r: [p.unlink() for p in (*r.glob("images/val/*"), *r.glob("masks/val/*"))],  # type: ignore[func-returns-value]
        set(),
    ),
    "size": (turned, set()),
    "lossy-mask": (as_jpeg, set()),
    "black-and-white": (
        lambda r: without_table(r, lambda v: np.where(v == 2, 255, 0)),
        set(),
    ),
    "soft-mask": (lambda r: without_table(r, blurred), set()),
    "unknown-value": (lambda r: every(r, replaced((7, 77))), {"absent-class"}),
    "unknown-color": (
        lambda r: every(r, lambda v: np.array([voc_color(k + 1) for k in range(256)])[v]),
        {"absent-class"},
    ),
    "colors-without-table": (
        lambda r: without_table(r, lambda v: np.array([voc_color(k) for k in range(256)])[v]),
        set(),
    ),
    "absent-class": (lambda r: every(r, replaced((7, 1))), set()),
    "class-not-in-train": (lambda r: only_in(r, "val"), set()),
    "class-only-in-train": (lambda r: only_in(r, "train"), set()),
    "all-ignored": (lambda r: filled_with(r, 255), set()),
    "leak": (lambda r: saved_again(r, SPARE, "val/street_0000"), set()),
    "duplicate": (lambda r: saved_again(r, SPARE, "train/street_0002"), set()),
    "near-leak": (lambda r: saved_again(r, SPARE, "val/street_0000", quality=40), set()),
    "near-duplicate": (lambda r: saved_again(r, SPARE, "train/street_0002", quality=92), set()),
    "shifted-mask": (lambda r: moved(r, SPARE, by=(6, -5)), set()),
    "shifted-masks": (lambda r: moved(r, *ALL, by=(0, 6)), set()),
    "void-share": (lambda r: every(r, replaced((1, 255), (2, 255))), {"absent-class"}),
    "imbalance": (
        lambda r: every(r, lambda v: np.where(np.indices(v.shape)[1] > 8, 2, v)),
        {"absent-class", "class-not-in-train", "class-only-in-train"},
    ),
    "empty-mask": (emptied, set()),
    "one-class-mask": (lambda r: filled_with(r, 2), set()),
    "tiny-image": (lambda r: reduced(r, SPARE), set()),
    "huge-image": (lambda r: enlarged(r, SPARE, 20), set()),
}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn.write(tmp_path_factory.mktemp("clean"), train=8, val=2, test=2)


def test_clean_scenes_have_no_finding(clean: Path) -> None:
    assert check(clean).findings == ()


@pytest.mark.parametrize("rule", FAULTS)
def test_only_the_planted_fault_is_found(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    monkeypatch.undo()  # so that tiny images are found
    root = Path(shutil.copytree(clean, tmp_path / "data"))
    (root / "dataset.toml").write_text(TABLE)
    plant, others = FAULTS[rule]
    plant(root)
    rules = {finding.rule for finding in check(root).findings}
    assert rule in rules
    assert rules <= {rule, *others}


def test_every_rule_has_a_fault() -> None:
    folder = Path(rules.__file__).parent
    text = "".join(path.read_text("utf-8") for path in folder.glob("rules*.py"))
    names = set(re.findall(r'"([a-z]+(?:-[a-z]+)+)"', text))  # other texts have spaces
    assert names == {rule for rule in FAULTS if "-" in rule}
