"""Unlike cards are refused, with the line that differs and both its values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from evaluated import CLASSES, counted, matrices

from fullconv.core.errors import FullconvError
from fullconv.evaluation.per_image import SplitConfusions
from fullconv.evaluation.protocol import MAY_DIFFER, require_same_images, require_same_protocol

PLACES = ("runs/a", "runs/b")
EVERY = matrices(6)


def refused(one: SplitConfusions, other: SplitConfusions, *varying: str) -> FullconvError:
    with pytest.raises(FullconvError) as caught:
        require_same_protocol(("a", one), ("b", other), varying, PLACES, 1)
    return caught.value


def lines(error: FullconvError) -> list[str]:
    first, *rest = error.message.splitlines()
    assert first == "a and b cannot be compared: their protocol cards are not alike."
    return [line.strip() for line in rest]


def test_equal_cards_pass() -> None:
    require_same_protocol(("a", counted(EVERY)), ("b", counted(EVERY)), (), PLACES, 1)


@pytest.mark.parametrize(
    ("line", "value", "said"),
    [
        (
            "image_size",
            "original, 720 x 960",
            "image_size: original, 360 x 480 | original, 720 x 960",
        ),
        (
            "trained_on",
            "train+val (468 images)",
            "trained_on: train (367 images) | train+val (468 images)",
        ),
        ("pretrained_on", "nothing", "pretrained_on: ImageNet-1k | nothing"),
        ("split", "test", "split: val | test"),
        ("ignored_pixels", 7, "ignored_pixels: 0 | 7"),
        ("images", 5, "images: 6 | 5"),
        (
            "void",
            "counts as wrong",
            "void: pixels marked ignore in the truth are left out | counts as wrong",
        ),
        ("test_time_augmentation", "flip", "test_time_augmentation: none | flip"),
        (
            "metric",
            "mean over images",
            "metric: one confusion matrix over all pixels of the split | mean over images",
        ),
        ("a line of tomorrow", "x", "a line of tomorrow: not stated | x"),
    ],
)
def test_the_line_that_differs_is_named_with_both_values(line: str, value: Any, said: str) -> None:
    assert lines(refused(counted(EVERY), counted(EVERY, **{line: value}))) == [said]


def test_360_x_480_against_another_size() -> None:
    """Other images have another fingerprint, too; the size says why, and stands first."""
    other = counted(EVERY, data="/big", image_size="original, 720 x 960", data_fingerprint="0" * 64)
    error = refused(counted(EVERY, data="/small data"), other)
    assert lines(error) == [
        "image_size: original, 360 x 480 | original, 720 x 960",
        f"data_fingerprint: {'f' * 16} | {'0' * 16}",
        "(the images and masks of val are the same; what differs are other splits or the class "
        "table)",
    ]
    assert error.hint == (
        "fullconv evaluate runs/b '/small data' --split val   # on the first one's data, then "
        "compare"
    )


def test_other_images_are_named() -> None:
    names = [f"street_{k:04}" for k in range(6)]
    other = counted(EVERY, names=[*names[:4], "x", "y"], data_fingerprint="0" * 64)
    said = lines(refused(counted(EVERY, names=names), other))[-1]
    assert said == ("only a has street_0004, street_0005 (2 images); only b has x, y (2 images)")


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (("tree", "sky", "road"), "classes: the same 3 in another order"),
        (("sky", "road", "wood"), "classes: 3, also tree | 3, also wood"),
        (("sky", "road", "tree", "car"), "classes: 3, no other | 4, also car"),
    ],
)
def test_class_tables_by_what_sets_them_apart(classes: tuple[str, ...], said: str) -> None:
    every = matrices(6, len(classes))
    assert lines(refused(counted(EVERY), counted(every, classes=classes))) == [said]


@pytest.mark.parametrize("line", MAY_DIFFER)
def test_what_a_model_is_made_of_may_vary_where_that_is_said(line: str) -> None:
    one, other = counted(EVERY), counted(EVERY, **{line: "something else"})
    require_same_protocol(("a", one), ("b", other), (line,), PLACES, 1)
    assert lines(refused(one, other, *(set(MAY_DIFFER) - {line})))[0].startswith(f"{line}: ")


def test_the_hint_says_how_to_ask_or_how_to_mend() -> None:
    one = counted(EVERY, data="/d")
    trained = counted(EVERY, trained_on="x")
    assert refused(one, trained).hint == (
        "fullconv compare runs/a runs/b --split val --allow-different trained_on   "
        "# where that is what is compared"
    )
    both = counted(EVERY, trained_on="x", pretrained_on="y")
    assert "--allow-different trained_on,pretrained_on " in refused(one, both, "trained_on").hint
    flipped = counted(EVERY, test_time_augmentation="flip", data="/d")
    also = "   # or, if that is compared, --allow-different test_time_augmentation"
    assert refused(one, flipped).hint == f"fullconv evaluate runs/b /d --split val{also}"
    assert refused(flipped, one).hint == f"fullconv evaluate runs/a /d --split val{also}"
    with pytest.raises(FullconvError) as caught:
        require_same_protocol(("a", one), ("b", flipped), (), ("runs/a", "my b.npz"), 1)
    assert caught.value.hint == (
        f"fullconv evaluate MODEL /d --split val --counts 'my b.npz'{also}"
    )


def test_images_are_paired_by_name() -> None:
    order = [3, 0, 5, 1, 4, 2]
    names = [f"street_{k:04}" for k in range(6)]
    one = counted(EVERY, names=names)
    other = counted(EVERY[order], names=[names[k] for k in order])
    places = require_same_images(("a", one), ("b", other))
    assert [other.images[k] for k in places] == list(one.images)
    assert (other.head().margins[places] == one.head().margins).all()


def test_images_of_one_alone_and_changed_ones_are_errors() -> None:
    one = counted(EVERY, data="/d")
    names = [f"street_{k:04}" for k in range(5)]
    with pytest.raises(FullconvError) as caught:
        require_same_images(("a", one), ("b", counted(EVERY[:5], names=names)), "runs/b")
    assert caught.value.message == (
        "a and b were not evaluated on the same images: only a has street_0005 (1 image)."
    )
    assert caught.value.hint == "fullconv evaluate runs/b /d --split val"
    changed = SplitConfusions(
        one.images, ("0" * 16, *one.contents[1:]), one.heads, one.protocol, one.data
    )
    with pytest.raises(FullconvError, match=r"street_0000 \(1 image\) or its mask is another in b"):
        require_same_images(("a", one), ("b", changed))


def test_the_classes_of_the_tests_are_those_of_the_card() -> None:
    assert counted(EVERY).protocol["classes"] == list(CLASSES)
    assert np.all(EVERY.sum((1, 2)) > 300)
