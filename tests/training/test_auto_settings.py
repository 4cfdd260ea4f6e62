"""Options that the data decides, against the sizes and shares that the test itself draws."""

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


@pytest.fixture
def report_of(tmp_path):
    """Check six images with the same mask, and others that are there already."""

    def call(mask):
        generator = np.random.default_rng(0)
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
        for number in range(6):
            photo = generator.integers(0, 256, (*mask.shape, 3), np.uint8)
            Image.fromarray(photo).save(tmp_path / f"images/{number}.png")
            Image.fromarray(mask).save(tmp_path / f"masks/{number}.png")
        (tmp_path / "dataset.toml").write_text('classes = ["background", "thing"]\n')
        report = check(tmp_path)
        report.raise_for_errors()
        return report

    return call


def resolve(report, **options):
    return resolve_settings(Settings(**options), [report])


GIVEN = {"lr": 1.0, "backbone_lr": 2.0, "weight_decay": 0.0, "workers": 0}
RESOLVED = {  # options and what they become
    "defaults": ({}, {"lr": 0.002, "backbone_lr": 0.0005, "weight_decay": 0.02}),
    "from scratch": ({"pretrained": False}, {"backbone_lr": 0.002}),
    "given": (GIVEN, GIVEN),
    "sgd": ({"optimizer": "sgd"}, {"lr": 0.02, "weight_decay": 0.0005}),
    # SGD moves as far at any momentum.
    "heavy sgd": ({"optimizer": "sgd", "momentum": 0.99}, {"lr": 0.002}),
    "light sgd": ({"optimizer": "sgd", "momentum": 0.0}, {"lr": 0.2}),
    "a model brings its weights": (
        {"init_from": "runs/a"},
        {"pretrained": False, "backbone_lr": 0.0005},
    ),
}


@pytest.mark.parametrize(("options", "expected"), RESOLVED.values(), ids=RESOLVED)
def test_resolved_options(scenes, options, expected):
    settings, _ = resolve(check(scenes), **options)
    assert {name: getattr(settings, name) for name in expected} == pytest.approx(expected)


def test_the_crop_follows_the_images(scenes, report_of):
    settings, reasons = resolve(check(scenes))
    assert settings.crop == (33, 33)  # 48 x 64: the largest 32 k + 1 within
    assert "48 x 64" in reasons[0]
    assert "--crop" in reasons[0]
    mask = np.zeros((700, 600), np.uint8)
    mask[:, 300:] = 1
    settings, reasons = resolve(report_of(mask))
    assert settings.crop == (513, 513)
    assert "(700 x 600), at most 513" in reasons[0]


def test_given_options_are_kept_and_need_no_reason(scenes):
    given = {"crop": (65, 97), "scale": (0.9, 1.1), "class_weights": "balanced"}
    settings, reasons = resolve(check(scenes), **given)
    assert {name: getattr(settings, name) for name in given} == given
    assert reasons == []


@pytest.mark.parametrize(("width", "low"), [(4, 1.0), (60, 0.5)])
def test_thin_objects_are_not_made_thinner(report_of, width, low):
    """Lines 4 pixels wide keep most of their area in the cells of stride 4, and lose it at 8."""
    mask = np.zeros(SIZE, np.uint8)
    mask[:, 20 : 20 + width] = 1
    mask[40 : 40 + width] = 1
    settings, reasons = resolve(report_of(mask), stride=4)
    assert settings.scale == (low, 2.0)
    assert reasons[1].startswith(f"scale {low:g} to 2: the masks allow a mean IoU of ")
    assert ("so images are not made smaller" in reasons[1]) == (low == 1.0)


@pytest.mark.parametrize(("share", "kind"), [(0.05, "balanced"), (0.3, "none")])
def test_a_class_that_covers_nearly_all_pixels_leads_to_weights(report_of, share, kind):
    mask = np.zeros(SIZE, np.uint8)
    mask[:, : round(SIZE[1] * share)] = 1
    settings, reasons = resolve(report_of(mask))
    assert settings.class_weights == kind
    assert f"background covers {1 - share:.1%}" in reasons[2]


def test_camvid_keeps_the_recipe_of_the_literature(shared):
    settings, reasons = resolve(check(shared / "data/camvid"))
    assert settings.crop == (353, 449)
    assert settings.scale == (0.5, 2.0), reasons
    assert settings.class_weights == "none"


def test_cracks_are_weighted(shared, tmp_path):
    """1.6 % of the pixels: the masks hold 0 and 255, to which dataset.toml gives a meaning."""
    for folder in ("images", "masks"):
        (tmp_path / folder).symlink_to(shared / "data/crackforest" / folder)
    table = 'classes = ["background", "crack"]\n[map]\n255 = "crack"\n'
    (tmp_path / "dataset.toml").write_text(table)
    settings, reasons = resolve(check(tmp_path))
    assert settings.class_weights == "balanced"
    assert "background covers 98." in reasons[2]


def test_balanced_weights_average_to_one_over_the_pixels():
    weights = inverse_sqrt_frequency([900, 100, 0])
    assert weights[1] / weights[0] == pytest.approx(3.0)  # the square root of 9
    assert 0.9 * weights[0] + 0.1 * weights[1] == pytest.approx(1.0)
    assert weights[2] == 1.0


def test_a_learning_rate_of_the_summed_loss_is_converted_by_the_labeled_pixels(report_of):
    mask = np.zeros(SIZE, np.uint8)
    mask[:, 80:] = 1
    mask[:24] = 255  # a quarter is ignored
    report = report_of(mask)
    paper = {"sum_loss_lr": 1e-6, "optimizer": "sgd", "momentum": 0.99, "schedule": "fixed"}
    settings, reasons = resolve(report, batch_size=1, crop=(0, 0), **paper)
    labeled = 72 * 160
    assert settings.lr == settings.backbone_lr == pytest.approx(1e-6 * labeled)
    assert settings.weight_decay == pytest.approx(0.0005 / labeled)
    assert settings.sum_loss_lr is None  # config.toml has the converted one
    assert settings.scale == (1.0, 1.0)
    reason = "learning rate 0.0115 for the mean loss: 1e-06 for the summed loss, times 11,520 label"
    assert reason in reasons[-1]
    crops, reasons = resolve(report, batch_size=4, crop=(64, 32), **paper)
    assert crops.lr == pytest.approx(1e-6 * 4 * 64 * 32 * 0.75)
    assert "1,536 labeled pixels per image, times a batch size of 4;" in reasons[-1]


def test_whole_images_of_several_sizes_cannot_form_a_batch(report_of, tmp_path):
    report_of(np.eye(*SIZE, dtype=np.uint8))
    Image.new("RGB", (50, 40)).save(tmp_path / "images/x.png")
    Image.new("L", (50, 40)).save(tmp_path / "masks/x.png")
    report = check(tmp_path)
    with pytest.raises(FullconvError, match="of 2 different sizes cannot form a batch of 8") as e:
        resolve(report, crop=(0, 0))
    assert e.value.hint == "--batch-size 1 --grad-accumulation 8"
    assert resolve(report, crop=(0, 0), batch_size=1)[0].scale == (1.0, 1.0)


@pytest.mark.parametrize("name", ["runs/a", "torchvision:fcn_resnet50", ""])
def test_a_path_of_a_model_becomes_absolute(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    settings, _ = resolve_settings(Settings(init_from=name))
    assert settings.init_from == (str(tmp_path.resolve() / name) if "/" in name else name)


def test_the_recipes_of_the_papers_give_their_learning_rates(report_of):
    """On images of 500 x 375 pixels, without ignored ones, as in the released solvers."""
    report = report_of(np.eye(375, 500, dtype=np.uint8))
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
