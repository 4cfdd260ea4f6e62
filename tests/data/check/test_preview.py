from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.data.check.check import check
from fullconv.data.check.preview import save_preview
from fullconv.data.check.repair import repair
from fullconv.data.synthetic import scenes as drawn
from fullconv.visualization import contact_sheet
from fullconv.visualization import overlay as draw


def colors_of(path: Path) -> set[tuple[int, ...]]:
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    return set(map(tuple, np.unique(pixels, axis=0).tolist()))


@pytest.fixture
def drawn_rows(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The captions of the rows, in the order in which they are drawn."""
    found: list[str] = []

    def grid(rows: Any, titles: Any, captions: list[str], **options: Any) -> Image.Image:
        found.extend(captions)
        return real(rows, titles, captions, **options)

    real = contact_sheet.contact_sheet
    monkeypatch.setattr(draw, "grid", grid)
    return found


@pytest.fixture
def legends(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, tuple[int, ...]]]:
    """The legends that are drawn."""
    found: list[dict[str, tuple[int, ...]]] = []

    def swatches(colors: Any, **options: Any) -> np.ndarray:
        found.append(dict(colors))
        return real(colors, **options)

    real = draw.swatches
    monkeypatch.setattr(draw, "swatches", swatches)
    return found


def two_colors(root: Path, *, toml: str = 'classes = ["sky", "road"]\n', white: int = 1) -> Path:
    """Two pairs whose photo is one colour, and whose mask is class 0 above and `white` below."""
    values = np.zeros((240, 300), np.uint8)
    values[120:] = white
    for folder, content in (("images", np.full((240, 300, 3), PHOTO, np.uint8)), ("masks", values)):
        for name in "ab":
            path = root / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(path)
    if toml:
        (root / "dataset.toml").write_text(toml)
    return root


PHOTO = (40, 101, 200)


def cells_of(path: Path) -> list[list[tuple[int, ...]]]:
    """Of each image of the first row, the colours in the middle of its upper and lower half."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    line = pixels[100]  # through all images, below the titles
    there = np.flatnonzero((line != 255).any(axis=1))
    starts = [int(there[0]), *(int(b) for a, b in pairwise(there) if b - a > 2)]
    return [[tuple(pixels[y, x + 150].tolist()) for y in (100, 230)] for x in starts]


def test_photos_and_labels_stand_side_by_side(
    tmp_path: Path, drawn_rows: list[str], legends: list[dict[str, tuple[int, ...]]]
) -> None:
    path = tmp_path / "deep" / "sheet.png"
    save_preview(check(two_colors(tmp_path / "data")), path, findings=False)
    sky, road = (0, 0, 0), (128, 0, 0)
    over_sky = tuple((channel + 1) // 2 for channel in PHOTO)
    over_road = ((40 + 128 + 1) // 2, *over_sky[1:])
    assert cells_of(path) == [[PHOTO, PHOTO], [sky, road], [over_sky, over_road]]
    assert over_sky[1] == 51  # a half, upwards
    assert drawn_rows == ["train: a", "val: b"]
    assert legends == [{"sky": sky, "road": road}]


def test_the_legend_has_what_is_shown_and_what_does_not_count(
    tmp_path: Path, legends: list[dict[str, tuple[int, ...]]]
) -> None:
    root = two_colors(tmp_path / "data", toml='classes = ["sky", "road", "car"]\n', white=255)
    save_preview(check(root), tmp_path / "a.png")
    assert legends == [{"sky": (0, 0, 0), "(ignored)": draw.NEUTRAL}]
    root = two_colors(tmp_path / "strange", white=9)
    save_preview(check(root), tmp_path / "b.png")
    assert legends[1:] == [{"sky": (0, 0, 0), "(no class)": (255, 0, 255)}]
    assert cells_of(tmp_path / "b.png")[1] == [(0, 0, 0), (255, 0, 255)]


BLACK, RED = (0, 0, 0), (128, 0, 0)
OVER_RED = tuple((a + b + 1) // 2 for a, b in zip(PHOTO, RED, strict=True))


def test_a_black_background_is_not_drawn_over_the_photo(
    tmp_path: Path, legends: list[dict[str, tuple[int, ...]]]
) -> None:
    root = two_colors(tmp_path / "data", toml='classes = ["background", "crack"]\n')
    save_preview(check(root), tmp_path / "a.png")
    assert cells_of(tmp_path / "a.png") == [[PHOTO, PHOTO], [BLACK, RED], [PHOTO, OVER_RED]]
    assert legends == [{"background": BLACK, "crack": RED}]
    # The first row of the crack is its outline.
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    column = pixels[:, np.flatnonzero((pixels == OVER_RED).all(axis=2).any(axis=0))[-1]]
    first = int(np.flatnonzero((column == OVER_RED).all(axis=1))[0])
    assert [tuple(column[y].tolist()) for y in (first - 2, first - 1)] == [PHOTO, RED]
    toml = 'classes = ["background", "crack"]\n[colors]\nbackground = "#0000ff"\n'
    save_preview(check(two_colors(tmp_path / "blue", toml=toml)), tmp_path / "b.png")
    over = tuple((a + b + 1) // 2 for a, b in zip(PHOTO, (0, 0, 255), strict=True))
    assert cells_of(tmp_path / "b.png")[-1] == [over, OVER_RED]


@pytest.mark.parametrize("blurred", [False, True])
def test_black_and_white_is_drawn_as_it_is_proposed(
    tmp_path: Path, legends: list[dict[str, tuple[int, ...]]], blurred: bool
) -> None:
    """In the colours of the legend, which are those of a repaired copy."""
    root = two_colors(tmp_path / "data", toml="", white=255)
    for mask in (root / "masks").iterdir() if blurred else ():
        values = np.array(Image.open(mask))
        values[115:125] = np.linspace(12, 243, 10).round()[:, None]
        Image.fromarray(values).save(mask)
    report = check(root)
    save_preview(report, tmp_path / "a.png")
    assert legends == [{"background (proposed)": BLACK, "object (proposed)": RED}]
    assert cells_of(tmp_path / "a.png") == [[PHOTO, PHOTO], [BLACK, RED], [PHOTO, OVER_RED]]
    assert {one.color for one in report.meanings} == {BLACK, RED}
    repair(report, tmp_path / "fixed")
    save_preview(check(tmp_path / "fixed"), tmp_path / "b.png", findings=False)
    assert legends[1] == {"background": BLACK, "object": RED}
    assert cells_of(tmp_path / "b.png") == cells_of(tmp_path / "a.png")


def test_what_was_found_comes_first_and_no_pair_twice(
    tmp_path: Path, drawn_rows: list[str]
) -> None:
    """Two rows of each finding, one for a pair that two findings name, and six others."""
    root = drawn.write(tmp_path / "data", train=12, val=2, test=1, size=(48, 64))
    masks = sorted((root / "masks" / "train").iterdir())
    for number, mask in enumerate(masks[:5]):
        ids = np.array(Image.open(mask))
        ids[:20] = 77
        image = Image.fromarray(ids)
        image.putpalette([0] * 768)
        image.save(mask)
        if number == 1:
            pair = root / "images/val/street_0000.jpg"
            (root / "images/train" / f"{mask.stem}.jpg").write_bytes(pair.read_bytes())
    report = check(root)
    assert [finding.rule for finding in report.findings] == ["unknown-value", "leak"]
    save_preview(report, tmp_path / "a.png")
    assert drawn_rows[:3] == [
        "error unknown-value: train/street_0000",
        "error unknown-value, warning leak: train/street_0001",
        "warning leak: val/street_0000",
    ]
    assert len(drawn_rows) == 9
    names = [caption.rpartition("/")[2].rpartition(" ")[2] for caption in drawn_rows]
    assert len({(c.split(": ")[-1], n) for c, n in zip(drawn_rows, names, strict=True)}) == 9
    assert all(not caption.startswith(("error", "warning")) for caption in drawn_rows[3:])
    drawn_rows.clear()
    save_preview(report, tmp_path / "b.png", findings=False)
    assert len(drawn_rows) == 6
    assert (drawn_rows[0], drawn_rows[-1]) == ("train: street_0000", "test: street_0000")


@pytest.mark.parametrize("size", [(40, 500), (500, 40), (240, 320), (9, 7)])
def test_a_sheet_is_no_tower(tmp_path: Path, size: tuple[int, int]) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for number in range(12):
            ids = np.indices(size)[1] % 2
            Image.fromarray(ids.astype(np.uint8)).save(tmp_path / folder / f"{number}.png")
    (tmp_path / "dataset.toml").write_text('classes = ["a", "b"]\n')
    save_preview(check(tmp_path), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.height < 2400  # 12 rows of such would be 6000


@pytest.mark.parametrize("kind", ["colours", "ids"])
def test_masks_without_a_meaning_are_shown_as_they_are(tmp_path: Path, kind: str) -> None:
    values = np.zeros((40, 50, 3), np.uint8)
    values[:20] = {"colours": (200, 30, 90), "ids": 3}[kind]
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for name in "ab":
            content = values if kind == "colours" or folder == "images" else values[..., 0]
            Image.fromarray(content).save(tmp_path / folder / f"{name}.png")
    save_preview(check(tmp_path), tmp_path / "sheet.png")
    wanted = {"colours": (200, 30, 90), "ids": (128, 128, 0)}[kind]
    assert wanted in colors_of(tmp_path / "sheet.png")


def test_pairs_of_different_sizes_are_shown_side_by_side(tmp_path: Path) -> None:
    root = drawn.write(tmp_path / "data", train=1, val=1, test=1, size=(48, 64))
    mask = root / "masks" / "train" / "street_0000.png"
    Image.open(mask).resize((32, 24), Image.Resampling.NEAREST).save(mask)
    save_preview(check(root), tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").is_file()


def test_what_cannot_be_drawn_or_written_is_said(scenes: Path, tmp_path: Path) -> None:
    report = check(scenes)
    with pytest.raises(FullconvError, match=r"written as PNG, not as 'a\.jpg'") as caught:
        save_preview(report, tmp_path / "a.jpg")
    assert caught.value.hint == "--preview a.png"
    (tmp_path / "file").touch()
    with pytest.raises(FullconvError, match="could not be written to") as caught:
        save_preview(report, tmp_path / "file" / "a.png")
    root = drawn.write(tmp_path / "data", train=1, val=1, test=1, size=(48, 64))
    for image in root.glob("images/*/*"):
        image.write_bytes(b"")
    with pytest.raises(FullconvError, match=r"no pair of .* can be drawn: .*file is empty"):
        save_preview(check(root), tmp_path / "a.png")


def test_a_sheet_is_never_written_over_a_file_of_the_data_set(tmp_path: Path) -> None:
    root = drawn.write(tmp_path / "data", train=1, val=1, test=1, size=(48, 64))
    report = check(root)
    mask = root / "masks/train/street_0000.png"
    before = mask.read_bytes()
    with pytest.raises(FullconvError, match="belongs to the data set; a sheet would be written"):
        save_preview(report, mask)
    assert mask.read_bytes() == before
