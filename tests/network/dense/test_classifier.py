from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.network.backbone_card import BackboneCard
from fullconv.network.dense.classifier import load_classifier


class Mine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean((2, 3))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("name", "size", "mean"),
    [
        ("test_resnet", 160, 0.5),
        ("torchvision:squeezenet1_1", 224, 0.485),
        ("tf_mobilenetv3_small_minimal_100", 224, 0.5),  # as Google's networks want them
    ],
)
def test_what_the_source_says_of_its_images(name: str, size: int, mean: float) -> None:
    """timm's pretrained_cfg, torchvision's weights."""
    found = load_classifier(name)
    assert found.size == size
    assert found.card.mean[0] == mean
    assert not found.module.training
    assert found.name == (name.replace(":", " ") if ":" in name else f"timm {name}")
    with torch.inference_mode():
        assert found.module(torch.zeros(1, 3, size, size)).shape == (1, 1000)


def test_the_size_of_torchvisions_inception() -> None:
    from fullconv.network.dense.classifier import _image_properties

    assert _image_properties(nn.Identity(), BackboneCard("torchvision", "inception_v3"))[
        "size"
    ] == (299, 299)


def test_a_module_of_ones_own_is_copied() -> None:
    module = Mine().train()
    found = load_classifier(module)
    assert (found.size, found.name) == (224, "Mine")
    assert module.training
    assert found.module is not module
    assert torch.equal(found.module.conv.weight, module.conv.weight)  # type: ignore[union-attr, arg-type]
    module.pretrained_cfg = {"input_size": (3, 96, 96), "mean": (0.1, 0.2, 0.3)}
    assert load_classifier(module).size == 96
    assert load_classifier(module).card.mean == (0.1, 0.2, 0.3)
    assert load_classifier(module, size=32).size == 32
    module.pretrained_cfg = {"input_size": (3, 96, 64)}
    with pytest.raises(FullconvError, match="images of Mine are 96 x 64 pixels"):
        load_classifier(module)


def test_what_a_card_says_of_its_images_counts(tmp_path: Path) -> None:
    path = tmp_path / "card.toml"
    path.write_text('source = "timm"\nname = "test_resnet"\nmean = [0.1, 0.2, 0.3]\n')
    assert load_classifier(path).card.mean == (0.1, 0.2, 0.3)
    assert load_classifier(str(path)).card.mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(
    ("classifier", "options", "message", "hint"),
    [
        ("resnet81", {}, "timm has no network 'resnet81'", "resnet18   # or torchvision:NAME"),
        ("torchvision:resnet81", {}, "no classifier 'resnet81'", "torchvision:resnet18"),
        ("keras:resnet", {}, "unknown classifier source 'keras'", 'source = "timm"'),
        ("none.toml", {}, "no backbone card at none.toml", "ls"),
        (Mine(), {"size": -3}, "images of Mine are -3 x -3 pixels", "size=224"),
        (BackboneCard("timm", "test_resnet", {"colour": 1}), {}, "cannot be built", "options"),
        (BackboneCard("torchvision", "resnet18", {"colour": 1}), {}, "be built", "options"),
    ],
)
def test_errors(classifier: Any, options: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(FullconvError) as caught:
        load_classifier(classifier, **options)
    assert message in caught.value.message
    assert caught.value.hint.startswith(hint)


def test_weights_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    def unreachable(*_args: Any, **_options: Any) -> nn.Module:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", unreachable)
    monkeypatch.setattr("fullconv.network.backbone._go_offline_without_network", lambda: None)
    with pytest.raises(FullconvError, match="could not be downloaded: no route") as caught:
        load_classifier("resnet18", pretrained=True)
    assert caught.value.hint.startswith("--no-pretrained")
