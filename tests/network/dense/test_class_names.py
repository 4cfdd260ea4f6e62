from __future__ import annotations

from pathlib import Path

import pytest

from fullconv.core.errors import FullconvError
from fullconv.network.backbone_card import BackboneCard
from fullconv.network.dense.classifier import class_names, find_class

RESNET = BackboneCard("timm", "resnet18")


@pytest.fixture(scope="module")
def names() -> tuple[str, ...]:
    return class_names(RESNET, 1000)


def test_they_are_those_of_torchvision(names: tuple[str, ...]) -> None:
    """torchvision keeps one word for each class, and tells two of the same word apart."""
    from torchvision.models import ResNet18_Weights

    categories = ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    assert len(names) == len(categories) == 1000
    for name, category in zip(names, categories, strict=True):
        if category not in ("crane bird", "maillot tank suit", "missile"):
            assert category.lower() in [word.strip().lower() for word in name.split(",")], name


def test_they_are_those_of_the_weights(names: tuple[str, ...], shared: Path) -> None:
    lines = (shared / "weights/imagenet_classes_1000.txt").read_text(encoding="utf-8").splitlines()
    assert list(names) == [line.strip() for line in lines]


@pytest.mark.parametrize(
    ("card", "count"),
    [
        (BackboneCard("module", "Mine"), 1000),
        (RESNET, 37),
        (BackboneCard("timm", "resnet18", pretrained_on="Places365"), 1000),
    ],
)
def test_none_where_they_are_not_known(card: BackboneCard, count: int) -> None:
    assert class_names(card, count) == ()


def test_larger_kin_of_imagenet() -> None:
    assert len(class_names(RESNET, 21841)) == 21841
    card = BackboneCard("timm", "resnet18", pretrained_on="ImageNet-1k")
    assert class_names(card, 1000)[207] == "golden retriever"


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("tabby", 281),
        ("TABBY CAT", 281),
        (" tiger_cat ", 282),
        ("281", 281),
        ("0", 0),
        ("Felis concolor", 286),
        ("cardigan", 474),  # the garment is called nothing else
        ("Cardigan Welsh corgi", 264),
        ("missile", 657),  # before "projectile, missile"
        ("maillot", 638),
    ],
)
def test_a_class_is_found_by_any_of_its_words(
    names: tuple[str, ...], wanted: str, found: int
) -> None:
    assert find_class(wanted, names, 1000) == found


def test_every_class_is_found_by_its_whole_name(names: tuple[str, ...]) -> None:
    for index, name in enumerate(names):
        if name != "crane":  # the bird and the machine
            assert find_class(name.upper(), names, 1000) == index


@pytest.mark.parametrize(
    ("wanted", "message", "hint"),
    [
        ("crane", "'crane' is the name of 2 classes: 'crane' (134), 'crane' (517)", "--class 134"),
        ("panther", "'panther' is the name of 2 classes: 'cougar, puma, catamount", "--class 286"),
        (
            "tabbie",
            "no class has the name 'tabbie'. Similar names: 'tabby' (281)",
            '--class "tabby"',
        ),
        ("cat", "Similar names: 'tabby cat' (281), 'tiger cat' (282), 'Per", '--class "tabby cat"'),
        ("Persien cat", "Similar names: 'Persian cat' (283).", '--class "Persian cat"'),
        ("qqqqqqqq", "no class has the name 'qqqqqqqq'.", "--class 0"),
        ("1000", "no class 1000; the ids are 0 to 999", "--class 0"),
    ],
)
def test_what_is_not_found(names: tuple[str, ...], wanted: str, message: str, hint: str) -> None:
    with pytest.raises(FullconvError) as caught:
        find_class(wanted, names, 1000)
    assert message in caught.value.message
    assert caught.value.hint.startswith(hint)


def test_where_names_are_not_known_the_id_is_asked_for() -> None:
    assert find_class("3", (), 4) == 3
    with pytest.raises(FullconvError, match="this classifier has 4 classes without names"):
        find_class("tabby", (), 4)
