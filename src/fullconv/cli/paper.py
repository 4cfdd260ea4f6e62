"""The commands that do what the papers' figures and analyses do: heatmap, probe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fullconv.cli.app import Json, Split, app, print_result, progress_bar, say
from fullconv.core.errors import FullconvError
from fullconv.core.text import as_typed, plural, shell_command

if TYPE_CHECKING:
    from fullconv.inference.heatmap import Heatmap
    from fullconv.network.dense.convolutionalize import DenseClassifier


@app.command(sort_key=9)
def heatmap(
    classifier: str,
    image: Path,
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
    """Show where in an image a classifier sees its classes: it is made dense, nothing is trained.

    Parameters
    ----------
    classifier
        A timm name, "torchvision:NAME", or a backbone card (.toml) with weights of your own.
    image
        The photo.
    classes
        A class to draw: a name ("tabby"), or its id; once for each class. Default: the one
        that is most probable anywhere.
    scales
        Of the image, with commas. 1 is the photo itself, reduced where its shorter side has more
        than twice the pixels that the classifier looks at.
    out
        The PNG to write.
    top
        How many classes to list.
    pretrained
        Load published weights, once from the network. A card brings its own.
    json
        Print one JSON object and nothing else.
    """
    wanted = _scales(scales)
    if top < 1:
        raise FullconvError(f"--top {top}; expected 1 or more.", "--top 5")
    _refuse_place(out, image)
    dense, found, shown = _found(classifier, image, classes, wanted, pretrained)
    facts, text = _facts(dense, found, shown, min(top, dense.num_classes))
    _write(found, shown, out)
    for caveat in dense.caveats():
        say(f"note: {dense.name}: {caveat}.")
    facts |= {"image": str(image), "out": str(out)}
    ahead = shell_command("fullconv", "train", "DATA", "--backbone", classifier)
    print_result(facts, f"{text}\nheat map: {out}", json, ahead=ahead)


@app.command(sort_key=10)
def probe(
    model: Path,
    data: Path,
    *,
    split: Split = "val",
    foreground: str = "",
    ignore_rules: str = "",
    json: Json = False,
) -> None:
    """Show what a model lives on: its scores where all but things, what is around them, or their
    shapes is hidden.

    Parameters
    ----------
    model
        A model folder or run, hf://user/name, torchvision:fcn_resnet50, a .caffemodel or .pth.
    data
        The data set's folder, or the name of a published one.
    split
        Which part of it.
    foreground
        Classes that are things, with commas between. Default: all but the background.
    ignore_rules
        Rules of `fullconv check`, with commas: what they found is left out.
    json
        Print one JSON object and nothing else.
    """
    from fullconv.evaluation.masking_probe import probe as probe_model
    from fullconv.evaluation.masking_probe import probe_table

    things = [name.strip() for name in foreground.split(",") if name.strip()]
    with progress_bar("evaluated") as progress:
        result = probe_model(
            model,
            data,
            split=split,
            foreground=things,
            ignore_rules=ignore_rules,
            progress=progress,
        )
    images = plural(result.evaluations["everything"].protocol["images"], "image")
    head = f"{as_typed(model)} on {data}, split {split}, {images}\n\n"
    ahead = shell_command("fullconv", "predict", model, "IMAGES")
    print_result(result.to_dict(), head + probe_table(result), json, ahead=ahead)


def _found(
    classifier: str, image: Path, classes: Sequence[str], scales: list[float], pretrained: bool
) -> tuple[DenseClassifier, Heatmap, list[int]]:
    """The dense classifier, what it finds, and the ids of the classes to draw."""
    import torch

    from fullconv.data.io.images import open_image
    from fullconv.inference.heatmap import heatmap as find_heat
    from fullconv.network.dense.classifier import find_class
    from fullconv.network.dense.convolutionalize import convolutionalize

    with open_image(image):  # what is no image is said before a network is built
        pass
    dense = convolutionalize(classifier, pretrained)
    asked = [find_class(name, dense.names, dense.num_classes) for name in classes]
    dense.to("cuda" if torch.cuda.is_available() else "cpu")
    found = find_heat(dense, image, scales=scales)
    return dense, found, list(dict.fromkeys(asked)) or [found.top(1)[0].class_id]


def _write(found: Heatmap, shown: list[int], out: Path) -> None:
    from fullconv.inference.heatmap import draw_heatmap

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draw_heatmap(found, shown).save(out)
    except OSError as error:
        raise FullconvError(
            f"the heat map could not be written to {out}: {error.strerror or error}.",
            "--out another_folder/heatmap.png",
        ) from error


def _scales(text: str) -> list[float]:
    """[1, 1.5] of "1,1.5"."""
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise FullconvError(
            f"--scales {text!r}; expected numbers with commas between.", "--scales 1,1.5,2"
        ) from None


def _refuse_place(out: Path, image: Path) -> None:
    if out.suffix.lower() != ".png":
        raise FullconvError(
            f"a heat map is written as PNG, not as {out.name!r}.", f"--out {out.stem}.png"
        )
    if out.resolve() == image.resolve():
        raise FullconvError(
            f"{out} is the image; the heat map would be written over it.", "--out heatmap.png"
        )


def _facts(
    dense: DenseClassifier, found: Heatmap, shown: list[int], top: int
) -> tuple[dict[str, Any], str]:
    """What was found, JSON-able and as a table."""
    places = found.top(top)
    facts = {
        "classifier": dense.name,
        "height": found.size[0],
        "width": found.size[1],
        "difference": dense.difference,
        "grid": dense.grid.to_dict(),
        "caveats": dense.caveats(),
        "scales": [
            {"scale": h.scale, "size": list(h.size), "cells": list(h.probabilities.shape[1:])}
            for h in found.heats
        ],
        "top": [place.to_dict() for place in places],
        "classes": [
            {
                **found.best(class_id).to_dict(),
                "scales": [place.to_dict() for place in found.places(class_id)],
            }
            for class_id in shown
        ],
    }
    listed = [*places, *(found.best(k) for k in shown if k not in [p.class_id for p in places])]
    lines = [
        f"{dense.name}, {found.size[0]} x {found.size[1]} pixels, dense and the classifier differ "
        f"by {dense.difference:.0e} of the largest score",
        f"{'probability':>11}{'x':>7}{'y':>7}{'scale':>7}  class",
    ]
    lines += [
        f"{p.probability:>11.1%}{p.column:>7}{p.row:>7}{p.scale:>7g}  {p.name}" for p in listed
    ]
    return facts, "\n".join(lines)
