"""Convolutionalize classifiers of torchvision and timm and compare them with the originals.

`heat` measures whether heat maps of cats and dogs are on the animals.

    python benchmarks/classifiers.py [--only dense heat] [--names resnet18 torchvision:alexnet ...]

Writes results/classifiers.json; README.md in this folder describes the sections.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from method import Figure, MissingError, Section, Spread, parser, run
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.data.io.masks import read_values
from fullconv.geometry.trace_network import run_on_device, run_on_meta
from fullconv.inference.heatmap import Heatmap, heatmap
from fullconv.network.dense.classifier import load_classifier
from fullconv.network.dense.convolutionalize import TOLERANCE, DenseClassifier, convolutionalize

WANTED = 45  # classifiers equal within the tolerance
NEAR = 1e-5  # above this, the difference is also computed in float64

# Small networks of each family.
FAMILIES: dict[str, str] = {
    "AlexNet": "torchvision:alexnet",
    "VGG": "torchvision:vgg11 torchvision:vgg11_bn torchvision:vgg16 vgg11 vgg11_bn",
    "GoogLeNet, Inception": "torchvision:googlenet torchvision:inception_v3 inception_v3 "
    "inception_v4 inception_resnet_v2",
    "ResNet": "torchvision:resnet18 torchvision:resnet50 resnet18 resnet26d resnet50_mlp "
    "resnet50_clip_gap resnetblur18 resnetaa34d wide_resnet50_2",
    "ResNetV2, NF-ResNet": "resnetv2_18 resnetv2_50x1_bit nf_resnet26",
    "ResNeXt, Res2Net": "torchvision:resnext50_32x4d resnext26ts res2net50_14w_8s",
    "DenseNet": "torchvision:densenet121 densenet121 densenetblur121d",
    "SqueezeNet": "torchvision:squeezenet1_0 torchvision:squeezenet1_1",
    "ShuffleNet": "torchvision:shufflenet_v2_x0_5",
    "MobileNet": "torchvision:mobilenet_v2 torchvision:mobilenet_v3_small mobilenetv1_100 "
    "mobilenetv2_100 mobilenetv3_small_100 tf_mobilenetv3_small_minimal_100 "
    "mobilenetv4_conv_small mobileone_s0",
    "MnasNet, FBNet": "torchvision:mnasnet0_5 mnasnet_small fbnetc_100 spnasnet_100",
    "EfficientNet": "torchvision:efficientnet_b0 torchvision:efficientnet_v2_s efficientnet_b0 "
    "efficientnet_lite0 tf_efficientnet_lite0 efficientnet_es",
    "RegNet": "torchvision:regnet_x_400mf torchvision:regnet_y_400mf regnetx_002 regnety_002 "
    "regnetz_005",
    "ConvNeXt": "torchvision:convnext_tiny convnext_atto convnextv2_atto convnext_zepto_rms",
    "InceptionNeXt, MambaOut": "inception_next_atto mambaout_femto",
    "Xception": "xception41 legacy_xception",
    "NASNet": "nasnetalarge pnasnet5large",
    "DPN, DLA": "dpn48b dpn68 dla34 dla46_c",
    "HRNet": "hrnet_w18_small",
    "VoVNet, HGNet": "vovnet39a ese_vovnet19b_slim_dw hgnet_tiny hgnetv2_b0",
    "CSPNet, DarkNet": "cspresnet50 cspdarknet53 darknet17 cs3darknet_focus_s",
    "RepVGG, GENet": "repvgg_a0 gernet_s repvit_m0_9",
    "GhostNet, LCNet": "ghostnet_100 repghostnet_050 lcnet_050 tinynet_e",
    "ReXNet, SelecSLS": "rexnet_100 selecsls42",
    "ConvMixer": "convmixer_768_32",
    "FasterNet, StarNet": "fasternet_t0 starnet_s050 rdnet_tiny",
    "squeeze-excite and kin": "seresnet18 ecaresnet26t skresnet18 resnest14d gcresnet33ts",
    "MetaFormer": "poolformer_s12 convformer_s18 caformer_s18",
    "convolution and attention": "fastvit_t8 mobilevit_xxs edgenext_xx_small efficientvit_b0 "
    "coatnet_nano_rw_224 mobilevitv2_050 efficientformer_l1 torchvision:maxvit_t "
    "resnet50_clip botnet26t_256",
    "transformers": "torchvision:swin_t swin_tiny_patch4_window7_224 pvt_v2_b0 "
    "torchvision:vit_b_16 vit_tiny_patch16_224 deit_tiny_patch16_224 twins_svt_small "
    "levit_128s xcit_nano_12_p16_224",
    "MLPs": "mixer_s32_224 resmlp_12_224 gmlp_ti16_224",
}

CATS, DOGS = range(281, 286), range(151, 269)  # of ImageNet's classes
VOC_CAT, VOC_DOG = 8, 12
SCALES = (1.0, 1.5, 2.0)


def stir(module: nn.Module) -> nn.Module:
    """Randomize parameters that start as an identity: batch norm statistics, scales, shifts,
    biases."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for child in module.modules():
            if isinstance(getattr(child, "running_var", None), Tensor):
                child.running_mean.normal_(0, 0.2, generator=generator)  # type: ignore[union-attr, operator]
                child.running_var.uniform_(0.7, 1.5, generator=generator)  # type: ignore[union-attr, operator]
        for name, parameter in module.named_parameters():
            last = name.rpartition(".")[2]
            if last == "bias":
                parameter.normal_(0, 0.1, generator=generator)
            elif parameter.ndim == 1 or "gamma" in last or "scale" in last or "gain" in last:
                parameter.uniform_(0.7, 1.3, generator=generator)
    return module.eval()


def examined(name: str) -> dict[str, Any]:
    """Convolutionalize one classifier and return its facts."""
    found = load_classifier(name)
    row: dict[str, Any] = {"name": name, "size": found.size}
    module = stir(found.module)
    try:
        dense = convolutionalize(module, size=found.size)
    except FullconvError as error:
        # The message names the module's class; only the reason matters here.
        reason = error.message.partition(" ")[2]
        return {**row, "refused": reason[0].upper() + reason[1:]}
    row |= {"native": dense.proof.native, "windows": dense.proof.windows}
    if dense.difference > NEAR:
        double = convolutionalize(module.double(), size=found.size).proof
        row |= {"native_float64": double.native, "windows_float64": double.windows}
        module.float()
    row |= {"grid": dense.grid.to_dict(), "step": dense.step, "local": dense.is_local}
    sides = [found.size + 64, 500]
    row["cells"] = {str(side): cells(dense, side) for side in sides if side >= found.size}
    row["crop"] = crop_difference(dense, module)
    return row


def cells(dense: DenseClassifier, side: int) -> list[int]:
    """Return (h, w) of the logits for a square image, without arithmetic if possible."""
    try:
        output = run_on_meta(dense, torch.empty(1, 3, side, side, device="meta"))
    except (RuntimeError, NotImplementedError):
        output = run_on_device(dense, torch.empty(1, 3, side, side))
    return list(output.shape[2:])


def crop_difference(dense: DenseClassifier, module: nn.Module) -> float:
    """Return the difference of a cell from the classifier on the crop of its window.

    The cell is in a noise image that is three strides larger on all sides. Padding and operations
    on the whole image cause the difference.
    """
    stride = round(dense.grid.stride)
    around = 3 * stride
    side = dense.size + 2 * around
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    inner = slice(around, around + dense.size)
    with torch.inference_mode():
        wanted = module(image[:, :, inner, inner])
        found = dense(image)[:, :, 3, 3]
    return float((found - wanted).abs().max() / wanted.abs().max())


def dense_section(arguments: argparse.Namespace) -> Section:
    """Measure all classifiers."""
    section = Section(facts={"rows": [], "tolerance": TOLERANCE})
    rows: list[dict[str, Any]] = section.facts["rows"]
    for family, names in FAMILIES.items():
        for name in names.split():
            if (arguments.names and name not in arguments.names) or (
                arguments.quick and name not in ("torchvision:squeezenet1_1", "lcnet_050")
            ):
                continue
            started = time.perf_counter()
            row = {"family": family, **examined(name)}
            rows.append(row)
            told = row.get("refused") or f"{row['native']:.1e} {row['windows']:.1e}"
            print(f"{name}: {told}, {time.perf_counter() - started:.1f} s", flush=True)
            gc.collect()
    equal = [r for r in rows if max(r.get("native", 1), r.get("windows", 1)) <= TOLERANCE]
    section.facts["equal"], section.facts["families"] = (
        len(equal),
        len({r["family"] for r in equal}),
    )
    section.figures = [
        _figure(f"{r['name']}: {which}", r[which], at_most=TOLERANCE)
        for r in rows
        if "refused" not in r
        for which in ("native", "windows")
    ]
    section.figures.append(_figure("classifiers equal within 1e-4", len(equal), at_least=WANTED))
    return section


def heat_section(arguments: argparse.Namespace) -> Section:
    """Measure how often the best cell of the best cat or dog class is on the animal."""
    shared = Path(os.environ.get("FULLCONV_SHARED", ""))
    card = shared / "weights/mobilenetv2_100_tf_quant_in1k.toml"
    voc = shared / "data/voc2012_sample"
    if not card.is_file() or not voc.is_dir():
        raise MissingError(f"no {card} and {voc}; FULLCONV_SHARED names their folder")
    dense = convolutionalize(card)
    images = []
    for path in sorted((voc / "SegmentationClass").glob("*.png")):
        ids = read_values(path)
        animal = np.isin(ids, (VOC_CAT, VOC_DOG))
        if not animal.any():
            continue
        found = heatmap(dense, voc / "JPEGImages" / f"{path.stem}.jpg", scales=SCALES)
        images.append({"image": path.stem, **_judged(found, animal)})
        if arguments.quick and len(images) == 3:
            break
    section = Section(facts={"rows": images, "images": len(images), "scales": SCALES})
    for label in (*(f"scale {scale:g}" for scale in SCALES), "best of all scales"):
        inside = float(np.mean([row[label]["inside"] for row in images]))
        chance = float(np.mean([row[label]["chance"] for row in images]))
        figure = Figure(
            f"top cell on the animal, {label}",
            inside,
            chance,
            "share",
            Spread.of([inside / chance]),
            note="theirs: any cell",
        )
        section.figures.append(figure)
        section.facts[label] = {"inside": inside, "chance": chance}
    return section


def _judged(found: Heatmap, animal: np.ndarray) -> dict[str, Any]:
    """Return whether the best cell of the best class is on the animal, and the share of cells that
    are, for each scale."""
    chosen = max((found.best(k) for k in (*CATS, *DOGS)), key=lambda place: place.probability)
    facts: dict[str, Any] = {"class": chosen.name, "probability": round(chosen.probability, 4)}
    for place, heat in zip(found.places(chosen.class_id), found.heats, strict=True):
        rows, columns = (
            [min(max(round(grid.center(k)), 0), side - 1) for k in range(count)]
            for grid, count, side in zip(
                (heat.rows, heat.columns), heat.probabilities.shape[1:], animal.shape, strict=True
            )
        )
        facts[f"scale {heat.scale:g}"] = {
            "inside": bool(animal[place.row, place.column]),
            "chance": float(animal[np.ix_(rows, columns)].mean()),
        }
    best = f"scale {chosen.scale:g}"
    return {**facts, "best of all scales": facts[best]}


def _figure(name: str, value: float, **wanted: float) -> Figure:
    return Figure(name, None, None, "", Spread.of([value]), **wanted)


SECTIONS = {"dense": dense_section, "heat": heat_section}


if __name__ == "__main__":
    options = parser(__doc__, rounds=1)
    options.add_argument("--names", nargs="+", help="these classifiers only, for a trial")
    sys.exit(run("classifiers", SECTIONS, options.parse_args()))
