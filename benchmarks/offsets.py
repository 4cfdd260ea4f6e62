"""Measure the misplacement of feature maps with a ramp: an image whose value is its column.

Each backbone is reduced to averaging (convolutions average, the rest passes), so that the value of
a cell is its column. Upsampled exactly (`Scores.full`) and by `F.interpolate`, each pixel should
have its own column. Writes results/offsets.json.

    python benchmarks/offsets.py
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from method import save
from torch import nn

from fullconv.geometry.trace_network import feature_maps, trace
from fullconv.network.backbone import build
from fullconv.network.scores import Scores

BACKBONES = {
    "vgg11": "VGG",
    "resnet18": "ResNet",
    "mobilenetv2_050": "MobileNetV2",
    "regnetx_002": "RegNetX",
    "densenet121": "DenseNet",
    "convnext_atto": "ConvNeXt",
}
OTHERS = ("mobilenetv3_small_100", "efficientnet_b0", "regnety_002", "swin_tiny_patch4_window7_224")
SIZE = 512


def averaging(module: nn.Module) -> nn.Module:
    """Make a network average in place: convolutions and pooling average, the rest passes."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            nn.init.constant_(child.weight, 1 / child.weight[0].numel())
            if child.bias is not None:
                nn.init.zeros_(child.bias)
        elif isinstance(child, nn.MaxPool2d):
            pool = nn.AvgPool2d(
                child.kernel_size, child.stride, child.padding, count_include_pad=True
            )
            setattr(module, name, pool)
        elif isinstance(child, nn.AvgPool2d):
            continue
        elif any(True for _ in child.children()) and not isinstance(
            child, (nn.BatchNorm2d, nn.LayerNorm)
        ):
            averaging(child)
        else:
            setattr(module, name, nn.Identity())
    return module


def ramp_error(backbone: str, stride: int) -> dict[str, float]:
    """Return the largest error in pixels of the upsampled ramp, away from the border."""
    network = averaging(build(backbone, stride=stride).double().eval())
    columns = torch.arange(SIZE, dtype=torch.float64).expand(1, 3, SIZE, SIZE)
    ones = torch.ones_like(columns)
    with torch.no_grad():
        # Residual sums count a column several times: divide by the result for an image of ones.
        values = network(columns)[0][:, :1] / network(ones)[0][:, :1]
        # The usual way: an image whose size is a multiple of 32, upsampled to its size.
        tap, pyramid = network.taps[0], network.pyramid
        usual = feature_maps(pyramid(columns))[tap] / feature_maps(pyramid(ones))[tap]
    grid = network.grids[0]
    inner = slice(SIZE // 2 - 16, SIZE // 2 + 16)
    truth = torch.arange(SIZE, dtype=torch.float64)[inner]
    exact = Scores(values, grid, (SIZE, SIZE)).full()[0, 0, SIZE // 2, inner]
    naive = F.interpolate(usual[:, :1], size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    return {
        "exact": float((exact - truth).abs().max()),
        "interpolate": float((naive[0, 0, SIZE // 2, inner] - truth).abs().max()),
    }


def main() -> None:
    rows = []
    for name, family in BACKBONES.items():
        grids = {int(g.stride): g.offset for g in trace(name)}
        row = {"backbone": name, "family": family, "offsets": grids}
        row["ramp_error_px"] = {str(s): ramp_error(name, s) for s in (32, 16, 8)}
        rows.append(row)
        print(name, row)
    for name in OTHERS:
        rows.append({"backbone": name, "offsets": {int(g.stride): g.offset for g in trace(name)}})
    save("offsets", "python benchmarks/offsets.py", {"rows": rows})


if __name__ == "__main__":
    main()
