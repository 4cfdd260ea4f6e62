from __future__ import annotations

import gettext
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pairs import noise, save, turned, write_pairs
from PIL import Image, ImageFilter

from fullconv.core import i18n
from fullconv.core.errors import FullconvError
from fullconv.core.i18n import translate
from fullconv.core.labels import voc_color
from fullconv.data.check import rules
from fullconv.data.check.check import check
from fullconv.data.layouts.dataset import load_dataset
from fullconv.data.synthetic import scenes as synthetic

pytestmark = pytest.mark.usefixtures("small_images")

TOML = 'classes = ["sky", "road"]\n'
NAMES = ("train/a", "train/b", "val/c")


def write(root: Path, *, values: Any = ((0, 1), (1, 255)), toml: str = TOML) -> Path:
    return write_pairs(root, dict.fromkeys(NAMES, values), toml=toml)


def test_pixels_and_sizes_are_counted(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    data = load_dataset(write(tmp_path))
    report = check(data, progress=lambda done, total: calls.append((done, total)))
    assert report.dataset is data
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert report.class_pixels == {"train": [2, 4], "val": [1, 2]}
    assert report.ignored_pixels == {"train": 2, "val": 1}
    assert report.value_pixels == {0: 3, 1: 6, 255: 3}
    assert report.sizes == {(2, 2): 3}
    files = tmp_path / "images/val/c.png", tmp_path / "masks/val/c.png"
    hashes = tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in files)
    assert report.contents["val", "c"] == hashes
    assert (report.findings, report.errors, report.warnings, report.lossy) == ((), (), (), False)
    assert [row.name for row in report.class_rows] == ["sky", "road", "(ignored)"]
    assert [row.shares["train"] for row in report.class_rows] == [1 / 3, 2 / 3, 1 / 4]


def test_the_fingerprint_depends_on_the_content_not_the_place(tmp_path: Path) -> None:
    data = load_dataset(write(tmp_path / "here"))
    first = check(data).fingerprint
    assert re.fullmatch("[0-9a-f]{64}", first)
    shutil.copytree(tmp_path / "here", tmp_path / "else" / "where")
    assert check(tmp_path / "else" / "where").fingerprint == first
    reversed_splits = {split: pairs[::-1] for split, pairs in reversed(data.splits.items())}
    assert check(replace(data, splits=reversed_splits)).fingerprint == first


@pytest.mark.parametrize("change", ["image", "mask", "train/z", "val/a", "class", "value"])
def test_every_change_changes_the_fingerprint(tmp_path: Path, change: str) -> None:
    first = check(write(tmp_path)).fingerprint
    if change == "image":
        save(tmp_path / "images/train/a.png", np.zeros((2, 2, 3)))
    elif change == "mask":
        save(tmp_path / "masks/train/a.png", np.zeros((2, 2)))
    elif change == "class":
        (tmp_path / "dataset.toml").write_text('classes = ["sky", "street"]')
    elif change == "value":
        (tmp_path / "dataset.toml").write_text(TOML + '[map]\n7 = "sky"')
    else:  # the name, or the split
        for folder in ("images", "masks"):
            (tmp_path / folder / "train/a.png").rename(tmp_path / folder / f"{change}.png")
    assert check(tmp_path).fingerprint != first


def test_json_text_and_error_of_a_report(tmp_path: Path) -> None:
    report = check(write(tmp_path, values=((0, 1), (9, 255))))
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
    for part in (
        "layout folders (images and masks with a folder per split)",
        "images: train 2, val 1",
        "ERROR unknown-value: 1 mask value has no class (25.00% of all pixels): 9 25.00%.\n",
        "    masks/train/a.png\n",
        '\n    9 = "ignore"',
    ):
        assert part in text
    assert " 1 #800000 road 50.00% 50.00% (ignored) 33.33% 33.33% of all " in " ".join(text.split())
    assert text.endswith("1 error, 0 warnings, 0 notes")

    with pytest.raises(FullconvError) as caught:
        report.raise_for_errors()
    lines = caught.value.message.splitlines()
    assert lines[0] == f"1 error in the dataset {tmp_path}:"
    assert lines[1].startswith("  unknown-value: 1 mask value has no class (25.00%")
    assert lines[2].startswith("    fix: add to ")
    assert '      9 = "ignore"' in lines
    assert caught.value.hint == f"fullconv check {tmp_path}"
    assert "No problems found." in check(write(tmp_path)).text()


def test_a_report_is_translated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a catalog that turns templates into capitals, no English is left."""
    report = check(write(tmp_path, values=((0, 1), (9, 255))))

    class Capitals(gettext.NullTranslations):
        def gettext(self, message: str) -> str:
            parts = re.split(r"({.*?})", message)  # text, and fields that stay
            return "".join(p if p.startswith("{") else p.upper() for p in parts)

        def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
            return self.gettext(msgid1 if n == 1 else msgid2)

    monkeypatch.setattr(i18n, "_catalog", lambda language: Capitals())
    text = translate(report.text(), "zh").replace(str(tmp_path), "")
    assert "MASK VALUE HAS NO CLASS" in text
    data = {"folders", "images", "masks", "train", "unknown", "value", "dataset", "ignore"}
    assert set(re.findall(r"[a-z]{5,}", text.replace(report.fingerprint, ""))) <= data


def test_five_files_are_listed_and_the_others_counted(tmp_path: Path) -> None:
    write(tmp_path)
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
    text = check(write(tmp_path, values=mask)).text()
    assert " road <0.01% <0.01% " in " ".join(text.split())


def test_many_classes_that_never_occur_are_counted(tmp_path: Path) -> None:
    names = ", ".join(f'"thing {k}"' for k in range(75))
    text = check(write(tmp_path, toml=f"classes = [{names}]\n")).text()
    rows = [line for line in text.splitlines() if " #" in line]
    assert [row.split()[3] for row in rows] == ["0", "1"]
    assert "      ... and 73 classes that never occur\n" in text
    assert "73 of 75 classes never occur: thing 2, " in text
    assert "thing 13 and 61 more.\n" in text
    few = check(write(tmp_path, toml='classes = ["a", "b", "c"]\n')).text()
    assert " 2  #008000  c " in few


def test_mean_and_std_are_over_all_pixels(tmp_path: Path) -> None:
    images = {"train/a": noise(0, (20, 30)) // 2, "val/b": noise(1, (50, 60))}
    write_pairs(tmp_path, {name: image[..., 0] * 0 for name, image in images.items()}, toml=TOML)
    for name, image in images.items():
        save(tmp_path / f"images/{name}.png", image)
    report = check(tmp_path)
    pixels = np.concatenate([image.reshape(-1, 3) for image in images.values()]) / 255
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


# The fault that each rule reports, planted into synthetic scenes.

TABLE = 'classes = ["sky", "building", "road", "pavement", "tree", "car", "person", "pole"]\n'
PALETTE = np.array([voc_color(k) for k in range(256)])
SPARE = "train/street_0001"
Change = Callable[[np.ndarray], Any]


def values_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def change(root: Path, change: Change, pattern: str = "*/*", *, table: bool = True) -> None:
    """Change the values of masks, and remove the class table."""
    for mask in root.glob(f"masks/{pattern}.png"):
        save(mask, change(values_of(mask)))
    if not table:
        (root / "dataset.toml").unlink()


def replaced(*pairs: tuple[int, int]) -> Change:
    table = np.arange(256)
    for old, new in pairs:
        table[old] = new
    return lambda values: table[values]


def blurred(values: np.ndarray) -> np.ndarray:
    white = Image.fromarray(np.where(values == 2, 255, 0).astype(np.uint8))
    return np.asarray(white.filter(ImageFilter.GaussianBlur(1)))


def as_jpeg(root: Path) -> None:
    for mask in list(root.glob("masks/*/*.png")):
        save(mask.with_suffix(".jpg"), values_of(mask))
        mask.unlink()


def upside_down(root: Path) -> None:
    """The photos are stored upside down, and the masks were drawn on them as they are stored."""
    exif = Image.Exif()
    exif[0x0112] = 3
    for path in root.glob("images/*/*.jpg"):
        save(path, values_of(path)[::-1, ::-1], quality=95, exif=exif)
    for path in root.glob("masks/*/*.png"):
        save(path, values_of(path)[::-1, ::-1])


def twelve_bits(root: Path) -> None:
    """Photos of 12 bits in 16-bit files."""
    for path in list(root.glob("images/*/*.jpg")):
        gray = values_of(path).mean(axis=2).astype(np.uint16) * 16
        Image.fromarray(gray).save(path.with_suffix(".png"))
        path.unlink()


def without_train(root: Path) -> None:
    for folder in ("images", "masks"):
        shutil.rmtree(root / folder / "train")
        (root / folder / "val").rename(root / folder / "more")
        shutil.rmtree(root / folder / "more")


def without_val(root: Path) -> None:
    for path in (*root.glob("images/val/*"), *root.glob("masks/val/*")):
        path.unlink()


def copied(root: Path, target: str, **options: Any) -> None:
    """Replace an image by another one, byte for byte without options."""
    source = root / f"images/{SPARE}.jpg"
    if options:
        save(root / f"images/{target}.jpg", values_of(source), **options)
    else:
        shutil.copy(source, root / f"images/{target}.jpg")


def resized(root: Path, factor: int, rows: int) -> None:
    for path in (root / f"images/{SPARE}.jpg", root / f"masks/{SPARE}.png"):
        save(path, values_of(path).repeat(factor, 0).repeat(factor, 1)[:rows])


def two_annotators(root: Path) -> None:
    for number, mask in enumerate(sorted(root.glob("masks/*/*.png"))):
        save(mask, (values_of(mask) == 2) * (255 if number % 2 else 1))
    (root / "dataset.toml").unlink()


def two_palettes(root: Path) -> None:
    """The same classes, but every second file lists their colors in another order."""
    order = np.array([*range(7, -1, -1), *range(8, 256)])
    for number, mask in enumerate(sorted(root.glob("masks/*/*.png"))):
        indices, colors = values_of(mask), PALETTE
        if number % 2:
            indices, colors = order[indices], colors[order]
        image = Image.fromarray(indices.astype(np.uint8))
        image.putpalette(colors.astype(np.uint8).tobytes())
        image.save(mask)


def field_of_view(root: Path) -> None:
    """Masks of one circle, which only tell what the camera sees."""
    change(root, lambda v: np.hypot(*(np.indices(v.shape) - 40)) < 30)
    (root / "dataset.toml").write_text('classes = ["outside", "inside"]')


def emptied(root: Path) -> None:
    (root / "dataset.toml").write_text(TABLE.replace("sky", "background"))
    change(root, np.zeros_like, SPARE)


def only_in_train(root: Path) -> None:
    for split in ("val", "test"):
        change(root, replaced((7, 1)), f"{split}/*")


def only_in_val(root: Path) -> None:
    for split in ("train", "test"):
        change(root, replaced((7, 1)), f"{split}/*")


# Rule -> how the fault is planted.
FAULTS: dict[str, Callable[[Path], Any]] = {
    "unreadable": lambda r: (r / f"images/{SPARE}.jpg").write_bytes(b"no image"),
    "doubled-stem": lambda r: save(r / f"images/{SPARE}.png", np.zeros((9, 9, 3))),
    "unpaired-image": lambda r: save(r / "images/val/more.png", np.zeros((9, 9))),
    "unpaired-mask": lambda r: save(r / "masks/val/more.png", np.zeros((9, 9))),
    "empty-split": without_val,
    "no-train-split": without_train,
    "size": lambda r: copied(r, SPARE, exif=turned()),
    "lossy-mask": as_jpeg,
    "turned-mask": upside_down,
    "black-and-white": lambda r: change(r, lambda v: np.where(v == 2, 255, 0), table=False),
    "mixed-white": two_annotators,
    "palette-order": two_palettes,
    "gray-levels": lambda r: change(r, lambda v: np.minimum(v, 2) * 64, table=False),
    "one-class": lambda r: change(r, lambda v: v * 0 + 2, "train/*"),
    "identical-masks": field_of_view,
    "soft-mask": lambda r: change(r, blurred, table=False),
    "unknown-value": lambda r: change(r, replaced((7, 77))),
    "unknown-color": lambda r: change(r, lambda v: PALETTE[v + 1]),
    "colors-without-table": lambda r: change(r, lambda v: PALETTE[v], table=False),
    "absent-class": lambda r: change(r, replaced((7, 1))),
    "class-not-in-train": only_in_val,
    "class-only-in-train": only_in_train,
    "all-ignored": lambda r: change(r, lambda v: v * 0 + 255, SPARE),
    "leak": lambda r: copied(r, "val/street_0000"),
    "duplicate": lambda r: copied(r, "train/street_0002"),
    "near-leak": lambda r: copied(r, "val/street_0000", quality=40),
    "near-duplicate": lambda r: copied(r, "train/street_0002", quality=92),
    "shifted-mask": lambda r: change(r, lambda v: np.roll(v, (6, -5), (0, 1)), SPARE),
    "shifted-masks": lambda r: change(r, lambda v: np.roll(v, (0, 6), (0, 1))),
    "void-share": lambda r: change(r, replaced((1, 255), (2, 255))),
    "imbalance": lambda r: change(r, lambda v: np.where(np.indices(v.shape)[1] > 8, 2, v)),
    "empty-mask": emptied,
    "one-class-mask": lambda r: change(r, lambda v: v * 0 + 2, SPARE),
    "dark-images": twelve_bits,
    "tiny-image": lambda r: resized(r, 1, 31),
    "huge-image": lambda r: resized(r, 20, 192),  # long, not high
}
# Other rules that a fault breaks inevitably.
INEVITABLE = {
    "unknown-value": {"absent-class"},
    "unknown-color": {"absent-class"},
    "void-share": {"absent-class"},
    "one-class": {"absent-class", "class-not-in-train", "imbalance", "one-class-mask"},
    "imbalance": {"absent-class", "class-not-in-train", "class-only-in-train"},
}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.write(tmp_path_factory.mktemp("clean"), train=8, val=2, test=2)


def test_clean_scenes_have_no_finding(clean: Path) -> None:
    assert check(clean).findings == ()


@pytest.mark.parametrize("rule", FAULTS)
def test_only_the_planted_fault_is_reported(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    monkeypatch.undo()  # so that tiny images are reported
    root = Path(shutil.copytree(clean, tmp_path / "data"))
    (root / "dataset.toml").write_text(TABLE)
    FAULTS[rule](root)
    rules = {finding.rule for finding in check(root).findings}
    assert rule in rules
    assert rules <= {rule, *INEVITABLE.get(rule, ())}


def test_every_rule_has_a_fault() -> None:
    folder = Path(rules.__file__).parent
    text = "".join(path.read_text("utf-8") for path in folder.glob("rules*.py"))
    names = set(re.findall(r'"([a-z]+(?:-[a-z]+)+)"', text))  # other texts have spaces
    assert names == {rule for rule in FAULTS if "-" in rule}
