"""The model card: what is known stands in it, nothing else does, and its command trains again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st

from fullconv.cli.main import app
from fullconv.core.labels import Labels
from fullconv.core.settings import Settings
from fullconv.data.io.extra_channels import ExtraInput
from fullconv.evaluation.metrics import Metrics
from fullconv.evaluation.protocol import protocol_card
from fullconv.models.model import Model
from fullconv.models.model_card import model_card

NAMES = ("sky", "road", "a|b")
DATA = {
    "name": "streets",
    "named": True,
    "images": {"train": 12, "val": 4},
    "class_pixels": {"sky": 9_000, "road": 940, "a|b": 60},
    "ignored_pixels": 2_500,
    "sizes": {"smallest": [100, 200], "largest": [360, 480], "commonest": [240, 320]},
}
CONFUSION = np.array([[90, 10, 0], [5, 45, 0], [6, 4, 0]])
MakeModel = Callable[..., Model]


def trained(make_model: MakeModel, *, data: Any = DATA, license: str = "", **options: Any) -> Any:
    """config.json of a model whose training is known."""
    protocol = protocol_card(
        fingerprint="ab12" * 16,
        split="val",
        images=4,
        classes=NAMES,
        pretrained_on="ImageNet-1k",
        ignored_pixels=7,
    )
    given_settings = Settings(lr=0.002, backbone_lr=0.0005, crop=(97, 129), **options)
    kept = {k: v for k, v in given_settings.to_dict().items() if k not in ("backbone", "init_from")}
    facts = {"data_fingerprint": "ab12" * 16, "fullconv": "0.1.0", "settings": kept, "data": data}
    metrics = {**Metrics(NAMES, CONFUSION).to_dict(), "epoch": 7, "protocol": protocol}
    model = make_model(NAMES, training=facts, metrics=metrics)
    before = "ImageNet-1k" if given_settings.pretrained else ""
    model.card = replace(model.card, pretrained_on=before, license=license)
    return model.config()


def rows(text: str, title: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its own heading."""
    part = text.partition(f"## {title}\n")[2]
    found = re.search(r"(?:^\|.*\n)+", part, re.MULTILINE)
    assert found
    lines = found[0].splitlines()[2:]
    cells = (re.split(r"(?<!\\)\|", line.strip("|")) for line in lines)
    return [[cell.strip() for cell in row] for row in cells]


def section(text: str, title: str) -> str:
    return text.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_its_head_is_what_hubs_read(make_model: MakeModel) -> None:
    head = ModelCard(model_card(trained(make_model, license="Apache-2.0"))).data
    assert head.library_name == "fullconv"
    assert head.pipeline_tag == "image-segmentation"
    assert head.license == "apache-2.0"
    assert "semantic-segmentation" in head.tags
    results = {one.metric_type: one for one in head.eval_results}
    assert results["mean_iou"].metric_value == pytest.approx(
        Metrics(NAMES, CONFUSION).mean_iou, abs=1e-4
    )
    assert results["accuracy"].metric_value == pytest.approx(135 / 160, abs=1e-4)
    assert {one.dataset_split for one in results.values()} == {"val"}
    assert {one.dataset_name for one in results.values()} == {"streets"}


def test_a_licence_that_hubs_do_not_know_keeps_its_name(make_model: MakeModel) -> None:
    head = ModelCard(model_card(trained(make_model, license="for looking only"))).data
    assert (head.license, head.to_dict()["license_name"]) == ("other", "for looking only")
    assert ModelCard(model_card(make_model().config())).data.license is None


def test_classes_metrics_and_data_are_those_of_the_model(make_model: MakeModel) -> None:
    config = trained(make_model)
    text = model_card(config)
    assert "# FCN-8s on test_resnet\n" in text
    shares = ["90.0%", "9.4%", "0.6%"]
    assert rows(text, "Classes") == [
        [str(k), name, f"`{config['colors'][k]}`", shares[k]]
        for k, name in enumerate(("sky", "road", "a\\|b"))
    ]
    metrics = Metrics(NAMES, CONFUSION)
    four = (metrics.mean_iou, metrics.pixel_accuracy, metrics.mean_accuracy)
    four = (*four, metrics.frequency_weighted_iou)
    (found,) = rows(text, "Evaluation")
    assert found == [f"{value:.1%}" for value in four]
    each = section(text, "Evaluation").partition("| class |")[2]
    for name, iou, accuracy in zip(
        ("sky", "road", "a\\|b"), metrics.class_iou, metrics.class_accuracy, strict=True
    ):
        assert f"| {name} | {iou:.1%} | {accuracy:.1%} |" in each
    assert "- split: val\n- images: 4\n" in each
    assert "- epoch: 7, the best one on this split" in each
    data = section(text, "Training data")
    assert "- dataset: streets\n" in data
    assert f"- fingerprint: {'ab12' * 16}\n" in data
    assert "- images: 12 train, 4 val\n" in data
    assert "100 x 200 to 360 x 480, most often 240 x 320" in data
    assert "- ignored: 20.0% of the training pixels" in data


def test_limits_follow_from_the_data(make_model: MakeModel) -> None:
    limits = section(model_card(trained(make_model, scale=(0.5, 2.0))), "Limitations")
    assert "Rare in training (under 1.0% of the labeled pixels): a|b (0.6%)." in limits
    assert "Never predicted on val, although present: a|b." in limits
    assert "20.0% of the training pixels were ignored" in limits
    assert "images of 100 x 200 to 360 x 480, most often 240 x 320 pixels, resized 0.5 to 2" in (
        limits
    )
    assert "The epoch was chosen on the split val (images: 4)" in limits
    absent = {**DATA, "class_pixels": {"sky": 10, "road": 10, "a|b": 0}, "ignored_pixels": 0}
    limits = section(model_card(trained(make_model, data=absent)), "Limitations")
    assert "No training pixel is labeled a|b" in limits
    assert "Rare" not in limits
    assert "ignored" not in limits


def test_what_is_not_known_is_said_to_be_unknown(make_model: MakeModel) -> None:
    """A model of before these facts were noted, or one that was never trained."""
    text = model_card(make_model().config())
    assert [row[3] for row in rows(text, "Classes")] == ["unknown"] * 3
    assert "Unknown: this model came without evaluation results." in text
    data = section(text, "Training data")
    for what in ("dataset", "fingerprint", "images", "sizes (height x width)"):
        assert f"- {what}: unknown\n" in data
    assert "- recipe: unknown" in section(text, "Training")
    assert "mean IoU" not in text
    assert "model-index" not in text
    assert "unknown to this card" in section(text, "Licenses")
    made_up = {**DATA, "named": False}
    assert "made up from the ids" in model_card(trained(make_model, data=made_up))
    assert "made up from the ids" not in model_card(trained(make_model))


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "epochs": st.integers(1, 300),
            "stride": st.sampled_from((8, 16, 32)),
            "scale": st.sampled_from(((1.0, 1.0), (0.5, 2.0))),
            "flip": st.booleans(),
            "pretrained": st.booleans(),
            "color_jitter": st.sampled_from((0.0, 0.25)),
            "optimizer": st.sampled_from(("adamw", "sgd")),
            "class_weights": st.sampled_from(("none", "balanced")),
            "heads": st.sampled_from(("", "geometry,a b")),
            "seed": st.integers(0, 9),
            "patience": st.integers(0, 3),
        },
    )
)
@settings(max_examples=25)
def test_its_command_is_read_as_the_very_settings(options: dict[str, Any]) -> None:
    config = trained(MODEL_OF, **options)
    config["training"]["settings"]["workers"] = 3  # of the machine, not of the recipe
    line = section(model_card(config), "Training")
    words = shlex.split(re.findall(r"```sh\n(.*)\n```", line)[0])
    assert words[:3] == ["fullconv", "train", "streets"]
    _, bound, _ = app.parse_args(words[1:], exit_on_error=False, print_error=False)
    read = bound.arguments["settings"]
    wanted = config["training"]["settings"]
    assert read.backbone == "test_resnet"
    for one in fields(Settings):
        if one.name in wanted and one.name != "workers":
            assert getattr(read, one.name) == wanted[one.name], one.name


def MODEL_OF(names: tuple[str, ...], training: Any, metrics: Any) -> Model:  # noqa: N802
    model = _MODEL[0]
    return replace(model, labels=Labels(names), training=training, metrics=metrics)


_MODEL: list[Model] = []


@pytest.fixture(autouse=True, scope="module")
def _one_network(make_model: MakeModel) -> None:
    _MODEL.append(make_model(NAMES))


def test_of_a_network_that_no_name_says_a_card_is_asked_for(make_model: MakeModel) -> None:
    config = trained(make_model)
    config["backbone"]["options"] = {"pad_type": "same"}
    assert "--backbone CARD.toml" in model_card(config)
    config["training"]["start"] = "FCN-16s on test_resnet"
    text = model_card(config)
    assert "- started from: FCN-16s on test_resnet\n" in text
    assert "--init-from MODEL" in text


def test_heads_and_inputs_have_their_place(make_model: MakeModel) -> None:
    model = make_model()
    model.head, model.heads = "kinds", {"order": Labels(("far", "near"))}
    model.extra_inputs, model.fusion = (ExtraInput("depth", 1, (300.0,), (50.0,)),), "late"
    text = model_card(model.config())
    assert "Additional head order, 2 classes: far, near." in text
    assert "| 1 | near | `#800000` |" in text
    assert "Takes depth with each image (late fusion)." in text
    assert "depth: in the units of the files, minus 300, divided by 50." in text


def test_it_says_how_to_use_the_model_where_it_is(make_model: MakeModel, tmp_path: Path) -> None:
    config = make_model().config()
    assert 'fc.load("model")' in model_card(config)
    text = model_card(config, source="hf://someone/streets", image="predictions.png")
    assert 'fc.load("hf://someone/streets")' in text
    assert "fullconv predict hf://someone/streets photos/ --out predictions\n" in text
    assert "![photo, ground truth and prediction](predictions.png)" in text
    assert "![" not in model_card(config)
