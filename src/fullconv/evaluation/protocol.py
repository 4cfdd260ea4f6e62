"""Whether two evaluations may be compared: their protocol cards, line by line, and their images.

Unlike cards are never ranked; the line that differs is named. Of the lines three say what a model
is made of and how it is asked; they may differ where that is said, for then they are the question.
All others say on what and how it was measured.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fullconv.core.errors import FullconvError
from fullconv.core.text import plural, shell_command, truncated_list
from fullconv.evaluation.per_image import SplitConfusions

AUGMENTATION = "test_time_augmentation"
MAY_DIFFER = ("pretrained_on", "trained_on", AUGMENTATION)
_SHOWN = 5  # names that a message spells out

Named = tuple[str, SplitConfusions]


def require_same_protocol(
    one: Named, other: Named, varying: Sequence[str], places: Sequence[Path | str], number: int
) -> None:
    """Refuses evaluations whose protocol cards differ.

    Args:
        one, other: name and counts.
        varying: lines that may differ.
        places: of all that are compared, for lines to paste; the one is the first of them.
        number: of the other among them.

    Raises:
        FullconvError: with each line that differs, and its two values.
    """
    (first, of), (second, against) = one, other
    unlike = [line for line in _unlike(of.protocol, against.protocol) if line not in varying]
    if not unlike:
        return
    rows = [f"{first} and {second} cannot be compared: their protocol cards are not alike."]
    rows += [f"  {line}: {_values(line, of.protocol, against.protocol)}" for line in unlike]
    if "data_fingerprint" in unlike and of.protocol.get("split") == against.protocol.get("split"):
        rows.append(f"  {_images_apart(one, other)}")
    hint = suggest_command(unlike, (of, against), places, number, varying)
    raise FullconvError("\n".join(rows), hint)


def require_same_images(one: Named, other: Named, place: Path | str = "RUN") -> np.ndarray:
    """The place in the other evaluation of each image of the one.

    Args:
        one, other: name and counts.
        place: of the other, for lines to paste.

    Raises:
        FullconvError: images that only one of them has, or of another content.
    """
    (first, of), (second, against) = one, other
    places = {name: k for k, name in enumerate(against.images)}
    lacking = [name for name in of.images if name not in places]
    more = sorted(set(against.images) - set(of.images))
    changed = [
        name
        for name, content in zip(of.images, of.contents, strict=True)
        if name in places and against.contents[places[name]] != content
    ]
    if lacking or more or changed:
        said = _apart(first, second, lacking, more, changed)
        raise FullconvError(
            f"{first} and {second} were not evaluated on the same images: {said}.",
            _evaluating(place, of),
        )
    return np.array([places[name] for name in of.images], dtype=np.int64)


def _unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The lines that differ, the plainest first: what a fingerprint tells comes last."""
    lines = [line for line in dict.fromkeys([*one, *other]) if one.get(line) != other.get(line)]
    return sorted(lines, key=lambda line: line == "data_fingerprint")


def _values(line: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Both values of a line; of a class table what sets them apart."""
    a, b = one.get(line, "not stated"), other.get(line, "not stated")
    if line == "classes":
        only = [[name for name in x if name not in y] for x, y in ((a, b), (b, a))]
        if not any(only):
            return f"the same {len(a)} in another order"
        return " | ".join(f"{len(x)}, {'also ' + truncated_list(o) if o else 'no other'}" for x, o in
                          zip((a, b), only, strict=True))  # fmt: skip
    if line == "data_fingerprint":
        a, b = str(a)[:16], str(b)[:16]
    return f"{a} | {b}"


def _images_apart(one: Named, other: Named) -> str:
    """What of the split's images makes two data sets differ."""
    try:
        require_same_images(one, other)
    except FullconvError as error:
        return error.message.partition(": ")[2].rstrip(".")
    return (
        f"(the images and masks of {_split(one[1])} are the same; what differs are other splits "
        "or the class table)"
    )


def _apart(
    first: str, second: str, lacking: Sequence[str], more: Sequence[str], changed: Sequence[str]
) -> str:
    parts = []
    for name, only in ((first, lacking), (second, more)):
        if only:
            count = plural(len(only), "image")
            parts.append(f"only {name} has {truncated_list(only, _SHOWN)} ({count})")
    if changed:
        count = plural(len(changed), "image")
        what = "its mask is another" if len(changed) == 1 else "their masks are others"
        parts.append(f"{truncated_list(changed, _SHOWN)} ({count}) or {what} in {second}")
    return "; ".join(parts)


def _split(of: SplitConfusions) -> str:
    return str(of.protocol.get("split", "val"))


def suggest_command(
    unlike: Sequence[str],
    counts: tuple[SplitConfusions, SplitConfusions],
    places: Sequence[Path | str],
    number: int,
    varying: Sequence[str],
) -> str:
    """The line that makes the cards alike, or that says what is compared."""
    first = counts[0]
    if any(line not in MAY_DIFFER for line in unlike):
        return f"{_evaluating(places[number], first)}   # on the first one's data, then compare"
    words = ("--allow-different", ",".join([*varying, *unlike]))
    if list(unlike) == [AUGMENTATION]:
        plain = [of.protocol.get(AUGMENTATION) == "none" for of in counts]
        other = places[0] if plain[1] else places[number]
        return f"{_evaluating(other, first)}   # or, if that is compared, {' '.join(words)}"
    line = shell_command("fullconv", "compare", *places, "--split", _split(first), *words)
    return f"{line}   # where that is what is compared"


def _evaluating(place: Path | str, of: SplitConfusions) -> str:
    """The command that evaluates a run, or the model whose counts a file has, on these data."""
    words = (of.data or "DATA", "--split", _split(of))
    if str(place).endswith(".npz"):
        return shell_command("fullconv", "evaluate", "MODEL", *words, "--counts", place)
    return shell_command("fullconv", "evaluate", place, *words)


def protocol_card(
    *,
    fingerprint: str,
    split: str,
    images: int,
    classes: Sequence[str],
    pretrained_on: str,
    ignored_pixels: int,
    trained_on: str = "",
    sizes: Collection[tuple[int, int]] = (),
    augmentation: str = "none",
) -> dict[str, Any]:
    """What a number means: two numbers may be compared only where these agree.

    Args:
        trained_on: which images the model was trained on, see `fullconv.data.check.training_overlap.describe_training_overlap`.
        sizes: (H, W) of the images.
    """
    return {
        "data_fingerprint": fingerprint,
        "split": split,
        "images": images,
        "image_size": f"original{_range(sizes)}",
        "void": "pixels marked ignore in the truth are left out",
        "ignored_pixels": ignored_pixels,
        "classes": list(classes),
        "pretrained_on": pretrained_on or "nothing",
        "trained_on": trained_on or "not stated",
        "test_time_augmentation": augmentation,
        "metric": "one confusion matrix over all pixels of the split",
    }


def _range(sizes: Collection[tuple[int, int]]) -> str:
    """Height x width: the one there is, or how many from the smallest to the largest."""
    known = sorted(set(sizes), key=lambda size: (size[0] * size[1], size))
    if not known:
        return ""
    first, last = (f"{height} x {width}" for height, width in (known[0], known[-1]))
    return f", {first}" if len(known) == 1 else f", {len(known)} sizes from {first} to {last}"
