"""What a backbone, a model or a data set is, as facts and as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from fullconv.core.errors import FullconvError
from fullconv.core.metric_names import headline
from fullconv.core.text import plural
from fullconv.data.check.check import check
from fullconv.data.check.preview import save_preview
from fullconv.data.synthetic.scenes import scene
from fullconv.geometry.grid import Grid
from fullconv.inference.runtime import Runtime
from fullconv.inference.tiling import Tiles, whole_image_difference
from fullconv.models.hub import is_hub_name, resolve_hub_name
from fullconv.models.model import WEIGHTS, is_third_party, load_model
from fullconv.network.backbone import STRIDES, Backbone, build


def inspect(thing: str, *, sheet: str | Path | None = None) -> tuple[dict[str, Any], str]:
    """Facts (JSON-able) and text about a backbone's name or card, a model folder or a data set; of
    a data set also an image of a few of its pairs, where `sheet` names a PNG file."""
    if is_hub_name(thing):
        return _model(resolve_hub_name(thing))
    path = Path(thing)
    inside = ("config.json", WEIGHTS, f"model/{WEIGHTS}", f"model.old/{WEIGHTS}")
    signs = [*(path / name for name in inside), path.parent / f"{path.name}.old" / WEIGHTS]
    file_of_others = path.is_file() and is_third_party(path)
    if any(sign.is_file() for sign in signs) or path.suffix == ".safetensors" or file_of_others:
        return _model(path)
    if path.is_dir():
        report = check(path)
        text = report.text()
        if sheet is not None:
            save_preview(report, sheet, findings=False)
            text += f"sheet: {sheet}\n"
        return report.to_dict(), text
    a_path = path.exists() or (len(path.parts) > 1 and ":" not in thing)
    if a_path and path.suffix != ".toml":
        there = "is a file that is" if path.exists() else "does not exist, and is"
        raise FullconvError(
            f"{thing} {there} neither a backbone's name or card (.toml), a model (a folder or a "
            ".safetensors file) nor a data set's folder.",
            "fullconv inspect resnet18",
        )
    return _backbone(thing)


def _backbone(name: str) -> tuple[dict[str, Any], str]:
    backbone = _finest(name)
    grids = [
        {**grid.to_dict(), "channels": channels}
        for grid, channels in zip(backbone.grids, backbone.channels, strict=True)
    ]
    facts = {
        "backbone": backbone.card.to_dict(),
        "parameters": sum(p.numel() for p in backbone.parameters()),
        "size_phase": backbone.size_phase,
        "grids": grids,
    }
    return facts, "\n".join([f"{backbone.card.source} {backbone.card.name}", *_lines(backbone)])


def _finest(name: str) -> Backbone:
    problem: FullconvError | None = None
    for stride in STRIDES:
        try:
            return build(name, stride=stride)
        except FullconvError as error:
            problem = error
            if "offers stride" not in error.message:
                break
    assert problem is not None
    raise problem


def _model(path: Path) -> tuple[dict[str, Any], str]:
    model = load_model(path)
    network = model.network
    facts = {**model.config(), "parameters": sum(p.numel() for p in network.parameters())}
    facts["grids"] = [grid.to_dict() for grid in network.backbone.grids]
    lines = [
        f"{network.name} on {model.card.source} {model.card.name}, "
        f"{facts['parameters'] / 1e6:.1f} million parameters",
        f"classes: {', '.join(model.labels.names)}",
        *(f"head {name}: {', '.join(labels.names)}" for name, labels in model.heads.items()),
        *(
            f"takes {one.name} beside each image: {plural(one.channels, 'channel')}, "
            f"{model.fusion} fusion"
            for one in model.extra_inputs
        ),
        f"pretrained on {model.card.pretrained_on or 'nothing'}",
    ]
    if model.metrics:
        fingerprint = model.metrics["protocol"]["data_fingerprint"]
        lines.append(f"{headline(model.metrics)} of data {fingerprint[:12]}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    engine = Runtime(model, device=device)
    facts["engine"] = engine.describe()
    lines.append(f"runs in {facts['engine']}")
    facts["tiles"], said = _tiles(engine)
    return facts, "\n".join([*lines, *_lines(network.backbone), *said])


def _tiles(engine: Runtime) -> tuple[dict[str, Any], list[str]]:
    """Whether large images are cut without a trace, and what was measured."""
    model = engine.model
    if model.short_side is not None:
        said = f"images are resized as a whole, to {model.short_side} pixels"
        return {"exact": False, "reasons": [said]}, [f"tiles: none, {said}"]
    if engine.precision != "float32":  # what tiles do must not drown in rounding
        engine = Runtime(model, device=engine.device, precision="float32")
    tiles = Tiles(model.network, engine.scores, tile=256)
    height, width = 384, 640
    if tiles.exact:  # a strip that is longer than what a window sees
        tiles = Tiles(model.network, engine.scores, tile=max(64, tiles.halo // 2))
        height, width = 97, 2 * tiles.halo + 4 * tiles.tile + 1
    image = torch.from_numpy(scene(0, size=(height, width))[0]).permute(2, 0, 1)
    for one in model.extra_inputs:  # grey, in the numbers of the input
        grey = image[:1].float() / 127.5 - 1
        beside = [grey * std + mean for mean, std in zip(one.mean, one.std, strict=True)]
        image = torch.cat([image.float(), *beside])
    found = whole_image_difference(tiles, image, [len(labels) for labels in model.tables])
    facts = {"exact": tiles.exact, "halo": tiles.halo, "reasons": list(tiles.reasons)}
    facts |= {"measured": {**asdict(found), "size": [height, width], "tile": tiles.tile}}
    measured = (
        f"measured on a drawn image of {height} x {width} in tiles of {tiles.tile}: "
        f"{found.labels} of {plural(found.pixels, 'pixel')} get another label, scores differ by "
        f"up to {found.scores / max(found.spread, 1e-9):.1g} of their spread"
    )
    if tiles.exact:
        halo = f"tiles with a halo of {tiles.halo} pixels give the labels of the whole image"
        return facts, [f"{halo}: proven by the receptive field", measured]
    why = ", ".join(tiles.reasons)
    return facts, [f"tiles are not exact, because of {why}: seams are blended", measured]


def _lines(backbone: Backbone) -> list[str]:
    rows = [f"{'stride':>8}{'offset':>8}{'field':>10}{'channels':>10}"]
    for grid, channels in zip(backbone.grids, backbone.channels, strict=True):
        field = "whole" if math.isinf(grid.field) else f"{grid.field:g}"
        rows.append(f"{grid.stride:>8g}{grid.offset:>8g}{field:>10}{channels:>10}")
    whole = _whole(backbone.grids)
    if whole:
        rows.append(f"sees the whole image: {', '.join(whole)}")
    phase = {0: "multiples of", 1: "one more than a multiple of"}.get(backbone.size_phase or 0)
    if backbone.size_phase is not None:
        rows.append(f"images are padded to {phase} {backbone.coarsest} pixels")
    if backbone.placement == "stretched":
        rows.append("scores are stretched over the image: offsets hold for multiples of the stride")
    return rows


def _whole(grids: Sequence[Grid]) -> list[str]:
    return sorted({name for grid in grids for name in grid.whole})
