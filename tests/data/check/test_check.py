from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from fullconv.core.errors import FullconvError
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
    report = check(draw(tmp_path))
    assert report.class_pixels == {"train": [2, 4], "val": [1, 2]}
    assert report.ignored_pixels == {"train": 2, "val": 1}
    assert report.sizes == {(2, 2): 3}
    assert (report.findings, report.errors, report.warnings) == ((), (), ())


def test_a_read_data_set_can_be_checked_and_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    data = load_dataset(draw(tmp_path))
    report = check(data, progress=lambda done, total: told.append((done, total)))
    assert report.dataset is data
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_the_fingerprint_is_of_the_content_not_the_place(tmp_path: Path) -> None:
    first = check(draw(tmp_path / "one")).fingerprint
    assert len(first) == 64
    assert int(first, 16) > 0
    shutil.copytree(tmp_path / "one", tmp_path / "else" / "where")
    assert check(tmp_path / "else" / "where").fingerprint == first
    data = load_dataset(tmp_path / "one")
    turned = {split: pairs[::-1] for split, pairs in reversed(data.splits.items())}
    object.__setattr__(data, "splits", turned)
    assert check(data).fingerprint == first


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


def test_errors_are_raised_with_their_fixes(tmp_path: Path) -> None:
    report = check(draw(tmp_path, values=((0, 1), (9, 9))))
    with pytest.raises(FullconvError) as caught:
        report.raise_for_errors()
    assert f"1 error in the data set {tmp_path}:" in caught.value.message
    assert "unknown-value: 1 mask value has no class (50.00%" in caught.value.message
    assert '9 = "ignore"' in caught.value.message
    assert caught.value.hint == f"fullconv check {tmp_path}"


def test_the_report_is_json(tmp_path: Path) -> None:
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


def test_the_text_has_shares_findings_and_fixes(tmp_path: Path) -> None:
    text = check(draw(tmp_path, values=((0, 1), (9, 255)))).text()
    assert "layout folders (images and masks with a folder per split)" in text
    assert "images: train 2, val 1" in text
    assert " 1 #800000 road 50.00% 50.00% " in " ".join(text.split())
    assert "ERROR unknown-value: " in text
    assert "    masks/train/a.png\n" in text
    assert '\n    9 = "ignore"' in text
    assert text.endswith("1 error, 0 warnings, 0 notes\n")
    assert "Nothing wrong found." in check(draw(tmp_path)).text()


def test_five_files_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    draw(tmp_path)
    for number in range(7):
        Image.new("RGB", (2, 2)).save(tmp_path / "images" / "train" / f"z{number}.png")
    report = check(tmp_path)
    assert len(report.findings[0].files) == 7
    assert "z4.png\n    ... and 2 more\n" in report.text()
    assert "z5.png" not in report.text()


def test_rare_classes_are_not_shown_as_absent(tmp_path: Path) -> None:
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


def test_thousands_of_files_are_counted_too(tmp_path: Path) -> None:
    draw(tmp_path)
    for number in range(3000):
        (tmp_path / f"images/train/z{number:04}.png").touch()
    report = check(tmp_path)
    assert len(report.to_dict()["findings"][0]["files"]) == 3000
    text = report.text()
    assert "left out: 3000 images without a mask of the same name.\n" in text
    assert "z0004.png\n    ... and 2995 more\n" in text
    assert len(text.splitlines()) < 30


def copied(shared: Path, name: str, tmp_path: Path, *folders: str) -> Path:
    for folder in folders:
        shutil.copytree(shared / "data" / name / folder, tmp_path / folder)
    return tmp_path


def paste(root: Path, fix: str) -> None:
    first, lines = fix.split("\n", 1)
    assert first.startswith(f"write {root / 'dataset.toml'}")
    (root / "dataset.toml").write_text(lines)


@pytest.mark.parametrize(
    ("name", "folders"),
    [("isbi2012_em", ("images", "labels")), ("crackforest", ("images", "masks"))],
)
def test_black_and_white_samples_pass_once_the_fix_is_pasted(
    shared: Path, tmp_path: Path, name: str, folders: tuple[str, str]
) -> None:
    root = copied(shared, name, tmp_path, *folders)
    report = check(root)
    assert [finding.rule for finding in report.errors] == ["black-and-white"]
    paste(root, report.errors[0].fix)
    report = check(root)
    report.raise_for_errors()
    assert report.dataset.labels.names == ("background", "object")
    assert all(min(pixels) > 0 for pixels in report.class_pixels.values())
    assert report.ignored_pixels == {"train": 0, "val": 0}


def test_camvid_has_no_error(shared: Path) -> None:
    report = check(shared / "data" / "camvid")
    assert report.errors == ()
    total = sum(
        sum(p) + i
        for p, i in zip(report.class_pixels.values(), report.ignored_pixels.values(), strict=True)
    )
    assert total == 701 * 360 * 480
    assert all(min(pixels) > 0 for pixels in report.class_pixels.values())


def test_the_voc_sample_lacks_classes_but_has_no_error(shared: Path) -> None:
    report = check(shared / "data" / "voc2012_sample")
    assert report.errors == ()
    assert [finding.rule for finding in report.warnings] == ["absent-class"]
    rules_of = [finding.rule for finding in report.findings]  # all true of a sample of 100
    assert rules_of == ["absent-class", "class-only-in-train", "imbalance"]
    assert "aeroplane" in report.warnings[0].message
    assert ", train" in report.warnings[0].message


def test_the_kvasir_sample_has_jpeg_masks(shared: Path) -> None:
    report = check(shared / "data" / "kvasir_sample")
    assert [finding.rule for finding in report.errors] == ["lossy-mask"]
    assert len(report.errors[0].files) == 5


def test_the_face_sample_has_blended_colours_and_a_leak(shared: Path) -> None:
    report = check(shared / "data" / "fasseg_face")
    assert [finding.rule for finding in report.errors] == ["unknown-color"]
    assert "(2.34% of all pixels)" in report.errors[0].message
    assert "Meant are probably 6: #ff0000, #7f0000, #ffff00" in report.errors[0].fix
    leak = next(finding for finding in report.warnings if finding.rule == "leak")
    assert leak.message.startswith("6 images")


def test_black_and_white_masks_whose_classes_txt_says_what_255_is_are_read(shared: Path) -> None:
    report = check(shared / "data" / "isbi2012_em")  # its classes.txt has the line "255 cell"
    assert report.findings == ()
    assert report.dataset.labels.names == ("membrane", "cell")
    assert report.class_pixels["train"][1] > 3 * report.class_pixels["train"][0] > 0


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
    shown = " ".join(f"{value:.3f}" for value in report.mean)
    assert f"red, green and blue, 0-1: mean {shown}, std" in report.text()


# Each rule's fault, planted into drawn scenes.

TABLE = 'classes = ["sky", "building", "road", "pavement", "tree", "car", "person", "pole"]\n'


def values_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def put(values: np.ndarray, path: Path) -> None:
    Image.fromarray(values.astype(np.uint8)).save(path)


def every(root: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Changes the values of all masks."""
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
    image = root / "images/train/street_0000.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(image) as image:
        image.load()
        image.save(image, exif=exif)


def saved_again(root: Path, source: str, target: str, **options: Any) -> None:
    """An image saved again in the place of another one, byte for byte without options."""
    there = root / f"images/{target}.jpg"
    if not options:
        there.write_bytes((root / f"images/{source}.jpg").read_bytes())
        return
    with Image.open(root / f"images/{source}.jpg") as image:
        image.save(there, **options)


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
    """Class 7 stays in one split."""
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
# rule -> what is done, and what follows from it by necessity.
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
def test_a_planted_fault_is_the_only_one_found(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    monkeypatch.undo()  # here tiny images are meant to be found
    root = Path(shutil.copytree(clean, tmp_path / "data"))
    (root / "dataset.toml").write_text(TABLE)
    plant, besides = FAULTS[rule]
    plant(root)
    found = {finding.rule for finding in check(root).findings}
    assert rule in found
    assert found <= {rule, *besides}


def test_every_rule_has_its_fault() -> None:
    source = Path(rules.__file__).parent
    text = "".join(path.read_text(encoding="utf-8") for path in source.glob("*.py"))
    calls = [
        node
        for node in ast.walk(ast.parse(text.replace("from __future__ import annotations", "")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Finding", "_leak")
    ]
    names = {
        word
        for call in calls
        for part in ast.walk(call.args[1])
        if isinstance(part, ast.Constant) and isinstance(word := part.value, str)
    }
    names -= {"unpaired-"}
    assert names == set(FAULTS) - {"unpaired-image", "unpaired-mask"}
