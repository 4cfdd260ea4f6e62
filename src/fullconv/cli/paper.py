"""The commands that reproduce the papers' figures and analyses: heatmap, probe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fullconv.cli.app import ANALYSIS, Json, Split, app, print_result, progress_bar
from fullconv.cli.usage import check_dataset, check_model
from fullconv.core.errors import FullconvError
from fullconv.core.i18n import Message, join, msg, nmsg
from fullconv.core.progress import say, stage
from fullconv.core.text import as_typed, shell_command, split_list

if TYPE_CHECKING:
    from fullconv.inference.heatmap import Heatmap
    from fullconv.network.dense.convolutionalize import DenseClassifier


@app.command(group=ANALYSIS, sort_key=25)
def heatmap(
    classifier: str,
    image: Path,
    /,
    *,
    classes: Annotated[
        tuple[str, ...], Parameter(name="--class", negative=(), show_default=False)
    ] = (),
    scales: str = "1,1.5,2",
    out: Path = Path("heatmap.png"),
    top: int = 5,
    pretrained: bool = True,
    json: Json = False,
) -> None:
    """Show where in an image a classifier sees its classes, without any training.

    Args:
        classifier: A timm name, torchvision:NAME, or a backbone config file (.toml) with your own
            weights.
        image: The image.
        classes: Class to draw, by name ("tabby") or id; repeat it for more classes. Default: the
            class with the highest probability anywhere.
        scales: Comma-separated image sizes. 1 is the image itself, reduced if its shorter side is
            more than twice the classifier's input size.
        out: PNG file to write.
        top: Number of classes to list.
        pretrained: Load published weights, once from the network. A config file names its own.
    """
    # What can be checked before torch is imported.
    from fullconv.inference.options import parse_scales

    sizes = parse_scales(scales)
    if top < 1:
        raise FullconvError(msg("--top is {top}; it must be 1 or more.", top=top), "--top 5")
    if out.suffix.lower() != ".png":
        message = msg("a heat map is written as PNG, not as {name!r}.", name=out.name)
        raise FullconvError(message, f"--out {out.stem}.png")
    if out.resolve() == image.resolve():
        message = msg("{path} is the image, which the heat map would replace.", path=out)
        raise FullconvError(message, "--out heatmap.png")

    stage(msg("loading PyTorch"))
    import torch

    from fullconv.data.io.images import open_image
    from fullconv.inference.heatmap import draw_heatmap
    from fullconv.inference.heatmap import heatmap as compute_heatmap
    from fullconv.network.dense.classifier import find_class
    from fullconv.network.dense.convolutionalize import convolutionalize

    with open_image(image):  # refuses other files before a network is built
        pass
    stage(msg("loading the classifier"))
    dense = convolutionalize(classifier, pretrained)
    class_ids = [find_class(name, dense.names, dense.num_classes) for name in classes]
    dense.to("cuda" if torch.cuda.is_available() else "cpu")
    stage(msg("computing the heat map"))
    heat = compute_heatmap(dense, image, scales=sizes)
    drawn = list(dict.fromkeys(class_ids)) or [heat.top(1)[0].class_id]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draw_heatmap(heat, drawn).save(out)
    except OSError as error:
        values = {"path": out, "reason": error.strerror or str(error)}
        message = msg("the heat map could not be written to {path}: {reason}.", **values)
        raise FullconvError(message, "--out another_folder/heatmap.png") from error

    for caveat in dense.caveats():
        say(msg("note: {classifier}: {caveat}.", classifier=dense.name, caveat=caveat))
    facts, text = _heatmap_facts(dense, heat, drawn, min(top, dense.num_classes))
    facts |= {"image": str(image), "out": str(out)}
    ahead = shell_command("fullconv", "train", "DATA", "--backbone", classifier)
    print_result(facts, join([text, msg("heat map: {path}", path=out)]), json, ahead=ahead)


def _heatmap_facts(
    dense: DenseClassifier, heat: Heatmap, drawn: list[int], top: int
) -> tuple[dict[str, Any], Message]:
    """Return the heat map's peaks, JSON-able and as a table."""
    peaks, (height, width) = heat.top(top), heat.size
    measured = {"height": height, "width": width, "difference": dense.difference}
    facts = {
        "classifier": dense.name,
        **measured,
        "grid": dense.grid.to_dict(),
        "caveats": dense.caveats(),
        "scales": [
            {"scale": h.scale, "size": list(h.size), "cells": list(h.probabilities.shape[1:])}
            for h in heat.heats
        ],
        "top": [peak.to_dict() for peak in peaks],
        "classes": [
            {**heat.best(k).to_dict(), "scales": [peak.to_dict() for peak in heat.peaks(k)]}
            for k in drawn
        ],
    }
    listed = {peak.class_id for peak in peaks}
    rows = [*peaks, *(heat.best(k) for k in drawn if k not in listed)]
    head = msg(
        "{classifier}, {height} x {width} pixels; the dense form differs from the classifier by "
        "{difference:.0e} of the largest logit",
        classifier=dense.name,
        **measured,
    )
    titles = {"probability": msg("probability"), "scale": msg("scale"), "name": msg("class")}
    title = msg("{probability:>11}{x:>7}{y:>7}{scale:>7}  {name}", x="x", y="y", **titles)
    lines = [f"{p.probability:>11.1%}{p.column:>7}{p.row:>7}{p.scale:>7g}  {p.name}" for p in rows]
    return facts, join([head, title, *lines])


@app.command(group=ANALYSIS, sort_key=24)
def probe(
    model: Path,
    data: Path,
    /,
    *,
    split: Split = "val",
    foreground: str = "",
    ignore_rules: str = "",
    json: Json = False,
) -> None:
    """Measure how much a model relies on objects, on their context or on their shape.

    Args:
        model: Run or model folder, hf://user/name, torchvision:fcn_resnet50, .caffemodel or .pth.
        data: Dataset folder, or the name of a published dataset.
        split: Split of the dataset.
        foreground: Comma-separated classes that are objects. Default: all but the background.
        ignore_rules: Comma-separated rules of `fullconv check`; what they found is left out.
    """
    check_model("probe", model, data)
    check_dataset("probe", data)
    stage(msg("loading the model"))
    from fullconv.evaluation.masking_probe import probe as probe_model
    from fullconv.evaluation.masking_probe import probe_table

    options: dict[str, Any] = {"split": split, "ignore_rules": ignore_rules}
    with progress_bar(msg("evaluated")) as progress:
        result = probe_model(
            model, data, foreground=split_list(foreground), progress=progress, **options
        )
    head = nmsg(
        "{model} on {data}, split {split}, {count} image",
        "{model} on {data}, split {split}, {count} images",
        result.evaluations["everything"].protocol["images"],
        model=as_typed(model),
        data=data,
        split=split,
    )
    ahead = shell_command("fullconv", "predict", model, "IMAGES")
    print_result(result.to_dict(), join([head, "", probe_table(result)]), json, ahead=ahead)
