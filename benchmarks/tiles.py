"""Compare tiles with the whole image, and measure their cost.

`exact`: twelve backbones at strides 8 and 32, random weights, three odd sizes: the largest
difference of the logits at a pixel over their spread, in float32 (target: at most 1e-4) and
float64, and the share of pixels with another label. `blended`: the same if an operation uses the
whole image. `geotiff`: a synthetic landscape of 20,000 x 20,000 pixels, predicted from file to
file: peak memory of one process and, in another, pixels per second against a file of 2,000 x 2,000:
by the clock (target: 0.9 of it), and by processor time. Writes results/tiles.json.

    python benchmarks/tiles.py [--only exact blended geotiff] [--threads 2]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from method import Figure, MissingError, Section, Spread, _status, in_fresh_process, parser, run
from torch import Tensor, nn

from fullconv.data.synthetic.scenes import LABELS, scene
from fullconv.inference.tiling import Difference, Tiles, whole_image_difference
from fullconv.models.model import Model, save_model
from fullconv.network.fcn import FCN

EXACT = (
    *("resnet18", "resnet10t", "mobilenetv1_100", "mobilenetv2_050", "regnetx_002", "repvgg_a0"),
    *("torchvision:alexnet", "vgg11", "darknet17", "selecsls42", "dla34", "tf_efficientnet_lite0"),
)
BLENDED = ("mobilenetv3_small_100", "efficientnet_b0", "regnety_002", "resnetv2_50x1_bit")
SIZES = ((65, 1501), (1237, 77), (333, 1111))  # H, W
TILE = 256
CLASSES = 8
AT_MOST = 1e-4
BIG, SMALL = 20_000, 2_000  # pixels per side
BESIDE = 20  # runs of the small file before the large one, and after it
BACKBONE = "torchvision:alexnet"  # the paper's FCN-AlexNet in torchvision's form
MOST_MEMORY = 2e9
AT_LEAST = 0.9
PIXELS = 0.5  # meters per side


def network(backbone: str, stride: int) -> FCN:
    """Build a network with random weights in all branches, and logits with standard deviation 1."""
    torch.manual_seed(0)
    net = FCN(backbone, CLASSES, stride=stride).eval().requires_grad_(False)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    features = net.backbone(as_input(scene(1, size=(288, 416))[0]))
    for score, feature in zip(net.score.values(), features, strict=True):
        nn.init.normal_(score.weight)
        made = score(feature)
        score.weight /= made.std() * len(features) ** 0.5
        score.bias.copy_(-score(feature).mean(dim=(0, 2, 3)) + score.bias)
    return net


def as_input(image: np.ndarray) -> Tensor:
    """Convert (H, W, 3) uint8 to (1, 3, H, W) with mean 0 and standard deviation 1."""
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 58 - 2.2


def measured(net: FCN, image: Tensor, tile: int) -> Difference:
    """Measure an image (1, 3, H, W) in the precision of the network."""
    return whole_image_difference(Tiles(net, net, tile=tile), image[0], [CLASSES])


def differences(backbones: Sequence[str], sizes: Sequence[tuple[int, int]]) -> Section:
    """Return a figure for each backbone and stride."""
    section, rows = Section(), []
    for backbone in backbones:
        for stride in (8, 32):
            net = network(backbone, stride)
            tiles = Tiles(net, net, tile=TILE)
            row: dict[str, Any] = {"backbone": backbone, "stride": stride, "halo": tiles.halo}
            row |= {"reasons": list(tiles.inexact_operations), "tile": tiles.tile}
            chosen = Tiles(net, net)
            row["chosen_tile"] = chosen.tile  # limited by the memory of a window
            if chosen.exact:
                row["new_share"] = (chosen.tile / (chosen.tile + 2 * chosen.halo)) ** 2
            for kind in ("float32", "float64"):
                net.to(getattr(torch, kind))
                row[kind] = []
                for index, size in enumerate(sizes):
                    image = as_input(scene(index, size=size)[0]).to(getattr(torch, kind))
                    found = measured(net, image, TILE)
                    row[kind].append(
                        {
                            "size": size,
                            "scores": found.scores / found.spread,
                            "labels": found.labels,
                            "pixels": found.pixels,
                        }
                    )
            rows.append(row)
            worst, unlike = (
                [max(one["scores"] for one in row[kind]) for kind in ("float32", "float64")],
                [sum(one["labels"] for one in row[kind]) for kind in ("float32", "float64")],
            )
            pixels = sum(one["pixels"] for one in row["float32"])
            section.figures.append(
                Figure(
                    f"{backbone}, stride {stride}",
                    worst[0],
                    worst[1],
                    "of spread",
                    Spread.of([worst[0]]),
                    at_most=AT_MOST if tiles.exact else None,
                    note=f"halo {tiles.halo}; other labels {unlike[0]} and {unlike[1]} of {pixels}",
                )
            )
            print(section.figures[-1].name, section.figures[-1].note, worst, flush=True)
    section.facts = {"rows": rows}
    return section


def exact(arguments: argparse.Namespace) -> Section:
    """Measure backbones with finite receptive fields."""
    if arguments.quick:
        return differences(EXACT[:1], SIZES[:1])
    return differences(EXACT, SIZES)


def blended(arguments: argparse.Namespace) -> Section:
    """Measure backbones with operations on the whole image."""
    if arguments.quick:
        return differences(BLENDED[:1], [(65, 601)])
    return differences(BLENDED, [(517, 903)])


def geotiff(arguments: argparse.Namespace) -> Section:
    """Measure prediction from file to file."""
    try:
        import rasterio
    except ImportError as error:
        raise MissingError("rasterio is not installed") from error
    big, small = (1200, 400) if arguments.quick else (BIG, SMALL)
    with tempfile.TemporaryDirectory() as folder:
        net = network(BACKBONE, 8)
        model = save_model(Model(net, LABELS, net.backbone.card), Path(folder) / "model")
        files = [landscape(Path(folder) / f"{side}.tif", side) for side in (small, big)]
        words = [str(model), *map(str, files), str(arguments.threads)]
        found = in_fresh_process(__file__, "--measure", *words)
        found |= in_fresh_process(__file__, "--memory", words[0], words[2], words[3])
        with rasterio.open(found["mask"]) as mask, rasterio.open(files[1]) as source:
            same = all(
                getattr(mask, k) == getattr(source, k) for k in ("crs", "transform", "shape")
            )
            found |= {
                "crs": mask.crs.to_string(),
                "transform": list(mask.transform)[:6],
                "georeference_kept": bool(same),
                "compression": mask.compression.name,
                "blocks": mask.block_shapes[0],
                "nodata": mask.nodata,
                "bytes": Path(found["mask"]).stat().st_size,
            }
    if not found["georeference_kept"]:
        raise RuntimeError("the mask has another CRS, transform or size than its source")
    rates = np.array([found["pixels_per_second"][k] for k in ("big", "small")]) / 1e6
    highest = found["highest_memory"] / 1e9
    return Section(
        [
            *(
                Figure(
                    f"{BACKBONE}, {big} x {big} against {small} x {small}, by {clock}",
                    *(rate[0], rate[1], "Mpixels/s"),
                    Spread.of([rate[0] / rate[1]]),
                    # Processor time includes the halo and the other threads.
                    at_least=AT_LEAST if clock == "the clock" else None,
                    note=f"tile {found['tile']}, halo {found['halo']}",
                )
                for rate, clock in zip(
                    rates.T.tolist(), ("the clock", "processor time"), strict=True
                )
            ),
            Figure(
                "highest memory of the process",
                *(highest, MOST_MEMORY / 1e9, "GB"),
                Spread.of([highest * 1e9 / MOST_MEMORY]),
                at_most=1,
            ),
        ],
        found,
    )


def landscape(path: Path, side: int) -> Path:
    """Write fields, woods, water and roads as a GeoTIFF, band by band."""
    import rasterio
    from rasterio.windows import Window

    random = np.random.default_rng(0)
    colors = np.array(
        [
            (70, 110, 160),
            (90, 130, 70),
            (60, 95, 55),
            (170, 160, 100),
            (140, 120, 90),
            (200, 195, 185),
        ]
    )
    cells = BIG // 200 + 2
    heights = random.normal(size=(3, cells, cells))
    profile = {"driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint8"}
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(PIXELS, 0, 5e5, 0, -PIXELS, 5.1e6)}
    form = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "zlevel": 1}
    across = np.arange(side)
    with rasterio.open(path, "w", **profile, **place, **form) as file:
        for top in range(0, side, 256):
            rows = np.arange(top, min(top + 256, side))
            level = sum(
                _smooth(field, rows, across, step)
                for field, step in zip(heights, (200, 400, 800), strict=True)
            )
            kind = np.digitize(level, (-1.6, -0.6, 0.4, 1.3, 2.2)).astype(np.uint8)
            plots = (rows[:, None] // 60 * 7919 + across // 90 * 104729) % 13 - 6
            shade = plots * 3 + (rows[:, None] // 3 + across // 2) % 5
            road = ((rows[:, None] + across // 3) % 700 < 8) | (
                (across - rows[:, None] // 5) % 900 < 8
            )
            pixels = np.clip(colors[kind] + shade[..., None], 0, 255).astype(np.uint8)
            pixels[road] = 175
            file.write(pixels.transpose(2, 0, 1), window=Window(0, top, side, len(rows)))
    return path


def _smooth(field: np.ndarray, rows: np.ndarray, columns: np.ndarray, step: int) -> np.ndarray:
    """Return a smooth field, bilinearly interpolated from a coarse grid."""
    (i, u), (j, v) = ((a // step, (a % step / step).astype(np.float32)) for a in (rows, columns))
    field = field.astype(np.float32)
    above = field[i][:, j] * (1 - v) + field[i][:, j + 1] * v
    below = field[i + 1][:, j] * (1 - v) + field[i + 1][:, j + 1] * v
    return above * (1 - u)[:, None] + below * u[:, None]


def measure(model: str, small: str, big: str, threads: str) -> None:
    """Predict a GeoTIFF as `fullconv predict` does, in its own process; print JSON."""
    torch.set_num_threads(int(threads))
    from fullconv.inference.geotiff import predict_raster
    from fullconv.inference.predictor import load

    predictor = load(model, device="cpu")
    out = Path(big).parent / "out"

    def seconds(source: str) -> Any:
        started = np.array([time.perf_counter(), time.process_time()])
        predict_raster(predictor, source, out / Path(source).stem, ["mask"])
        return np.array([time.perf_counter(), time.process_time()]) - started

    seconds(small)
    turns = [seconds(small) for _ in range(BESIDE)]
    taken = seconds(big)
    turns += [seconds(small) for _ in range(BESIDE)]
    sides = [int(Path(one).stem) for one in (small, big)]
    facts = {
        "seconds": {"small": [list(t) for t in turns], "big": list(taken)},
        "pixels_per_second": {
            "small": list(sides[0] ** 2 / np.mean(turns, axis=0)),
            "big": list(sides[1] ** 2 / taken),
        },
        "seconds_are": ["of the clock", "of the processor"],
        "tile": predictor.tiles.tile if predictor.tiles else None,
        "halo": predictor.tiles.halo if predictor.tiles else None,
        "mask": str(out / f"{sides[1]}_mask.tif"),
    }
    print(json.dumps(facts))


def memory(model: str, big: str, threads: str) -> None:
    """Do the same with nothing else in the process; print JSON."""
    torch.set_num_threads(int(threads))
    from fullconv.inference.geotiff import predict_raster
    from fullconv.inference.predictor import load

    predict_raster(load(model, device="cpu"), big, Path(big).with_name("alone"), ["mask"])
    print(json.dumps({"highest_memory": _status("VmHWM")}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(*sys.argv[2:])
    elif sys.argv[1:2] == ["--memory"]:
        memory(*sys.argv[2:])
    else:
        made = {"exact": exact, "blended": blended, "geotiff": geotiff}
        sys.exit(run("tiles", made, parser(__doc__, rounds=1).parse_args()))
