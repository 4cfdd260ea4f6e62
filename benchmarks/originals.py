"""Compare the logits of the paper's and torchvision's networks with the original packages.

Random weights in full width go into the original network and, through a file as a user would load
it, into ours. The logits of every pixel and the labels are compared for images of odd sizes. Writes
results/originals.json.

    pip install --no-deps --target PEERS torchfcn
    python benchmarks/originals.py --peers PEERS
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from method import MissingError, save
from torch import Tensor, nn

from fullconv.models.open import open_model

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from others import torchfcn_models

SIZES = ((1, 1), (33, 50), (97, 64), (131, 77), (186, 219))
MEAN_BGR = torch.tensor((104.00699, 116.66877, 122.67892)).view(3, 1, 1)


def torchfcn(name: str) -> tuple[nn.Module, Any]:
    """Return a torchfcn network with random weights, and its preprocessing of (3, H, W) RGB."""
    models = torchfcn_models()
    if models is None:
        raise MissingError("torchfcn is not installed; see --peers")
    network: nn.Module = getattr(models, name)()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.normal_(module.bias, std=0.1)  # type: ignore[arg-type]
    return network, lambda image: network(image.float().flip(0)[None] - MEAN_BGR)


def torchvision_fcn(name: str) -> tuple[nn.Module, Any]:
    """Return a torchvision network with random weights, and its preprocessing."""
    from torchvision.models import get_model
    from torchvision.transforms._presets import SemanticSegmentation

    network: nn.Module = get_model(name, weights=None, weights_backbone=None, aux_loss=True)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network(torch.randn(2, 3, 96, 96))
    preset = SemanticSegmentation(resize_size=None)
    return network, lambda image: network(preset(image)[None])["out"]


def compared(peer: nn.Module, scores_of: Any, name: str) -> list[dict[str, Any]]:
    """Compare our network, loaded from the peer's saved weights, with the peer."""
    peer.eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.pth"
        torch.save({"arch": name, "model_state_dict": peer.state_dict()}, path)
        model = open_model(path)
    rows = []
    generator = torch.Generator().manual_seed(0)
    for size in SIZES:
        image = torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)
        with torch.no_grad():
            wanted: Tensor = scores_of(image)
            scores = model.network(model.normalize(image[None]))
        apart = (scores.full() - wanted).abs().max() / wanted.abs().max()
        alike = (scores.labels().long() == wanted.argmax(1)).float().mean()
        said = f"{size[0]} x {size[1]}"
        rows.append({"size": said, "difference": float(apart), "labels_alike": float(alike)})
    return rows


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--peers", type=Path, help="a folder with torchfcn in it")
    arguments = words.parse_args()
    if arguments.peers:
        sys.path.append(str(arguments.peers.resolve()))
    torch.manual_seed(0)
    networks = dict.fromkeys(("FCN32s", "FCN16s", "FCN8s", "FCN8sAtOnce"), torchfcn)
    networks |= dict.fromkeys(("fcn_resnet50", "fcn_resnet101"), torchvision_fcn)
    table = {}
    for name, make in networks.items():
        try:
            table[f"{make.__name__} {name}"] = rows = compared(*make(name), name)
        except MissingError as reason:
            print(f"without {name}: {reason}")
            continue
        worst = max(row["difference"] for row in rows)
        print(f"{name}: at most {worst:.1e} of the largest score apart")
    command = "python benchmarks/originals.py --peers PEERS"
    save("originals", command, {"difference": "largest, of the largest score", "networks": table})


if __name__ == "__main__":
    main()
