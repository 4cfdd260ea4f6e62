"""The model card: README.md of a model folder, filled in from its config.json.

What is not known is said to be unknown. The head is YAML, as model hubs read it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from fullconv.core.metric_names import TITLES, headline, never_predicted
from fullconv.core.settings import Settings
from fullconv.core.text import plural, shell_command, truncated_list

RARE = 0.01  # of the labelled training pixels (fraction): fewer make a rare class
# Licences that hubs know by these names; any other is called "other", with its own name beside it.
_LICENCES: tuple[str, ...] = (
    "apache-2.0",
    "mit",
    "bsd-2-clause",
    "bsd-3-clause",
    "bsd-3-clause-clear",
    "cc0-1.0",
)
_LICENCES += ("cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0")
_LICENCES += ("gpl-3.0", "lgpl-3.0", "agpl-3.0", "unlicense", "mpl-2.0")
_WORST = 3  # classes that are named as the least well labelled
_ASIDE = ("workers", "cache", "device", "devices", "nodes", "log_images_every", "logger")
_TOLD = {  # options that say how a training went -> in words
    "epochs": "epochs",
    "batch_size": "batch size",
    "grad_accumulation": "batches per step",
    "devices": "devices",
    "optimizer": "optimizer",
    "schedule": "schedule",
    "lr": "learning rate",
    "backbone_lr": "learning rate of the backbone",
    "seed": "seed",
}
_PAPER = """@inproceedings{long2015fully,
  title     = {Fully Convolutional Networks for Semantic Segmentation},
  author    = {Long, Jonathan and Shelhamer, Evan and Darrell, Trevor},
  booktitle = {Proceedings of the IEEE Conference on Computer Vision and Pattern Recognition},
  year      = {2015},
  pages     = {3431--3440}
}"""

Table = Mapping[str, Any]


def model_card(config: Table, *, source: str = "model", image: str = "") -> str:
    """README.md.

    Args:
        config: of the model, as `fullconv.models.model.Model.config` gives it.
        source: how the model is called in the commands: its folder, or a name such as
            hf://user/name.
        image: a file beside the card that shows what it does; "" for none.
    """
    parts = [
        _front_matter(config),
        f"# {model_title(config)}",
        _what(config),
        f"![photo, truth and prediction]({image})" if image else "",
        _use(source),
        _classes(config),
        _metrics(config),
        _data(config),
        _recipe(config),
        _preprocessing(config),
        _limits(config),
        _licences(config),
        "## Citation\n\nThe method, a fully convolutional network, is that of\n\n"
        f"```bibtex\n{_PAPER}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def model_title(config: Table) -> str:
    return f"FCN-{config['stride']}s on {config['backbone']['name']}"


def _front_matter(config: Table) -> str:
    import yaml

    licence = config["backbone"].get("license", "")
    head: dict[str, Any] = {"library_name": "fullconv", "pipeline_tag": "image-segmentation"}
    if licence:
        known = licence.lower().replace(" ", "-")
        head["license"] = known if known in _LICENCES else "other"
        head["license_name"] = "" if known in _LICENCES else licence
    head["tags"] = ["image-segmentation", "semantic-segmentation", "fcn", "pytorch"]
    metrics = config["metrics"]
    if metrics:
        head["metrics"] = ["mean_iou", "accuracy"]
        named = (
            ("mean_iou", "mean IoU", "mean_iou"),
            ("accuracy", "pixel accuracy", "pixel_accuracy"),
        )
        values = [
            {"type": kind, "name": name, "value": round(metrics[key], 4)}
            for kind, name, key in named
            if metrics.get(key) is not None
        ]
        name = _known(config).get("name") or "unknown"
        data = {"name": name, "type": name, "split": metrics["protocol"]["split"]}
        task = {"type": "image-segmentation", "name": "semantic segmentation"}
        result = {"task": task, "dataset": data, "metrics": values}
        head["model-index"] = [{"name": model_title(config), "results": [result]}] if values else []
    head = {key: value for key, value in head.items() if value}
    text: str = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    return f"---\n{text}---"


def _what(config: Table) -> str:
    names = config["classes"]
    lines = [
        f"Semantic segmentation into {plural(len(names), 'class', 'classes')}: "
        f"{', '.join(names)}. Every pixel of an image of any size gets one."
    ]
    for name, head in config.get("heads", {}).items():
        lines.append(f"Head {name}: {plural(len(head['classes']), 'class', 'classes')}: ")
        lines[-1] += f"{', '.join(head['classes'])}."
    for one in config.get("inputs", ()):
        lines.append(f"Takes {one['name']} beside each image ({config['fusion']} fusion).")
    if config["metrics"]:
        lines.append(f"Reached {headline(config['metrics'])}.")
    return "\n".join(lines)


def _use(source: str) -> str:
    return f"""## How to use it

Where Fullconv is installed:

```sh
{shell_command("fullconv", "predict", source, "photos/", "--out", "predictions")}
```

```python
import fullconv as fc

model = fc.load({json.dumps(source)})
segmentation = model("photo.jpg")  # a path, a PIL image, an array or a tensor
segmentation.mask  # (height, width) class ids
segmentation.overlay().save("overlay.png")
```"""


def _classes(config: Table) -> str:
    """A table of each head."""
    pixels = _known(config).get("class_pixels", {})
    total = sum(pixels.values())
    lines = ["## Classes", "", "| id | class | colour | share of the labelled training pixels |"]
    lines.append("|---|---|---|---|")
    for k, (name, color) in enumerate(zip(config["classes"], config["colors"], strict=True)):
        share = _share(pixels[name], total) if name in pixels else "unknown"
        lines.append(f"| {k} | {_cell(name)} | `{color}` | {share} |")
    lines += ["", f"Id {config['ignore_index']} stands for ignored pixels."]
    if _known(config).get("named") is False:
        lines.append("The data set names no classes: these names are made up from the ids.")
    for head, table in config.get("heads", {}).items():
        lines += ["", f"Of the head {_cell(head)}:", "", "| id | class | colour |", "|---|---|---|"]
        for k, (name, color) in enumerate(zip(table["classes"], table["colors"], strict=True)):
            lines.append(f"| {k} | {_cell(name)} | `{color}` |")
    return "\n".join(lines)


def _metrics(config: Table) -> str:
    metrics = config["metrics"]
    if not metrics:
        return "## How well it does\n\nNot known: no measurement came with this model."
    card = metrics["protocol"]
    lines = ["## How well it does", "", *_numbers(metrics)]
    for name, head in metrics.get("heads", {}).items():
        lines += ["", f"Of the head {_cell(name)}:", "", *_numbers(head)]
    lines += [
        "",
        "How this was measured; other numbers may be compared with these only where all of",
    ]
    lines += ["this agrees:", ""]
    shown = {**card, "classes": plural(len(card.get("classes", ())), "class", "classes")}
    if "epoch" in metrics:
        shown["epoch"] = f"{metrics['epoch']}, the best one on this split"
    lines += [f"- {key.replace('_', ' ')}: {value}" for key, value in shown.items()]
    return "\n".join(lines)


def _numbers(metrics: Table) -> list[str]:
    lines = ["| " + " | ".join(TITLES.values()) + " |", "|---|---|---|---|"]
    lines += ["| " + " | ".join(_fraction(metrics.get(key)) for key in TITLES) + " |"]
    ious, accuracies = metrics.get("per_class_iou", {}), metrics.get("per_class_accuracy", {})
    if ious:
        lines += ["", "| class | IoU | accuracy |", "|---|---|---|"]
    for name, iou in ious.items():
        lines.append(f"| {_cell(name)} | {_fraction(iou)} | {_fraction(accuracies.get(name))} |")
    return lines


def _data(config: Table) -> str:
    training, known = config["training"], _known(config)
    counts = known.get("images", {})
    images = ", ".join(f"{count} {split}" for split, count in counts.items()) or "unknown"
    lines = [
        "## What it was trained on",
        "",
        f"- data set: {known.get('name') or 'unknown'}",
        f"- fingerprint: {training.get('data_fingerprint', 'unknown')}",
        f"- images: {images}",
        f"- sizes (height x width): {_sizes(known) or 'unknown'}",
    ]
    if "ignored_pixels" in known:
        every = known["ignored_pixels"] + sum(known["class_pixels"].values())
        lines.append(f"- ignored: {_share(known['ignored_pixels'], every)} of the training pixels")
    lines.append("- where the images come from, and their licence: not known to this card")
    return "\n".join(lines)


def _sizes(known: Table) -> str:
    sizes = known.get("sizes")
    if not sizes:
        return ""
    small, large = ("{} x {}".format(*sizes[key]) for key in ("smallest", "largest"))
    return small if small == large else f"{small} to {large}, most often {_common(sizes)}"


def _common(sizes: Table) -> str:
    return "{} x {}".format(*sizes["commonest"])


def _recipe(config: Table) -> str:
    training, backbone = config["training"], config["backbone"]
    settings = training.get("settings", {})
    start = training.get("start") or (
        f"{backbone['source']} {backbone['name']}, trained on {backbone['pretrained_on']}"
        if backbone["pretrained_on"]
        else "random weights"
    )
    if not settings:
        start = f"{backbone['pretrained_on']}" if backbone["pretrained_on"] else "unknown"
    lines = ["## How it was trained", "", f"- started from: {start}"]
    if not settings:
        return "\n".join([*lines, "- recipe: unknown"])
    parts = [f"{word} {_plain(settings[key])}" for key, word in _TOLD.items() if key in settings]
    lines += [
        f"- {', '.join(parts)}",
        f"- fullconv {training.get('fullconv', 'of an unknown version')}",
        "",
        "```sh",
        _command(config),
        "```",
    ]
    return "\n".join(lines)


def _command(config: Table) -> str:
    """That trains such a model: all options that differ from their defaults, decided ones too."""
    training, backbone = config["training"], config["backbone"]
    words: list[object] = ["fullconv", "train", _known(config).get("name") or "DATA"]
    plain = not backbone.get("options") and backbone["source"] != "module"
    own = backbone["source"] == "timm" and plain
    named = backbone["name"] if own else f"{backbone['source']}:{backbone['name']}"
    words += ["--backbone", named if plain else "CARD.toml"]
    if training.get("start"):
        words += ["--init-from", "MODEL"]
    usual = Settings().to_dict()
    for key, value in training["settings"].items():
        value = tuple(value) if isinstance(value, list) else value
        if key in _ASIDE or value == usual.get(key) or value in ("", None):
            continue
        if key == "pretrained" and backbone["pretrained_on"]:  # the card or the model brings them
            continue
        option = key.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", *(value if isinstance(value, tuple) else (value,))]
    return shell_command(*words)


def _preprocessing(config: Table) -> str:
    mean, std = (" ".join(f"{x:.4g}" for x in config[key]) for key in ("mean", "std"))
    lines = [
        "## What goes in",
        "",
        f"RGB images of any size, scaled to 0-1, less {mean}, divided by {std} (red, green,",
        "blue). `fullconv` does this itself, pads where the network needs it, and gives labels in",
        "the size of the image.",
    ]
    if config.get("short_side"):
        lines.append(f"Images are resized so that their shorter side has {config['short_side']}")
        lines[-1] += " pixels."
    for one in config.get("inputs", ()):
        values = (" ".join(f"{x:.4g}" for x in one[key]) for key in ("mean", "std"))
        lines.append(f"{one['name']}: in the files' own numbers, less {next(values)},")
        lines[-1] += f" divided by {next(values)}."
    return "\n".join(lines)


def _limits(config: Table) -> str:
    return "\n".join(["## Limits", "", *(f"- {line}" for line in _limits_of(config))])


def _limits_of(config: Table) -> Iterator[str]:
    """Those that follow from the data and the measurement."""
    known, metrics = _known(config), config["metrics"]
    pixels = known.get("class_pixels", {})
    total = sum(pixels.values())
    if absent := [name for name, count in pixels.items() if not count]:
        yield f"Not one training pixel is labelled {truncated_list(absent)}: it cannot be told."
    rare = [(count / total, name) for name, count in pixels.items() if 0 < count < RARE * total]
    if rare:
        words = [f"{name} ({_share(share, 1)})" for share, name in sorted(rare)]
        yield f"Rare in training, under {_share(RARE, 1)} of its labelled pixels: {truncated_list(words)}."
    if metrics and metrics.get("confusion") and (never := never_predicted(metrics)):
        split = metrics["protocol"]["split"]
        yield f"Never predicted on {split}, though it is there: {truncated_list(never)}."
    ious = {k: v for k, v in (metrics or {}).get("per_class_iou", {}).items() if v is not None}
    if len(ious) > _WORST:
        worst = sorted(ious.items(), key=lambda item: item[1])[:_WORST]
        words = [f"{name} ({iou:.2f})" for name, iou in worst]
        yield f"Least well labelled, by IoU: {', '.join(words)}."
    if ignored := known.get("ignored_pixels"):
        yield (
            f"{_share(ignored, ignored + total)} of the training pixels were ignored: the model "
            "was never told what is there, and calls such pixels by one of its classes."
        )
    if sizes := _sizes(known):
        scale = config["training"].get("settings", {}).get("scale")
        varied = f", magnified {scale[0]:g} to {scale[1]:g} times" if scale else ""
        yield (
            f"It was trained on images of {sizes} pixels{varied}: what appears much larger or "
            "smaller than there may not be recognised."
        )
    if metrics:
        split, count = metrics["protocol"]["split"], metrics["protocol"]["images"]
        if "epoch" in metrics:
            yield (
                f"The epoch was chosen by the split {split} ({plural(count, 'image')}), so its "
                "numbers flatter a little; how far numbers of several trainings lie apart was not "
                "measured."
            )
    yield "How it does on images of other cameras, places or seasons is not known."


def _licences(config: Table) -> str:
    backbone = config["backbone"]
    lines = ["## Licences", ""]
    if backbone["pretrained_on"]:
        licence = backbone.get("license") or "not stated"
        lines.append(f"- weights of the backbone that the training started from: {licence}")
        if backbone.get("license"):
            lines[-1] += " (repeated in the head of this file)"
    else:
        lines.append("- the training started from no weights of others, as far as is known")
    lines.append("- this model, and the images that it learned from: not known to this card")
    return "\n".join(lines)


def _known(config: Table) -> Table:
    """What is known of the training data; nothing in models from before it was noted."""
    found: Table = config["training"].get("data", {})
    return found


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    """As a cell of a table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _share(part: float, whole: float) -> str:
    if not part:
        return "none"
    return f"{part / whole:.1%}".replace("%", " %") if part >= 0.0005 * whole else "< 0.1 %"


def _fraction(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
