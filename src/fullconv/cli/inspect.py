"""Facts about a backbone, a model or a dataset, JSON-able and as text."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import Message, join, msg, nmsg
from fullconv.core.metric_names import headline
from fullconv.core.progress import stage
from fullconv.data.check.check import check
from fullconv.data.check.preview import save_preview
from fullconv.data.synthetic.scenes import scene
from fullconv.inference.runtime import Runtime
from fullconv.inference.tiling import Tiles, whole_image_difference
from fullconv.models.hub import is_hub_name, resolve_hub_name
from fullconv.models.model import WEIGHTS
from fullconv.models.open import open_model
from fullconv.models.third_party import is_third_party
from fullconv.network.backbone import STRIDES, Backbone, MissingStrideError, build

Description = tuple[dict[str, Any], Message]


def inspect(thing: str, *, preview: str | Path | None = None) -> Description:
    """Return facts (JSON-able) and text about a backbone, a model or a dataset.

    Args:
        preview: for datasets, the PNG to draw a few pairs to.
    """
    if is_hub_name(thing):
        return _inspect_model(resolve_hub_name(thing))
    path = Path(thing)
    weights = [path / name / WEIGHTS for name in ("", "model", "model.old")]
    weights += [path / "config.json", path.parent / f"{path.name}.old" / WEIGHTS]
    third_party = path.is_file() and is_third_party(path)
    if any(file.is_file() for file in weights) or path.suffix == ".safetensors" or third_party:
        return _inspect_model(path)
    if path.is_dir():
        stage(msg("checking the dataset"))
        report = check(path)
        lines: list[str] = [report.text()]
        if preview is not None:
            save_preview(report, preview, findings=False)
            lines.append(msg("preview: {path}", path=preview))
        return report.to_dict(), join(lines)
    is_path = path.exists() or (len(path.parts) > 1 and ":" not in thing)
    if is_path and path.suffix != ".toml":
        message = msg("there is no {path}.", path=thing)
        if path.exists():
            message = msg("{path} is a file of another kind.", path=thing)
        expected = msg(
            "Expected a backbone name or config file (.toml), a model (a folder or a .safetensors "
            "file) or a dataset folder."
        )
        raise FullconvError(join([message, expected], " "), "fullconv inspect resnet18")
    return _inspect_backbone(thing)


def _inspect_backbone(name: str) -> Description:
    stage(msg("building the backbone"))
    for stride in STRIDES:  # the finest that it offers
        try:
            backbone = build(name, stride=stride)
            break
        except MissingStrideError:
            if stride == STRIDES[-1]:
                raise
    grids = zip(backbone.grids, backbone.channels, strict=True)
    facts = {
        "backbone": backbone.card.to_dict(),
        "parameters": sum(p.numel() for p in backbone.parameters()),
        "size_phase": backbone.size_phase,
        "grids": [{**grid.to_dict(), "channels": channels} for grid, channels in grids],
    }
    head = f"{backbone.card.source} {backbone.card.name}"
    return facts, join([head, *_grid_lines(backbone)])


def _inspect_model(path: Path) -> Description:
    stage(msg("loading the model"))
    model = open_model(path)
    network, card = model.network, model.card
    facts = {**model.config(), "parameters": sum(p.numel() for p in network.parameters())}
    facts["grids"] = [grid.to_dict() for grid in network.backbone.grids]
    values = {"name": network.name, "source": card.source, "backbone": card.name}
    values["millions"] = facts["parameters"] / 1e6
    lines: list[str] = [
        msg("{name} on {source} {backbone}, {millions:.1f} million parameters", **values),
        msg("classes: {names}", names=", ".join(model.labels.names)),
    ]
    for name, labels in model.heads.items():
        lines.append(msg("head {name}: {classes}", name=name, classes=", ".join(labels.names)))
    for extra in model.extra_inputs:
        extra_line = nmsg(
            "extra input {name}: {count} channel, {fusion} fusion",
            "extra input {name}: {count} channels, {fusion} fusion",
            extra.channels,
            name=extra.name,
            fusion=model.fusion,
        )
        lines.append(extra_line)
    lines.append(msg("pretrained on {data}", data=card.pretrained_on or msg("nothing")))
    if model.metrics:
        fingerprint = model.metrics["protocol"]["data_fingerprint"][:12]
        measured = {"headline": headline(model.metrics), "fingerprint": fingerprint}
        lines.append(msg("{headline} of data {fingerprint}", **measured))
    runtime = Runtime(model, device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    facts["engine"] = runtime.describe()
    lines.append(msg("runs in {engine}", engine=facts["engine"]))
    stage(msg("comparing tiles with a whole image"))
    facts["tiles"], tile_lines = _inspect_tiles(runtime)
    return facts, join([*lines, *_grid_lines(network.backbone), *tile_lines])


def _inspect_tiles(runtime: Runtime) -> tuple[dict[str, Any], list[str]]:
    """Measure whether tiles give the labels of the whole image, on a synthetic scene."""
    model = runtime.model
    if model.short_side is not None:
        reason = msg("images are resized as a whole, to {side} pixels", side=model.short_side)
        return {"exact": False, "reasons": [reason]}, [msg("tiles: none, {reason}", reason=reason)]
    if runtime.precision != "float32":  # rounding would hide what tiles do
        runtime = Runtime(model, device=runtime.device, precision="float32")
    tiles = Tiles(model.network, runtime.scores, tile=256)
    height, width = 384, 640
    if tiles.exact:  # a strip that is longer than the receptive field
        tiles = Tiles(model.network, runtime.scores, tile=max(64, tiles.halo // 2))
        height, width = 97, 2 * tiles.halo + 4 * tiles.tile + 1
    image = torch.from_numpy(scene(0, size=(height, width))[0]).permute(2, 0, 1)
    for extra in model.extra_inputs:  # a gray version, in the units of the extra channels
        gray = image[:1].float() / 127.5 - 1
        channels = [gray * std + mean for mean, std in zip(extra.mean, extra.std, strict=True)]
        image = torch.cat([image.float(), *channels])
    difference = whole_image_difference(tiles, image, [len(labels) for labels in model.tables])
    facts = {
        "exact": tiles.exact,
        "halo": tiles.halo,
        "reasons": list(tiles.inexact_operations),
        "measured": {**asdict(difference), "size": [height, width], "tile": tiles.tile},
    }
    measured_line = nmsg(
        "measured on a synthetic image of {height} x {width} in tiles of {tile}: {labels} of "
        "{count} pixel gets another label, logits differ by up to {spread:.1g} of their spread",
        "measured on a synthetic image of {height} x {width} in tiles of {tile}: {labels} of "
        "{count} pixels get another label, logits differ by up to {spread:.1g} of their spread",
        difference.pixels,
        height=height,
        width=width,
        tile=tiles.tile,
        labels=difference.labels,
        spread=difference.scores / max(difference.spread, 1e-9),
    )
    if tiles.exact:
        proof = msg(
            "tiles with a halo of {halo} pixels give the labels of the whole image (proven by the "
            "receptive field)",
            halo=tiles.halo,
        )
        return facts, [proof, measured_line]
    reasons = join(tiles.inexact_operations, ", ")
    blended = msg("tiles are not exact, because of {reasons}: seams are blended", reasons=reasons)
    return facts, [blended, measured_line]


def _grid_lines(backbone: Backbone) -> list[str]:
    """Return a table of the grids, and what they mean for image sizes."""
    titles = {"stride": msg("stride"), "offset": msg("offset"), "field": msg("field")}
    lines: list[str] = [
        msg("{stride:>8}{offset:>8}{field:>10}{channels:>10}", **titles, channels=msg("channels"))
    ]
    for grid, channels in zip(backbone.grids, backbone.channels, strict=True):
        field = "whole" if math.isinf(grid.field) else f"{grid.field:g}"
        lines.append(f"{grid.stride:>8g}{grid.offset:>8g}{field:>10}{channels:>10}")
    if whole := {name for grid in backbone.grids for name in grid.whole}:
        operations = ", ".join(sorted(whole))
        lines.append(msg("depends on the whole image: {operations}", operations=operations))
    n = backbone.coarsest_stride
    if backbone.size_phase == 1:
        lines.append(msg("images are padded to one more than a multiple of {n} pixels", n=n))
    elif backbone.size_phase == 0:
        lines.append(msg("images are padded to multiples of {n} pixels", n=n))
    if backbone.placement == "stretched":
        lines.append(
            msg("logits are stretched over the image: offsets hold for multiples of the stride")
        )
    return lines
