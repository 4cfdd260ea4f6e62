"""What the data decides, against the sizes and shares that the test itself draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fullconv.choices import balanced_weights, decide
from fullconv.data.check import CheckReport, check
from fullconv.settings import Settings

SIZE = (96, 160)


def report_of(root: Path, mask: np.ndarray, names: str = '["background", "thing"]') -> CheckReport:
    """Of six pictures with one and the same mask."""
    generator = np.random.default_rng(0)
    for number in range(6):
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        photo = generator.integers(0, 256, (*mask.shape, 3), np.uint8)
        Image.fromarray(photo).save(root / "images" / f"{number}.png")
        Image.fromarray(mask).save(root / "masks" / f"{number}.png")
    (root / "dataset.toml").write_text(f"classes = {names}\n")
    report = check(root)
    report.raise_for_errors()
    return report


def test_rates_follow_the_optimizer_and_the_crop_the_pictures(scenes: Path) -> None:
    report = check(scenes)
    settings, reasons = decide(Settings(), report)
    assert settings.crop == (33, 33)  # 48 x 64: the largest 32 k + 1 within
    assert "48 x 64" in reasons[0]
    assert "--crop" in reasons[0]
    assert (settings.rate, settings.backbone_rate) == (0.002, 0.0005)
    assert decide(Settings(pretrained=False), report)[0].backbone_rate == 0.002
    assert decide(Settings(optimizer="sgd"), report)[0].weight_decay == 0.0005
    given = Settings(rate=1.0, backbone_rate=2.0, weight_decay=0.0, workers=0)
    kept, _ = decide(given, report)
    assert (kept.rate, kept.backbone_rate, kept.weight_decay, kept.workers) == (1.0, 2.0, 0.0, 0)


def test_what_is_given_is_kept_and_needs_no_reason(scenes: Path) -> None:
    given = Settings(crop=(65, 97), scale=(0.9, 1.1), class_weights="balanced")
    settings, reasons = decide(given, check(scenes))
    assert (settings.crop, settings.scale, settings.class_weights) == (
        (65, 97),
        (0.9, 1.1),
        "balanced",
    )
    assert reasons == []


def test_large_pictures_are_cropped_and_the_reason_says_so(tmp_path: Path) -> None:
    mask = np.zeros((700, 600), np.uint8)
    mask[:, 300:] = 1
    settings, reasons = decide(Settings(), report_of(tmp_path, mask))
    assert settings.crop == (513, 513)
    assert "700 x 600, at most 513" in reasons[0]


@pytest.mark.parametrize(("width", "low"), [(4, 1.0), (60, 0.5)])
def test_thin_things_are_not_made_thinner(tmp_path: Path, width: int, low: float) -> None:
    """Lines 4 pixels wide keep most of their area in the cells of stride 4, and lose it at 8."""
    mask = np.zeros(SIZE, np.uint8)
    mask[:, 20 : 20 + width] = 1
    mask[40 : 40 + width] = 1
    settings, reasons = decide(Settings(stride=4), report_of(tmp_path, mask))
    assert settings.scale == (low, 2.0)
    assert reasons[1].startswith(f"scale {low:g} to 2: the labels allow a mean IoU of ")
    assert ("so nothing is made smaller" in reasons[1]) == (low == 1.0)


@pytest.mark.parametrize(("share", "kind"), [(0.05, "balanced"), (0.3, "none")])
def test_one_class_that_covers_nearly_all_calls_for_weights(
    tmp_path: Path, share: float, kind: str
) -> None:
    mask = np.zeros(SIZE, np.uint8)
    mask[:, : round(SIZE[1] * share)] = 1
    settings, reasons = decide(Settings(), report_of(tmp_path, mask))
    assert settings.class_weights == kind
    assert f"background covers {1 - share:.1%}" in reasons[2]


def test_camvid_keeps_the_recipe_of_the_literature(shared: Path) -> None:
    settings, reasons = decide(Settings(), check(shared / "data/camvid"))
    assert settings.crop == (353, 449)
    assert settings.scale == (0.5, 2.0), reasons
    assert settings.class_weights == "none"


def test_cracks_are_weighed_up(shared: Path, tmp_path: Path) -> None:
    """1.6 % of the pixels: the masks hold 0 and 255, to which dataset.toml gives a meaning."""
    for folder in ("images", "masks"):
        (tmp_path / folder).symlink_to(shared / "data/crackforest" / folder)
    (tmp_path / "dataset.toml").write_text(
        'classes = ["background", "crack"]\n[map]\n255 = "crack"\n'
    )
    settings, reasons = decide(Settings(), check(tmp_path))
    assert settings.class_weights == "balanced"
    assert "background covers 98." in reasons[2]


def test_balanced_weights_average_to_one_over_the_pixels() -> None:
    weights = balanced_weights([900, 100, 0])
    assert weights[1] / weights[0] == pytest.approx(3.0)  # the square root of 9
    assert 0.9 * weights[0] + 0.1 * weights[1] == pytest.approx(1.0)
    assert weights[2] == 1.0
