"""Classifiers of timm, torchvision and users: image size, normalization, and class names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.network.backbone_card import BackboneCard
from fullconv.network.dense import classifier as classifiers
from fullconv.network.dense.classifier import class_names, find_class, load_classifier

RESNET = BackboneCard("timm", "resnet18")


class Mine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean((2, 3))


@pytest.fixture(scope="module")
def names() -> tuple[str, ...]:
    return class_names(RESNET, 1000)


@pytest.mark.parametrize(
    ("name", "size", "mean"),
    [
        ("test_resnet", 160, 0.5),
        ("torchvision:squeezenet1_1", 224, 0.485),
        ("tf_mobilenetv3_small_minimal_100", 224, 0.5),  # Google's normalization
    ],
)
def test_size_and_normalization_come_from_the_source(name: str, size: int, mean: float) -> None:
    loaded = load_classifier(name)
    assert (loaded.size, loaded.card.mean[0]) == (size, mean)
    assert not loaded.module.training
    assert loaded.name == (name.replace(":", " ") if ":" in name else f"timm {name}")
    with torch.inference_mode():
        assert loaded.module(torch.zeros(1, 3, size, size)).shape == (1, 1000)
    inception = BackboneCard("torchvision", "inception_v3")
    assert classifiers._image_properties(nn.Identity(), inception)["size"] == (299, 299)


def test_a_module_is_copied_and_may_describe_its_images(tmp_path: Path) -> None:
    module = Mine().train()
    loaded = load_classifier(module)
    assert (loaded.size, loaded.name) == (224, "Mine")
    assert module.training
    assert loaded.module is not module
    assert torch.equal(loaded.module.conv.weight, module.conv.weight)
    module.pretrained_cfg = {"input_size": (3, 96, 96), "mean": (0.1, 0.2, 0.3)}
    assert load_classifier(module).size == 96
    assert load_classifier(module).card.mean == (0.1, 0.2, 0.3)
    assert load_classifier(module, size=32).size == 32
    # A card overrides the source.
    path = tmp_path / "card.toml"
    path.write_text('source = "timm"\nname = "test_resnet"\nmean = [0.1, 0.2, 0.3]\n')
    for card in (path, str(path)):
        assert load_classifier(card).card.mean == (0.1, 0.2, 0.3)


def oblong() -> nn.Module:
    module = Mine()
    module.pretrained_cfg = {"input_size": (3, 96, 64)}
    return module


@pytest.mark.parametrize(
    ("classifier", "options", "message", "hint"),
    [
        ("resnet81", {}, "timm has no network 'resnet81'", "resnet18   # or torchvision:NAME"),
        ("torchvision:resnet81", {}, "no classifier 'resnet81'", "torchvision:resnet18"),
        ("keras:resnet", {}, "unknown classifier source 'keras'", 'source = "timm"'),
        ("none.toml", {}, "no backbone card at none.toml", "ls"),
        (Mine(), {"size": -3}, "images of Mine are -3 x -3 pixels", "size=224"),
        (oblong(), {}, "images of Mine are 96 x 64 pixels", "size=224"),
        (BackboneCard("timm", "test_resnet", {"hue": 1}), {}, "cannot be built", "options"),
        (BackboneCard("torchvision", "resnet18", {"hue": 1}), {}, "be built", "options"),
    ],
)
def test_errors(classifier: Any, options: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(FullconvError) as caught:
        load_classifier(classifier, **options)
    assert message in caught.value.message
    assert caught.value.hint.startswith(hint)


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    def unreachable(*_args: Any, **_options: Any) -> nn.Module:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", unreachable)
    monkeypatch.setattr("fullconv.network.classifiers.go_offline_without_network", lambda: None)
    with pytest.raises(FullconvError, match="could not be downloaded: no route") as caught:
        load_classifier("resnet18", pretrained=True)
    assert caught.value.hint.startswith("--no-pretrained")


def test_names_equal_those_of_torchvision_and_of_the_weights(
    names: tuple[str, ...], shared: Path
) -> None:
    """torchvision keeps one word per class, and distinguishes classes with the same word."""
    from torchvision.models import ResNet18_Weights

    lines = (shared / "weights/imagenet_classes_1000.txt").read_text(encoding="utf-8").splitlines()
    assert list(names) == [line.strip() for line in lines]
    categories = ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    for name, category in zip(names, categories, strict=True):
        if category not in ("crane bird", "maillot tank suit", "missile"):
            assert category.lower() in [word.strip().lower() for word in name.split(",")], name


@pytest.mark.parametrize(
    ("card", "count", "known"),
    [
        (BackboneCard("module", "Mine"), 1000, False),
        (RESNET, 37, False),
        (BackboneCard("timm", "resnet18", pretrained_on="Places365"), 1000, False),
        (BackboneCard("timm", "resnet18", pretrained_on="ImageNet-1k"), 1000, True),
        (RESNET, 21841, True),  # ImageNet-21k
    ],
)
def test_when_names_are_known(card: BackboneCard, count: int, known: bool) -> None:
    assert len(class_names(card, count)) == count * known


@pytest.mark.parametrize(
    ("query", "class_id"),
    [
        *(("tabby", 281), ("TABBY CAT", 281), (" tiger_cat ", 282), ("281", 281), ("0", 0)),
        ("Felis concolor", 286),
        ("cardigan", 474),  # the garment has no other name
        ("Cardigan Welsh corgi", 264),
        ("missile", 657),  # before "projectile, missile"
        ("maillot", 638),
    ],
)
def test_a_class_is_found_by_any_of_its_words(
    names: tuple[str, ...], query: str, class_id: int
) -> None:
    assert find_class(query, names, 1000) == class_id


def test_a_class_is_found_by_its_whole_name_or_its_id(names: tuple[str, ...]) -> None:
    for index, name in list(enumerate(names))[::7]:
        if name != "crane":  # the bird and the machine
            assert find_class(name.upper(), names, 1000) == index
    assert find_class("3", (), 4) == 3


@pytest.mark.parametrize(
    ("query", "message", "hint"),
    [
        ("crane", "'crane' is the name of 2 classes: 'crane' (134), 'crane' (517)", "--class 134"),
        ("panther", "'panther' is the name of 2 classes: 'cougar, puma, cat", "--class 286"),
        ("tabbie", "the name 'tabbie'. Similar names: 'tabby' (281)", '--class "tabby"'),
        ("cat", "names: 'tabby cat' (281), 'tiger cat' (282), 'Per", '--class "tabby cat"'),
        ("Persien cat", "Similar names: 'Persian cat' (283).", '--class "Persian cat"'),
        ("qqqqqqqq", "no class has the name 'qqqqqqqq'.", "--class 0"),
        ("1000", "no class 1000; the ids are 0 to 999", "--class 0"),
    ],
)
def test_unknown_classes(names: tuple[str, ...], query: str, message: str, hint: str) -> None:
    with pytest.raises(FullconvError) as caught:
        find_class(query, names, 1000)
    assert message in caught.value.message
    assert caught.value.hint.startswith(hint)
    with pytest.raises(FullconvError, match="this classifier has 4 classes without names"):
        find_class("tabby", (), 4)
