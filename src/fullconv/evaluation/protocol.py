"""Evaluation protocols: the card of a number, and whether two evaluations are comparable.

Evaluations with different cards are never ranked; the error names the lines that differ. Three
lines describe the model and how it is used. They may differ if they are named, because then they
are what is compared. All other lines describe what was measured, and how.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import Message, join, msg, nmsg
from fullconv.core.text import shell_command, truncated_list
from fullconv.evaluation.per_image import SplitConfusions

AUGMENTATION = "test_time_augmentation"
MAY_DIFFER = ("pretrained_on", "trained_on", AUGMENTATION)
_LISTED = 5  # images that a message spells out

Named = tuple[str, SplitConfusions]  # a name and its counts


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
    """Return the protocol card: two numbers are comparable only if their cards agree.

    `trained_on` is what `describe_training_overlap` returned, `sizes` are (H, W) of the images.
    """
    image_size = "original"
    by_area = sorted(set(sizes), key=lambda size: (size[0] * size[1], size))
    if by_area:
        first, last = (f"{height} x {width}" for height, width in (by_area[0], by_area[-1]))
        several = len(by_area) > 1
        image_size += f", {len(by_area)} sizes from {first} to {last}" if several else f", {first}"
    return {
        "data_fingerprint": fingerprint,
        "split": split,
        "images": images,
        "image_size": image_size,
        "void": "pixels marked ignore in the truth are left out",
        "ignored_pixels": ignored_pixels,
        "classes": list(classes),
        "pretrained_on": pretrained_on or "nothing",
        "trained_on": trained_on or "not stated",
        AUGMENTATION: augmentation,
        "metric": "one confusion matrix over all pixels of the split",
    }


def require_same_protocol(
    first: Named, other: Named, varying: Sequence[str], sources: Sequence[Path | str], number: int
) -> None:
    """Refuse evaluations whose protocol cards differ, in other lines than `varying`.

    `sources` is what was passed for each run, for commands to paste: `first` is the first and
    `other` has this number.

    Raises:
        FullconvError: lists each line that differs, with both values.
    """
    (name, counts), (other_name, other_counts) = first, other
    cards = counts.protocol, other_counts.protocol
    lines = [line for line in dict.fromkeys([*cards[0], *cards[1]]) if line not in varying]
    unlike = [line for line in lines if cards[0].get(line) != cards[1].get(line)]
    if not unlike:
        return
    unlike.sort(key=lambda line: line == "data_fingerprint")  # the least telling line last
    head = msg(
        "{first} and {other} cannot be compared: their evaluation protocols differ.",
        first=name,
        other=other_name,
    )
    rows = [head]
    rows += [msg("  {line}: {values}", line=line, values=_values(line, *cards)) for line in unlike]
    if "data_fingerprint" in unlike and cards[0].get("split") == cards[1].get("split"):
        problem = _image_differences(first, other)
        same = msg(
            "the images and masks of {split} are the same; other splits or the class table differ",
            split=_split(other_counts),
        )
        rows.append(msg("  ({problem})", problem=problem or same))
    hint = _suggest_command(unlike, (counts, other_counts), sources, number, varying)
    raise FullconvError(join(rows), hint)


def require_same_images(first: Named, other: Named, source: Path | str = "RUN") -> np.ndarray:
    """Return the place of each image of the first evaluation in the other one: (n,) int64.

    `source` is what was passed for the other run, for a command to paste.

    Raises:
        FullconvError: only one of them has some images, or their content differs.
    """
    differences = _image_differences(first, other)
    if differences:
        problem = msg(
            "{first} and {other} were not evaluated on the same images: {problem}.",
            first=first[0],
            other=other[0],
            problem=differences,
        )
        raise FullconvError(problem, _evaluate_command(source, first[1]))
    places = {name: k for k, name in enumerate(other[1].images)}
    return np.array([places[name] for name in first[1].images], dtype=np.int64)


def _image_differences(first: Named, other: Named) -> Message | None:
    """Describe images that only one evaluation has, and images whose files differ."""
    (name, counts), (other_name, other_counts) = first, other
    contents = dict(zip(counts.images, counts.contents, strict=True))
    other_contents = dict(zip(other_counts.images, other_counts.contents, strict=True))
    missing = [image for image in contents if image not in other_contents]
    additional = sorted(image for image in other_contents if image not in contents)
    changed = [k for k, content in contents.items() if other_contents.get(k, content) != content]
    parts = []
    for run, images in ((name, missing), (other_name, additional)):
        if images:
            parts.append(msg("only {run} has {images}", run=run, images=_list_images(images)))
    if changed:
        names = _list_images(changed)
        parts.append(
            msg("image or mask files differ in {run}: {images}", run=other_name, images=names)
        )
    return join(parts, "; ") if parts else None


def _list_images(names: Sequence[str]) -> Message:
    listed = truncated_list(names, _LISTED)
    return nmsg("{names} ({count} image)", "{names} ({count} images)", len(names), names=listed)


def _values(line: str, card: Mapping[str, Any], other: Mapping[str, Any]) -> Message:
    """Return both values of a line; of class tables only what differs."""
    missing = msg("not stated")
    values = [card.get(line, missing), other.get(line, missing)]
    if line == "classes":
        extra = [[name for name in x if name not in y] for x, y in (values, values[::-1])]
        if not any(extra):
            return msg("the same {count} classes in another order", count=len(values[0]))
        values = [
            msg("{count} classes, also {names}", count=len(names), names=truncated_list(own))
            if own
            else msg("{count} classes", count=len(names))
            for names, own in zip(values, extra, strict=True)
        ]
    elif line == "data_fingerprint":
        values = [str(value)[:16] for value in values]
    return msg("{value} | {other}", value=values[0], other=values[1])


def _suggest_command(
    unlike: Sequence[str],
    counts: tuple[SplitConfusions, SplitConfusions],
    sources: Sequence[Path | str],
    number: int,
    varying: Sequence[str],
) -> Message:
    """Return the command that makes the cards agree, or that names what is compared."""
    first = counts[0]
    if any(line not in MAY_DIFFER for line in unlike):
        command = _evaluate_command(sources[number], first)
        return msg("{command}   # on the data of the first run, then compare", command=command)
    option = shell_command("--allow-different", ",".join([*varying, *unlike]))
    if list(unlike) == [AUGMENTATION]:
        other_is_plain = counts[1].protocol.get(AUGMENTATION) == "none"
        command = _evaluate_command(sources[0] if other_is_plain else sources[number], first)
        return msg("{command}   # or, to compare this, {option}", command=command, option=option)
    command = shell_command("fullconv", "compare", *sources, "--split", _split(first))
    return msg("{command} {option}   # if this is what you compare", command=command, option=option)


def _split(counts: SplitConfusions) -> str:
    return str(counts.protocol.get("split", "val"))


def _evaluate_command(source: Path | str, counts: SplitConfusions) -> str:
    """Return the command that evaluates a run, or the model of a counts file, on these data."""
    words = (counts.data or "DATA", "--split", _split(counts))
    if str(source).endswith(".npz"):
        return shell_command("fullconv", "evaluate", "MODEL", *words, "--counts", source)
    return shell_command("fullconv", "evaluate", source, *words)
