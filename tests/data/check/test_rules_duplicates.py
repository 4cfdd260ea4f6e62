from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pairs import only, rules_of, save
from PIL import Image

from fullconv.data.check.check import check
from fullconv.data.check.finding import Finding
from fullconv.data.check.image_signature import Shift, estimate_shift
from fullconv.data.check.rules_alignment import misaligned
from fullconv.data.check.scan import PairScan
from fullconv.data.io.masks import read_values
from fullconv.data.layouts.file_names import Pair
from fullconv.data.synthetic import scenes as synthetic
from fullconv.data.synthetic.scenes import scene


def write(root: Path, train: int = 3) -> Path:
    return synthetic.write(root, train=train, val=2, test=2, size=(144, 208))


def street(split: str, number: int, suffix: str = "jpg") -> str:
    return f"images/{split}/street_{number:04}.{suffix}"


def halve(path: Path, resampling: Image.Resampling) -> None:
    with Image.open(path) as image:
        half = image.resize((104, 72), resampling)
    path.unlink()
    half.save(path.with_suffix(".png"))


@pytest.mark.parametrize(
    ("rule", "copy", "message"),
    [
        ("leak", street("val", 1), "1 image is in more than one split (train, val), byte for byte"),
        ("duplicate", street("train", 1), "1 image occurs more than once in a split"),
    ],
)
def test_the_same_file_twice(tmp_path: Path, rule: str, copy: str, message: str) -> None:
    root = write(tmp_path)
    shutil.copy(root / street("train", 0), root / copy)
    report = check(root)
    finding = only(report, rule)
    assert (finding.level, finding.files) == ("warning", (street("train", 0), copy))
    assert message in finding.message
    assert len({"leak", "duplicate"} & set(rules_of(report))) == 1
    if rule == "leak":
        assert finding.fix.endswith(f":\nfullconv check {root} --fix {root}_fixed")


def test_an_image_that_was_resized_or_converted(tmp_path: Path) -> None:
    root = write(tmp_path)
    shutil.copy(root / street("train", 0), root / street("test", 0))
    halve(root / street("test", 0), Image.Resampling.BICUBIC)
    halve(root / "masks/test/street_0000.png", Image.Resampling.NEAREST)
    finding = only(check(root), "near-leak")
    assert finding.files == (street("test", 0, "png"), street("train", 0))
    assert "1 pair of similar images is in more than one split (test, train)" in finding.message
    assert finding.fix.endswith(f":\nfullconv check {root} --fix {root}_fixed")
    (root / street("train", 2)).unlink()
    Image.open(root / street("train", 0)).save(root / street("train", 2, "png"))
    finding = only(check(root), "near-duplicate")
    assert finding.level == "note"
    assert finding.files == (street("train", 0), street("train", 2, "png"))


def test_a_mask_that_was_shifted(tmp_path: Path) -> None:
    root = write(tmp_path, train=10)
    mask = root / "masks/train/street_0004.png"
    save(mask, np.roll(read_values(mask), (6, -5), (0, 1)))
    finding = only(check(root), "shifted-mask")
    assert finding.files == ("masks/train/street_0004.png",)
    offset = re.search(r"when it is moved (\d) pixels up and (\d) pixels right\.$", finding.message)
    assert offset is not None
    assert max(abs(int(offset[1]) - 6), abs(int(offset[2]) - 5)) <= 1


def test_masks_that_were_all_shifted(tmp_path: Path) -> None:
    for seed in range(12):
        image, ids = scene(seed)
        save(tmp_path / f"images/{seed}.png", image)
        save(tmp_path / f"masks/{seed}.png", np.roll(ids, (0, 6), (0, 1)))
    report = check(tmp_path)
    finding = only(report, "shifted-masks")
    assert "shifted-mask" not in rules_of(report)
    assert len(finding.files) == 12
    assert "seem to be shifted 6 pixels right against their images" in finding.message
    assert "when they are moved 6 pixels left" in finding.message


def framed(seed: int, size: tuple[int, int] = (192, 256)) -> np.ndarray:
    """Return a round field on black with a dark spot, as seen through a dermatoscope."""
    random = np.random.default_rng(seed)
    rows, columns = np.indices(size) - np.array(size)[:, None, None] / 2
    field = rows**2 + columns**2 < 88**2
    (down, right), (tall, wide) = random.normal(0, 14, 2), random.uniform(15, 45, 2)
    spot = ((rows - down) / tall) ** 2 + ((columns - right) / wide) ** 2 < 1
    skin = np.array([200, 160, 140]) + random.normal(0, 12, 3)
    image = np.zeros((*size, 3))
    image[field], image[field & spot] = skin, skin * random.uniform(0.4, 0.75)
    noisy = image + random.normal(0, 4, image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def test_images_with_the_same_frame_are_no_copies(tmp_path: Path) -> None:
    for seed in range(24):
        name = f"{'train' if seed < 16 else 'val'}/{seed}.png"
        save(tmp_path / "images" / name, framed(seed))
        save(tmp_path / "masks" / name, framed(seed)[..., 0] > 150)
    (tmp_path / "dataset.toml").write_text('classes = ["dark", "skin"]\n')
    assert not {"leak", "near-leak", "near-duplicate"} & set(rules_of(check(tmp_path)))
    # A real copy among them is still reported.
    (tmp_path / "images/val/20.png").unlink()
    save(tmp_path / "images/val/20.jpg", framed(3), quality=60)
    assert only(check(tmp_path), "near-leak").files == ("images/train/3.png", "images/val/20.jpg")


def fixed_camera(root: Path, seed: int) -> Path:
    """Write frames of a fixed camera, with noise and moving objects, and one mask of two zones for
    all of them."""
    random = np.random.default_rng(seed)
    blocks = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8))
    back = np.asarray(blocks.resize((256, 192), Image.Resampling.NEAREST)).astype(float)
    zones = np.zeros((192, 256), np.uint8)
    for zone in (1, 2):
        top, left = random.integers(10, 90, 2)
        zones[top : top + 80, left : left + 100] = zone
    for frame in range(24):
        image = back + random.normal(0, random.uniform(4, 40), back.shape)
        for _ in range(4):
            top, left = random.integers(0, 150, 2)
            image[top : top + 40, left : left + 40] = random.integers(0, 256, 3)
        name = f"{'train' if frame % 4 else 'val'}/{frame:02}.png"
        save(root / "images" / name, np.clip(image, 0, 255))
        save(root / "masks" / name, zones)
    (root / "dataset.toml").write_text('classes = ["floor", "door", "belt"]\n')
    return root


def test_one_mask_for_all_frames_of_a_standing_camera_is_not_shifted(tmp_path: Path) -> None:
    for seed in (2, 5):  # where the borders of the zones fit edges elsewhere, by chance
        report = check(fixed_camera(tmp_path / f"{seed}", seed))
        assert report.findings == (), report.text()
    # A mask of its own among them still counts, if it clearly fits better at another offset.
    root, fits = tmp_path / "2", {}
    for mask in sorted((root / "masks/train").iterdir()):
        with Image.open(root / "images/train" / mask.name) as image:
            shift = estimate_shift(np.asarray(image.convert("L")), read_values(mask), 1)
        assert shift is not None
        fits[mask] = shift.fit - 3 * max(shift.fit_at_zero, 0)
    best = max(fits, key=fits.__getitem__)
    ids = read_values(best).copy()
    ids[0, 0] = 1  # on the frame of the image, where nothing is compared
    save(best, ids)
    assert only(check(root), "shifted-mask").files == (f"masks/train/{best.name}",)


def misaligned_of(shifts: list[Shift]) -> list[Finding]:
    """Return the findings for masks with these shifts."""
    pair = Pair("a", Path("a.jpg"), Path("a.png"))
    scan = SimpleNamespace(
        scans=[PairScan("train", pair, "", f"{k}", None, None, s) for k, s in enumerate(shifts)],
        names=lambda paths: tuple(map(str, paths)),
        dataset=SimpleNamespace(root="D"),
    )
    return list(misaligned(scan))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("count", "still", "fit", "fit_at_zero", "rules"),
    [
        # Eight masks and four in ten must agree; else single masks with a clear shift count.
        (8, 0, 9.0, 0.0, ["shifted-masks"]),
        (7, 0, 9.0, 0.0, ["shifted-mask"]),
        (8, 12, 9.0, 0.0, ["shifted-masks"]),  # 8 of 20
        (8, 13, 9.0, 0.0, ["shifted-mask"]),
        (8, 0, 4.0, 0.0, ["shifted-masks"]),
        (7, 0, 4.0, 0.0, []),
        (8, 0, 2.0, 0.0, []),  # too weak to count
        # The fit at offset 0 is at most 0.4 of the best one, for one mask and for many.
        (1, 0, 9.0, 3.59, ["shifted-mask"]),
        (1, 0, 9.0, 3.61, []),
        (8, 0, 9.0, 3.59, ["shifted-masks"]),
        (8, 0, 9.0, 3.61, []),
    ],
)
def test_how_many_masks_must_agree_and_how_clearly(
    count: int, still: int, fit: float, fit_at_zero: float, rules: list[str]
) -> None:
    """`still` masks fit equally well at offset 0 and at an offset of their own."""
    own = [(r, c) for r in range(-12, 13, 5) for c in range(-12, 13, 5) if (r, c) != (3, 3)]
    shifts = [Shift(5, 3, 1, fit, fit_at_zero)] * count
    shifts += [Shift(rows, columns, 1, fit, fit) for rows, columns in own[:still]]
    assert [finding.rule for finding in misaligned_of(shifts)] == rules


def test_the_offset_that_most_masks_agree_on_is_taken_among_thousands() -> None:
    random = np.random.default_rng(0)
    offsets = random.integers((-12, -12, 1), (13, 13, 3), (6000, 3)).tolist()
    shifts = [Shift(r, c, step, 9.0 + k, 1.0) for k, (r, c, step) in enumerate(offsets)]
    (finding,) = misaligned_of([*shifts, *[Shift(6, -5, 1, 9.0, 1.0)] * 5000])
    assert "fit the edges of their images best when they are moved" in finding.message
    assert "moved 6 pixels down and 5 pixels left" in finding.message
