"""The model card: its facts, and the commands that it names."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import fields, replace
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
    """Return the config.json of a model whose training is known."""
    protocol = protocol_card(
        fingerprint="ab12" * 16,
        split="val",
        images=4,
        classes=NAMES,
        pretrained_on="ImageNet-1k",
        ignored_pixels=7,
    )
    train = Settings(lr=0.002, backbone_lr=0.0005, crop=(97, 129), **options)
    stored = {k: v for k, v in train.to_dict().items() if k not in ("backbone", "init_from")}
    training = {"data_fingerprint": "ab12" * 16, "fullconv": "0.1.0", "settings": stored}
    metrics = {**Metrics(NAMES, CONFUSION).to_dict(), "epoch": 7, "protocol": protocol}
    model = make_model(NAMES, training={**training, "data": data}, metrics=metrics)
    pretrained_on = "ImageNet-1k" if train.pretrained else ""
    model.card = replace(model.card, pretrained_on=pretrained_on, license=license)
    return model.config()


def rows(text: str, title: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without the table's own heading."""
    table = re.search(r"(?:^\|.*\n)+", text.partition(f"## {title}\n")[2], re.MULTILINE)
    assert table
    lines = table[0].splitlines()[2:]
    cells = (re.split(r"(?<!\\)\|", line.strip("|")) for line in lines)
    return [[cell.strip() for cell in row] for row in cells]


def section(text: str, title: str) -> str:
    return text.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_the_metadata_for_hubs(make_model: MakeModel) -> None:
    head = ModelCard(model_card(trained(make_model, license="Apache-2.0"))).data
    assert (head.library_name, head.pipeline_tag) == ("fullconv", "image-segmentation")
    assert head.license == "apache-2.0"
    assert "semantic-segmentation" in head.tags
    values = {result.metric_type: result.metric_value for result in head.eval_results}
    mean_iou = Metrics(NAMES, CONFUSION).mean_iou
    assert values == pytest.approx({"mean_iou": mean_iou, "accuracy": 135 / 160}, abs=1e-4)
    assert {result.dataset_split for result in head.eval_results} == {"val"}
    assert {result.dataset_name for result in head.eval_results} == {"streets"}
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
    names = ("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou")
    assert rows(text, "Evaluation") == [[f"{getattr(metrics, name):.1%}" for name in names]]
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


def test_limitations_follow_from_the_data(make_model: MakeModel) -> None:
    limits = section(model_card(trained(make_model, scale=(0.5, 2.0))), "Limitations")
    assert "Rare in training (under 1.0% of the labeled pixels): a|b (0.6%)." in limits
    assert "Never predicted on val, although present: a|b." in limits
    assert "20.0% of the training pixels were ignored" in limits
    sizes = "images of 100 x 200 to 360 x 480, most often 240 x 320 pixels, resized 0.5 to 2"
    assert sizes in limits
    assert "The epoch was chosen on the split val (images: 4)" in limits
    absent = {**DATA, "class_pixels": {"sky": 10, "road": 10, "a|b": 0}, "ignored_pixels": 0}
    limits = section(model_card(trained(make_model, data=absent)), "Limitations")
    assert "No training pixel is labeled a|b" in limits
    assert "Rare" not in limits
    assert "ignored" not in limits


def test_unknown_facts_are_stated_as_unknown(make_model: MakeModel) -> None:
    text = model_card(make_model().config())
    assert [row[3] for row in rows(text, "Classes")] == ["unknown"] * 3
    assert "Unknown: this model came without evaluation results." in text
    data = section(text, "Training data")
    for name in ("dataset", "fingerprint", "images", "sizes (height x width)"):
        assert f"- {name}: unknown\n" in data
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
def test_the_train_command_gives_the_same_settings(
    make_model: MakeModel, options: dict[str, Any]
) -> None:
    config = trained(make_model, **options)
    expected = config["training"]["settings"]
    expected["workers"] = 3  # of the machine, not of the recipe
    text = section(model_card(config), "Training")
    words = shlex.split(re.findall(r"```sh\n(.*)\n```", text)[0])
    assert words[:3] == ["fullconv", "train", "streets"]
    _, bound, _ = app.parse_args(words[1:], exit_on_error=False, print_error=False)
    train = bound.arguments["settings"]
    assert train.backbone == "test_resnet"
    for field in fields(Settings):
        if field.name in expected and field.name != "workers":
            assert getattr(train, field.name) == expected[field.name], field.name


def test_networks_without_a_name_need_a_card(make_model: MakeModel) -> None:
    config = trained(make_model)
    config["backbone"]["options"] = {"pad_type": "same"}
    assert "--backbone CARD.toml" in model_card(config)
    config["training"]["start"] = "FCN-16s on test_resnet"
    text = model_card(config)
    assert "- started from: FCN-16s on test_resnet\n" in text
    assert "--init-from MODEL" in text


def test_heads_and_extra_inputs(make_model: MakeModel) -> None:
    model = make_model()
    model.head, model.heads = "kinds", {"order": Labels(("far", "near"))}
    model.extra_inputs, model.fusion = (ExtraInput("depth", 1, (300.0,), (50.0,)),), "late"
    text = model_card(model.config())
    assert "Additional head order, 2 classes: far, near." in text
    assert "| 1 | near | `#800000` |" in text
    assert "Takes depth with each image (late fusion)." in text
    assert "depth: in the units of the files, minus 300, divided by 50." in text


def test_commands_name_the_source(make_model: MakeModel) -> None:
    config = make_model().config()
    assert 'fc.load("model")' in model_card(config)
    text = model_card(config, source="hf://someone/streets", image="predictions.png")
    assert 'fc.load("hf://someone/streets")' in text
    assert "fullconv predict hf://someone/streets photos/ --out predictions\n" in text
    assert "![photo, ground truth and prediction](predictions.png)" in text
    assert "![" not in model_card(config)
