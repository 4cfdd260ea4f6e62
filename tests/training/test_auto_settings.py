"""What the data decides, against the sizes and shares that the test itself draws."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fullconv.core.config_file import read_config
from fullconv.core.errors import FullconvError
from fullconv.core.settings import Settings
from fullconv.data.check.check import check
from fullconv.training.auto_settings import inverse_sqrt_frequency, resolve_settings

SIZE = (96, 160)


def report_of(root, mask, names='["background", "thing"]'):
    """Of six images with one and the same mask."""
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


def test_rates_follow_the_optimizer_and_the_crop_the_images(scenes):
    report = check(scenes)
    settings, reasons = resolve_settings(Settings(), [report])
    assert settings.crop == (33, 33)  # 48 x 64: the largest 32 k + 1 within
    assert "48 x 64" in reasons[0]
    assert "--crop" in reasons[0]
    assert (settings.lr, settings.backbone_lr) == (0.002, 0.0005)
    assert resolve_settings(Settings(pretrained=False), [report])[0].backbone_lr == 0.002
    assert resolve_settings(Settings(optimizer="sgd"), [report])[0].weight_decay == 0.0005
    given = Settings(lr=1.0, backbone_lr=2.0, weight_decay=0.0, workers=0)
    kept, _ = resolve_settings(given, [report])
    assert (kept.lr, kept.backbone_lr, kept.weight_decay, kept.workers) == (1.0, 2.0, 0.0, 0)


def test_what_is_given_is_kept_and_needs_no_reason(scenes):
    given = Settings(crop=(65, 97), scale=(0.9, 1.1), class_weights="balanced")
    settings, reasons = resolve_settings(given, [check(scenes)])
    assert (settings.crop, settings.scale, settings.class_weights) == (
        (65, 97),
        (0.9, 1.1),
        "balanced",
    )
    assert reasons == []


def test_large_images_are_cropped_and_the_reason_says_so(tmp_path):
    mask = np.zeros((700, 600), np.uint8)
    mask[:, 300:] = 1
    settings, reasons = resolve_settings(Settings(), [report_of(tmp_path, mask)])
    assert settings.crop == (513, 513)
    assert "(700 x 600), at most 513" in reasons[0]


@pytest.mark.parametrize(("width", "low"), [(4, 1.0), (60, 0.5)])
def test_thin_things_are_not_made_thinner(tmp_path, width, low):
    """Lines 4 pixels wide keep most of their area in the cells of stride 4, and lose it at 8."""
    mask = np.zeros(SIZE, np.uint8)
    mask[:, 20 : 20 + width] = 1
    mask[40 : 40 + width] = 1
    settings, reasons = resolve_settings(Settings(stride=4), [report_of(tmp_path, mask)])
    assert settings.scale == (low, 2.0)
    assert reasons[1].startswith(f"scale {low:g} to 2: the masks allow a mean IoU of ")
    assert ("so images are not made smaller" in reasons[1]) == (low == 1.0)


@pytest.mark.parametrize(("share", "kind"), [(0.05, "balanced"), (0.3, "none")])
def test_one_class_that_covers_nearly_all_calls_for_weights(tmp_path, share, kind):
    mask = np.zeros(SIZE, np.uint8)
    mask[:, : round(SIZE[1] * share)] = 1
    settings, reasons = resolve_settings(Settings(), [report_of(tmp_path, mask)])
    assert settings.class_weights == kind
    assert f"background covers {1 - share:.1%}" in reasons[2]


def test_camvid_keeps_the_recipe_of_the_literature(shared):
    settings, reasons = resolve_settings(Settings(), [check(shared / "data/camvid")])
    assert settings.crop == (353, 449)
    assert settings.scale == (0.5, 2.0), reasons
    assert settings.class_weights == "none"


def test_cracks_are_weighed_up(shared, tmp_path):
    """1.6 % of the pixels: the masks hold 0 and 255, to which dataset.toml gives a meaning."""
    for folder in ("images", "masks"):
        (tmp_path / folder).symlink_to(shared / "data/crackforest" / folder)
    (tmp_path / "dataset.toml").write_text(
        'classes = ["background", "crack"]\n[map]\n255 = "crack"\n'
    )
    settings, reasons = resolve_settings(Settings(), [check(tmp_path)])
    assert settings.class_weights == "balanced"
    assert "background covers 98." in reasons[2]


def test_balanced_weights_average_to_one_over_the_pixels():
    weights = inverse_sqrt_frequency([900, 100, 0])
    assert weights[1] / weights[0] == pytest.approx(3.0)  # the square root of 9
    assert 0.9 * weights[0] + 0.1 * weights[1] == pytest.approx(1.0)
    assert weights[2] == 1.0


def test_a_summed_rate_is_converted_by_the_labelled_pixels_of_a_step(tmp_path):
    mask = np.zeros(SIZE, np.uint8)
    mask[:, 80:] = 1
    mask[:24] = 255  # a quarter counts not
    report = report_of(tmp_path, mask)
    paper = Settings(
        sum_loss_lr=1e-6,
        optimizer="sgd",
        momentum=0.99,
        batch_size=1,
        crop=(0, 0),
        schedule="fixed",
    )
    settings, reasons = resolve_settings(paper, [report])
    labelled = 72 * 160
    assert settings.lr == settings.backbone_lr == pytest.approx(1e-6 * labelled)
    assert settings.weight_decay == pytest.approx(0.0005 / labelled)
    assert settings.sum_loss_lr is None  # config.toml says what was decided
    assert settings.scale == (1.0, 1.0)
    assert (
        "learning rate 0.0115 for the mean loss: 1e-06 for the summed loss, times 11,520 labeled"
        in reasons[-1]
    )
    crops, reasons = resolve_settings(replace(paper, crop=(64, 32), batch_size=4), [report])
    assert crops.lr == pytest.approx(1e-6 * 4 * 64 * 32 * 0.75)
    assert "1,536 labeled pixels per image, times a batch size of 4;" in reasons[-1]


def test_whole_images_of_several_sizes_make_no_batch(tmp_path):
    report_of(tmp_path, np.zeros(SIZE, np.uint8))
    for folder in ("images", "masks"):
        Image.new("RGB" if folder == "images" else "L", (50, 40)).save(tmp_path / folder / "x.png")
    report = check(tmp_path)
    with pytest.raises(
        FullconvError, match="of 2 different sizes cannot form a batch of 8"
    ) as caught:
        resolve_settings(Settings(crop=(0, 0)), [report])
    assert caught.value.hint == "--batch-size 1 --grad-accumulation 8"
    assert resolve_settings(Settings(crop=(0, 0), batch_size=1), [report])[0].scale == (1.0, 1.0)


def test_sgd_moves_as_far_at_any_momentum(scenes):
    report = check(scenes)
    for momentum, rate in ((0.9, 0.02), (0.99, 0.002), (0.0, 0.2)):
        found, _ = resolve_settings(Settings(optimizer="sgd", momentum=momentum), [report])
        assert found.lr == pytest.approx(rate)


def test_a_model_to_start_from_brings_its_weights(scenes):
    settings, _ = resolve_settings(Settings(init_from="runs/a"), [check(scenes)])
    assert not settings.pretrained
    assert settings.backbone_lr == 0.0005


def test_where_a_model_to_start_from_lies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for start, found in (
        ("runs/a", str(tmp_path.resolve() / "runs/a")),
        ("torchvision:fcn_resnet50", "torchvision:fcn_resnet50"),
        ("", ""),
    ):
        assert resolve_settings(Settings(init_from=start))[0].init_from == found


def test_the_recipes_of_the_papers_are_read_and_give_their_rates(tmp_path):
    """On images of 500 x 375 pixels, without void ones, as in the released solvers."""
    report = report_of(tmp_path, np.zeros((375, 500), np.uint8))
    recipes = sorted((Path(__file__).parents[2] / "recipes").glob("paper_*.toml"))
    assert len(recipes) == 5
    for path in recipes:
        given = Settings.from_dict(read_config(path)["train"])
        settings, _ = resolve_settings(given, [report])
        heavy = given.sum_loss_lr is not None
        assert settings.lr == settings.backbone_lr == pytest.approx(1.875e-5 if heavy else 1e-4)
        assert settings.momentum == (0.99 if heavy else 0.9)
        assert settings.batch_size * settings.grad_accumulation == (1 if heavy else 20)
        assert (settings.crop, settings.scale) == ((0, 0), (1.0, 1.0))
        assert settings.backbone.startswith("paper:")
        assert str(path.name) in path.read_text()
