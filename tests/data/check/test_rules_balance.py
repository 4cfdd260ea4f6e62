from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fullconv.data.check.check import CheckReport, check
from fullconv.data.check.finding import Finding

SIDE = 100


def draw(root: Path, masks: dict[str, np.ndarray], classes: str) -> CheckReport:
    for number, (name, ids) in enumerate(masks.items()):
        pixels = np.random.default_rng(number).integers(0, 256, (*ids.shape, 3), np.uint8)
        for folder, content in (("images", pixels), ("masks", ids.astype(np.uint8))):
            path = root / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(path)
    names = ", ".join(f'"{word}"' for word in classes.split())
    (root / "dataset.toml").write_text(f"classes = [{names}]\n")
    return check(root)


def filled(*ids: int, size: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    """Bands of equal height, one per id."""
    return np.repeat(np.array(ids), -(-size[0] // len(ids)))[: size[0], None].repeat(size[1], 1)


def only(report: CheckReport, rule: str) -> Finding:
    found = [finding for finding in report.findings if finding.rule == rule]
    assert [f.rule for f in report.findings] == [rule], report.text()
    return found[0]


def test_shares_that_are_usual_are_no_finding(tmp_path: Path) -> None:
    masks = {"train/a": filled(0, 1, 255, 0), "val/b": filled(0, 1, 1, 0)}
    assert draw(tmp_path, masks, "background road").findings == ()


def test_more_than_a_third_that_is_ignored(tmp_path: Path) -> None:
    def ignoring(rows: int) -> np.ndarray:
        ids = filled(0, 1)
        ids[:rows] = 255
        return ids

    masks = {"train/a": ignoring(34), "val/b": ignoring(34)}
    finding = only(draw(tmp_path / "much", masks, "sky road"), "void-share")
    assert finding.level == "note"
    assert finding.message.startswith("34% of all pixels are ignored")
    masks = {"train/a": ignoring(33), "val/b": ignoring(33)}
    assert draw(tmp_path / "less", masks, "sky road").findings == ()


def test_one_class_nearly_everywhere(tmp_path: Path) -> None:
    ids = np.zeros((SIDE, SIDE))
    ids[:2] = 1
    finding = only(draw(tmp_path, {"train/a": ids, "val/b": ids}, "road crack"), "imbalance")
    assert "road covers 98.0% of them" in finding.message
    assert "--class-weights balanced" in finding.fix


def test_a_class_nearly_nowhere(tmp_path: Path) -> None:
    ids = filled(0, 1)
    ids[0, 0] = 2
    finding = only(draw(tmp_path, {"train/a": ids, "val/b": ids}, "sky road pole"), "imbalance")
    assert "1 class covers less than 0.02% of them: pole" in finding.message


@pytest.mark.parametrize(("empty", "level"), [(1, "note"), (3, "warning")])
def test_empty_masks(tmp_path: Path, empty: int, level: str) -> None:
    masks = {f"train/{k}": filled(0, 0) for k in range(empty)}
    masks |= {"train/x": filled(0, 1), "val/y": filled(0, 1)}
    finding = only(draw(tmp_path, masks, "background road"), "empty-mask")
    assert finding.level == level
    assert f"{empty} of {empty + 2} masks hold nothing but background" in finding.message
    assert finding.files == tuple(f"masks/train/{k}.png" for k in range(empty))


def test_masks_that_are_all_one_class(tmp_path: Path) -> None:
    masks = {"train/a": filled(1), "train/b": filled(0, 1), "val/c": filled(0, 1)}
    finding = only(draw(tmp_path, masks, "background road"), "one-class-mask")
    assert finding.files == ("masks/train/a.png",)
    assert "1 mask holds one class and nothing else: road 1" in finding.message
    # Where class 0 is no background, nothing else is not empty.
    masks = {"train/a": filled(0), "train/b": filled(0, 1), "val/c": filled(0, 1)}
    finding = only(draw(tmp_path / "other", masks, "sky road"), "one-class-mask")
    assert "nothing else: sky 1" in finding.message


def test_tiny_and_huge_images(tmp_path: Path) -> None:
    masks = {"train/a": filled(0, 1, size=(31, 60)), "val/b": filled(0, 1, size=(32, 60))}
    finding = only(draw(tmp_path / "tiny", masks, "sky road"), "tiny-image")
    assert finding.files == ("images/train/a.png",)
    masks = {"train/a": filled(0, 1, size=(40, 4097)), "val/b": filled(0, 1, size=(40, 4096))}
    finding = only(draw(tmp_path / "huge", masks, "sky road"), "huge-image")
    assert finding.files == ("images/train/a.png",)
    assert "1 image has a side longer than 4096 pixels" in finding.message
