"""The model card: README.md of a model folder, filled in from its config.json.

Facts that are not known are stated as unknown. The metadata at the top are YAML for model hubs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fullconv.core.metric_names import TITLES, headline, never_predicted
from fullconv.core.settings import Settings
from fullconv.core.text import markdown_cell, percent, shell_command, truncated_list

RARE = 0.01  # of the labeled training pixels (fraction): a class with fewer is rare
_TEMPLATE = Path(__file__).with_name("templates") / "model_card.md.jinja"
# Licenses that hubs know by these names; any other is "other", with its own name in license_name.
_LICENSES = {
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "cc0-1.0",
    "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "gpl-3.0",
    "lgpl-3.0", "agpl-3.0", "unlicense", "mpl-2.0",
}  # fmt: skip
_WORST_CLASSES = 3
_NOT_RECIPE = ("workers", "cache", "device", "devices", "nodes", "log_images_every", "logger")
_RECIPE = {  # option -> its name in the card
    "epochs": "epochs",
    "batch_size": "batch size",
    "grad_accumulation": "gradient accumulation",
    "devices": "devices",
    "optimizer": "optimizer",
    "schedule": "schedule",
    "lr": "learning rate",
    "backbone_lr": "backbone learning rate",
    "seed": "seed",
}

Table = Mapping[str, Any]


def model_card(config: Table, *, source: str = "model", image: str = "") -> str:
    """Return the README.md of a model from its config.json, see
    `fullconv.models.model.Model.config`.

    `source` is the model's name in the commands: its folder, or a name such as hf://user/name.
    `image` is an image file next to the card that shows what the model does; "" for none.
    """
    from huggingface_hub import ModelCard

    backbone, training, results = config["backbone"], config["training"], config["metrics"]
    data, settings = training.get("data", {}), training.get("settings", {})
    counts = data.get("class_pixels", {})
    labeled = sum(counts.values())
    shares = {name: _share(count, labeled) for name, count in counts.items()}
    ignored = data.get("ignored_pixels")

    initial_weights = backbone["pretrained_on"] or ("random weights" if settings else "unknown")
    if settings and backbone["pretrained_on"]:
        name = f"{backbone['source']} {backbone['name']}"
        initial_weights = f"{name}, pretrained on {initial_weights}"
    protocol: dict[str, Any] = {}
    if results:
        protocol = {**results["protocol"]}
        protocol["classes"] = f"{len(protocol.get('classes', ()))} classes"
        if "epoch" in results:
            protocol["epoch"] = f"{results['epoch']}, the best one on this split"
    recipe = []
    for key, word in _RECIPE.items():
        if key in settings:
            value = settings[key]
            recipe.append(f"{word} {value:g}" if isinstance(value, float) else f"{word} {value}")
    image_counts = [f"{count} {split}" for split, count in data.get("images", {}).items()]
    command = shell_command("fullconv", "predict", source, "photos/", "--out", "predictions")
    card = ModelCard.from_template(
        _metadata(config),
        template_path=str(_TEMPLATE),
        config=config,
        title=model_title(config),
        heads=config.get("heads", {}),
        extra_inputs=config.get("inputs", ()),
        backbone=backbone,
        training=training,
        settings=settings,
        data=data,
        results=results,
        headline=headline(results) if results else "",
        titles=TITLES,
        protocol=protocol,
        image=image,
        predict_command=command,
        source_literal=json.dumps(source),
        shares=shares or dict.fromkeys(config["classes"], "unknown"),
        image_counts=", ".join(image_counts),
        sizes=_sizes(data),
        ignored=None if ignored is None else _share(ignored, ignored + labeled),
        initial_weights=training.get("start") or initial_weights,
        recipe=", ".join(recipe),
        train_command=_train_command(config) if settings else "",
        limits=list(_limitations(config)),
        percent=percent,
        cell=markdown_cell,
        numbers=lambda values: " ".join(f"{value:.4g}" for value in values),
    )
    return f"{card.content}\n"


def model_title(config: Table) -> str:
    """Return the title of a model: "FCN-8s on resnet18"."""
    return f"FCN-{config['stride']}s on {config['backbone']['name']}"


def _metadata(config: Table) -> Any:
    from huggingface_hub import EvalResult, ModelCardData

    license_name = config["backbone"].get("license", "")
    license_id = license_name.lower().replace(" ", "-")
    is_known = license_id in _LICENSES
    results = config["metrics"] or {}
    data_name = config["training"].get("data", {}).get("name") or "unknown"
    rows = (("mean_iou", "mean IoU", "mean_iou"), ("accuracy", "pixel accuracy", "pixel_accuracy"))
    evaluations = [
        EvalResult(
            task_type="image-segmentation",
            task_name="semantic segmentation",
            dataset_type=data_name,
            dataset_name=data_name,
            dataset_split=results["protocol"]["split"],
            metric_type=kind,
            metric_name=name,
            metric_value=round(results[key], 4),
        )
        for kind, name, key in rows
        if results.get(key) is not None
    ]
    return ModelCardData(
        library_name="fullconv",
        pipeline_tag="image-segmentation",
        license=(license_id if is_known else "other") if license_name else None,
        license_name=license_name if license_name and not is_known else None,
        tags=["image-segmentation", "semantic-segmentation", "fcn", "pytorch"],
        metrics=["mean_iou", "accuracy"] if results else None,
        model_name=model_title(config) if evaluations else None,
        eval_results=evaluations or None,
    )


def _train_command(config: Table) -> str:
    """Return the command that trains such a model: all options that differ from their defaults."""
    training, backbone = config["training"], config["backbone"]
    words: list[object] = ["fullconv", "train", training.get("data", {}).get("name") or "DATA"]
    if backbone.get("options") or backbone["source"] == "module":
        words += ["--backbone", "CARD.toml"]
    elif backbone["source"] == "timm":
        words += ["--backbone", backbone["name"]]
    else:
        words += ["--backbone", f"{backbone['source']}:{backbone['name']}"]
    if training.get("start"):
        words += ["--init-from", "MODEL"]
    defaults = Settings().to_dict()
    for key, value in training["settings"].items():
        value = tuple(value) if isinstance(value, list) else value
        if key in _NOT_RECIPE or value == defaults.get(key) or value in ("", None):
            continue
        if key == "pretrained" and backbone["pretrained_on"]:  # the card or the model has weights
            continue
        option = key.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", *(value if isinstance(value, tuple) else (value,))]
    return shell_command(*words)


def _limitations(config: Table) -> Iterator[str]:
    """Yield the limitations that follow from the training data and the evaluation."""
    training, results = config["training"], config["metrics"] or {}
    data = training.get("data", {})
    counts = data.get("class_pixels", {})
    labeled = sum(counts.values())
    if absent := [name for name, count in counts.items() if not count]:
        yield f"No training pixel is labeled {truncated_list(absent)}: the model cannot know it."
    if rare := {name: n for name, n in counts.items() if 0 < n < RARE * labeled}:
        ordered = sorted(rare.items(), key=lambda item: (item[1], item[0]))
        names = [f"{name} ({_share(count, labeled)})" for name, count in ordered]
        limit = percent(RARE)
        yield f"Rare in training (under {limit} of the labeled pixels): {truncated_list(names)}."
    if results.get("confusion") and (missed := never_predicted(results)):
        split = results["protocol"]["split"]
        yield f"Never predicted on {split}, although present: {truncated_list(missed)}."
    ious = {k: iou for k, iou in results.get("per_class_iou", {}).items() if iou is not None}
    if len(ious) > _WORST_CLASSES:
        worst = sorted(ious.items(), key=lambda item: item[1])[:_WORST_CLASSES]
        yield f"Lowest IoU: {', '.join(f'{name} ({percent(iou)})' for name, iou in worst)}."
    if ignored := data.get("ignored_pixels"):
        yield (
            f"{_share(ignored, ignored + labeled)} of the training pixels were ignored: the model "
            "never learned what is there, and assigns such pixels to one of its classes."
        )
    if sizes := _sizes(data):
        scale = training.get("settings", {}).get("scale")
        resized = f", resized {scale[0]:g} to {scale[1]:g} times" if scale else ""
        yield (
            f"Trained on images of {sizes} pixels{resized}. Objects that appear much larger or "
            "smaller may not be recognized."
        )
    if "epoch" in results:
        split, images = results["protocol"]["split"], results["protocol"]["images"]
        yield (
            f"The epoch was chosen on the split {split} (images: {images}), so its results are "
            "slightly optimistic. The spread between training runs was not measured."
        )
    yield "The accuracy on images of other cameras, places or seasons is unknown."


def _sizes(data: Table) -> str:
    if not (sizes := data.get("sizes")):
        return ""
    keys = ("smallest", "largest", "commonest")
    small, large, common = ("{} x {}".format(*sizes[key]) for key in keys)
    return small if small == large else f"{small} to {large}, most often {common}"


def _share(part: float, whole: float) -> str:
    return percent(part / whole) if part else "none"
