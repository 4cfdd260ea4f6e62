from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from fullconv.data.check.check import CheckReport, check
from fullconv.data.check.finding import Finding
from fullconv.data.check.image_signature import Shift, estimate_shift
from fullconv.data.check.rules_duplicates import misaligned
from fullconv.data.check.scan import PairScan
from fullconv.data.io.masks import read_values
from fullconv.data.layouts.file_names import Pair
from fullconv.data.synthetic.scenes import scene, write


def drawn(root: Path, train: int = 3) -> Path:
    return write(root, train=train, val=2, test=2, size=(144, 208))


def only(report: CheckReport, rule: str) -> Finding:
    found = [finding for finding in report.findings if finding.rule == rule]
    assert len(found) == 1, report.text()
    return found[0]


def files(root: Path, split: str, folder: str = "images") -> list[Path]:
    return sorted((root / folder / split).iterdir())


def name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def test_synthetic_scenes_differ_and_are_not_shifted(tmp_path: Path) -> None:
    rules = {finding.rule for finding in check(drawn(tmp_path, train=12)).findings}
    assert not rules & {"leak", "near-leak", "duplicate", "near-duplicate"}
    assert not rules & {"shifted-mask", "shifted-masks"}


def test_the_same_file_in_two_splits(tmp_path: Path) -> None:
    root = drawn(tmp_path)
    first, other = files(root, "train")[0], files(root, "val")[1]
    other.write_bytes(first.read_bytes())
    finding = only(check(root), "leak")
    assert finding.level == "warning"
    assert finding.files == (name(root, first), name(root, other))
    assert "1 image is in more than one split (train, val), byte for byte" in finding.message
    assert finding.fix.endswith(f":\nfullconv check {root} --fix {root}_fixed")


def test_the_same_file_twice_in_a_split(tmp_path: Path) -> None:
    root = drawn(tmp_path)
    first, other = files(root, "train")[:2]
    other.write_bytes(first.read_bytes())
    report = check(root)
    finding = only(report, "duplicate")
    assert finding.files == (name(root, first), name(root, other))
    assert "1 image occurs more than once in a split" in finding.message
    assert "leak" not in {finding.rule for finding in report.findings}


def test_an_image_that_was_resized_or_converted(tmp_path: Path) -> None:
    root = drawn(tmp_path)
    first, test, train = files(root, "train")[0], files(root, "test")[0], files(root, "train")[2]
    half = Image.open(first).resize((104, 72))
    half.save(test.with_suffix(".png"))
    test.unlink()
    mask = files(root, "test", "masks")[0]
    Image.open(mask).resize((104, 72), Image.Resampling.NEAREST).save(mask)
    report = check(root)
    finding = only(report, "near-leak")
    assert finding.files == tuple(sorted((name(root, first), name(root, test)[:-4] + ".png")))
    assert "1 pair of similar images is in more than one split (test, train)" in finding.message
    assert finding.fix.endswith(f":\nfullconv check {root} --fix {root}_fixed")
    Image.open(first).save(train.with_suffix(".png"))
    train.unlink()
    finding = only(check(root), "near-duplicate")
    assert finding.level == "note"
    assert finding.files == tuple(sorted((name(root, first), name(root, train)[:-4] + ".png")))


def test_a_mask_that_was_shifted(tmp_path: Path) -> None:
    root = drawn(tmp_path, train=10)
    mask = files(root, "train", "masks")[4]
    Image.fromarray(np.roll(read_values(mask), (6, -5), (0, 1))).save(mask)
    finding = only(check(root), "shifted-mask")
    assert finding.files == (name(root, mask),)
    assert "when it is moved" in finding.message
    rows, columns = finding.message.rpartition("moved ")[2].split(" and ")
    assert abs(int(rows.split()[0]) - 6) <= 1
    assert abs(int(columns.split()[0]) - 5) <= 1
    assert rows.endswith("pixels up")
    assert columns.endswith("pixels right.")


def test_masks_that_were_all_shifted(tmp_path: Path) -> None:
    root = tmp_path
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    for seed in range(12):
        image, ids = scene(seed)
        Image.fromarray(image).save(root / f"images/{seed}.png")
        Image.fromarray(np.roll(ids, (0, 6), (0, 1))).save(root / f"masks/{seed}.png")
    report = check(root)
    finding = only(report, "shifted-masks")
    assert "shifted-mask" not in {finding.rule for finding in report.findings}
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
    for split, seeds in (("train", range(16)), ("val", range(16, 24))):
        for folder in ("images", "masks"):
            (tmp_path / folder / split).mkdir(parents=True)
        for seed in seeds:
            image = framed(seed)
            Image.fromarray(image).save(tmp_path / f"images/{split}/{seed}.png")
            ids = (image[..., 0] > 150).astype(np.uint8)
            Image.fromarray(ids).save(tmp_path / f"masks/{split}/{seed}.png")
    (tmp_path / "dataset.toml").write_text('classes = ["dark", "skin"]\n')
    found = {finding.rule for finding in check(tmp_path).findings}
    assert not found & {"leak", "near-leak", "near-duplicate"}
    # A real copy among them is still found.
    copy = tmp_path / "images/val/20.png"
    copy.unlink()
    Image.fromarray(framed(3)).save(copy.with_suffix(".jpg"), quality=60)
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
        for folder, content in (("images", np.clip(image, 0, 255)), ("masks", zones)):
            path = root / folder / ("train" if frame % 4 else "val") / f"{frame:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(content.astype(np.uint8)).save(path)
    (root / "dataset.toml").write_text('classes = ["floor", "door", "belt"]\n')
    return root


def test_one_mask_for_all_frames_of_a_standing_camera_is_not_shifted(tmp_path: Path) -> None:
    for seed in (2, 5):  # where the borders of the zones fit edges elsewhere, by chance
        report = check(fixed_camera(tmp_path / f"{seed}", seed))
        assert report.findings == (), report.text()
    # A mask of its own among them still counts.
    root = tmp_path / "2"
    masks = sorted((root / "masks/train").iterdir())
    known = [only_shift(root, mask) for mask in masks]
    most = masks[int(np.argmax(known))]
    ids = np.array(Image.open(most))
    ids[0, 0] = 1  # on the frame of the image, where nothing is compared
    Image.fromarray(ids).save(most)
    assert only(check(root), "shifted-mask").files == (name(root, most),)


def only_shift(root: Path, mask: Path) -> float:
    """Return how clearly a mask fits better at another offset."""
    with Image.open(root / "images/train" / mask.name) as image:
        grey = np.asarray(image.convert("L"))
    found = estimate_shift(grey, read_values(mask), 1)
    assert found is not None
    return found.fit - 3 * max(found.fit_at_zero, 0)


def votes(
    offsets: list[tuple[int, int]], *, fit_at_zero: float = 0.0, fit: float = 9.0, still: int = 0
) -> list[Finding]:
    """Return the findings for masks with these offsets, and for `still` others, which fit equally
    well at offset 0 and at an offset of their own."""
    shifts = [Shift(rows, columns, 1, fit, fit_at_zero) for rows, columns in offsets]
    alone = [(r, c) for r in range(-12, 13, 5) for c in range(-12, 13, 5) if (r, c) != (3, 3)]
    shifts += [Shift(rows, columns, 1, fit, fit) for rows, columns in alone[:still]]
    pair = Pair("a", Path("a.jpg"), Path("a.png"))
    scans = [PairScan("train", pair, "", f"{k}", None, None, one) for k, one in enumerate(shifts)]
    facts = SimpleNamespace(
        scans=scans, names=lambda paths: tuple(map(str, paths)), dataset=SimpleNamespace(root="D")
    )
    return list(misaligned(facts))  # type: ignore[arg-type]


def test_eight_masks_and_four_in_ten_must_agree() -> None:
    """With fewer votes, only single masks with a clear shift are reported."""
    (all_of_them,) = votes([(5, 3)] * 8)
    assert all_of_them.rule == "shifted-masks"
    assert [f.rule for f in votes([(5, 3)] * 7)] == ["shifted-mask"]
    assert [f.rule for f in votes([(5, 3)] * 8, still=12)] == ["shifted-masks"]  # 8 of 20
    assert [f.rule for f in votes([(5, 3)] * 8, still=13)] == ["shifted-mask"]
    assert [f.rule for f in votes([(5, 3)] * 8, fit=4.0)] == ["shifted-masks"]
    assert votes([(5, 3)] * 7, fit=4.0) == []
    assert votes([(5, 3)] * 8, fit=2.0) == []  # too weak to count


def test_a_mask_must_fit_far_better_elsewhere() -> None:
    """The fit at offset 0 is at most 0.4 of the best one, for one mask and for many."""
    assert [f.rule for f in votes([(5, 3)], fit_at_zero=3.59)] == ["shifted-mask"]
    assert votes([(5, 3)], fit_at_zero=3.61) == []
    assert [f.rule for f in votes([(5, 3)] * 8, fit_at_zero=3.59)] == ["shifted-masks"]
    assert votes([(5, 3)] * 8, fit_at_zero=3.61) == []


def test_the_offset_that_most_masks_agree_on_is_found_among_thousands() -> None:
    random = np.random.default_rng(0)
    places = random.integers((-12, -12, 1), (13, 13, 3), (6000, 3)).tolist()
    found = [Shift(r, c, step, 9.0 + k, 1.0) for k, (r, c, step) in enumerate(places)]
    found += [Shift(6, -5, 1, 9.0, 1.0)] * 5000
    pair = Pair("a", Path("a.jpg"), Path("a.png"))
    scans = [PairScan("train", pair, "", f"{k}", None, None, one) for k, one in enumerate(found)]
    facts = SimpleNamespace(scans=scans, names=lambda paths: tuple(map(str, paths)))
    (finding,) = misaligned(facts)  # type: ignore[arg-type]
    assert "fit the edges of their images best when they are moved" in finding.message
    assert "moved 6 pixels down and 5 pixels left" in finding.message
