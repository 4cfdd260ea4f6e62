"""Class tables of published datasets: names, colors, and the meaning of the values in their masks.

Cityscapes: the 19 evaluated classes of 34 label ids (cityscapesScripts, labels.py). ADE20K: the 150
classes of SceneParsing; 0 is everything else. PASCAL-Context and SIFT Flow have lists of their own.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg, nmsg
from fullconv.core.labels import RGB, Labels
from fullconv.core.text import shell_command

_CITYSCAPES: tuple[tuple[str, int, RGB], ...] = (
    ("road", 7, (128, 64, 128)),
    ("sidewalk", 8, (244, 35, 232)),
    ("building", 11, (70, 70, 70)),
    ("wall", 12, (102, 102, 156)),
    ("fence", 13, (190, 153, 153)),
    ("pole", 17, (153, 153, 153)),
    ("traffic light", 19, (250, 170, 30)),
    ("traffic sign", 20, (220, 220, 0)),
    ("vegetation", 21, (107, 142, 35)),
    ("terrain", 22, (152, 251, 152)),
    ("sky", 23, (70, 130, 180)),
    ("person", 24, (220, 20, 60)),
    ("rider", 25, (255, 0, 0)),
    ("car", 26, (0, 0, 142)),
    ("truck", 27, (0, 0, 70)),
    ("bus", 28, (0, 60, 100)),
    ("train", 31, (0, 80, 100)),
    ("motorcycle", 32, (0, 0, 230)),
    ("bicycle", 33, (119, 11, 32)),
)
_ADE20K = (  # the first of several synonyms
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass",
    "cabinet", "sidewalk", "person", "earth", "door", "table", "mountain", "plant", "curtain",
    "chair", "car", "water", "painting", "sofa", "shelf", "house", "sea", "mirror", "rug", "field",
    "armchair", "seat", "fence", "desk", "rock", "wardrobe", "lamp", "bathtub", "railing",
    "cushion", "base", "box", "column", "signboard", "chest", "counter", "sand", "sink",
    "skyscraper", "fireplace", "refrigerator", "grandstand", "path", "stairs", "runway", "case",
    "pool", "pillow", "screen", "stairway", "river", "bridge", "bookcase", "blind", "coffee",
    "toilet", "flower", "book", "hill", "bench", "countertop", "stove", "palm", "kitchen",
    "computer", "swivel", "boat", "bar", "arcade", "hovel", "bus", "towel", "light", "truck",
    "tower", "chandelier", "awning", "streetlight", "booth", "television", "airplane", "dirt",
    "apparel", "pole", "land", "bannister", "escalator", "ottoman", "bottle", "buffet", "poster",
    "stage", "van", "ship", "fountain", "conveyer", "canopy", "washer", "plaything", "swimming",
    "stool", "barrel", "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven", "ball",
    "food", "step", "tank", "trade", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher",
    "screen (silver)", "blanket", "sculpture", "hood", "sconce", "vase", "traffic", "tray",
    "ashcan", "fan", "pier", "crt", "plate", "monitor", "bulletin", "shower", "radiator", "glass",
    "clock", "flag",
)  # fmt: skip

# Three names are written differently in the two lists of PASCAL-Context (from the FCN code).
_CONTEXT_SYNONYMS = {"table": "diningtable", "bedclothes": "bedcloth", "cloth": "clothes"}


def cityscapes(*, train_ids: bool) -> Labels:
    """Return the class table for masks of train ids (0-18 and 255), or of label ids (0-33)."""
    names = tuple(name for name, _, _ in _CITYSCAPES)
    colors = tuple(color for _, _, color in _CITYSCAPES)
    if train_ids:
        return Labels(names, colors)
    class_ids = {label_id: k for k, (_, label_id, _) in enumerate(_CITYSCAPES)}
    values: dict[int | RGB, int] = {value: class_ids.get(value, 255) for value in range(34)}
    return Labels(names, colors, values=values, strict_values=True)


def ade20k(table: Path | None) -> Labels:
    """Return the class table for values 1-150, with the names of objectInfo150.csv (or .txt) if
    there is one.

    Raises:
        FullconvError: the file does not have 150 different names.
    """
    names: tuple[str, ...] = _ADE20K
    if table is not None:
        text = table.read_text("utf-8-sig", errors="replace")
        rows = list(csv.reader(io.StringIO(text), delimiter="\t" if "\t" in text else ","))
        synonyms = [[word.strip() for word in row[-1].split(";")] for row in rows[1:] if row]
        first = [words[0] for words in synonyms]
        names = tuple(
            f"{words[0]} ({words[1]})" if words[0] in first[:k] and len(words) > 1 else words[0]
            for k, words in enumerate(synonyms)
        )
        if len(names) != len(_ADE20K) or len(set(names)) != len(names):
            message = nmsg(
                "{path} names {count} class; expected 150 lines below the header, each with a "
                "different name in its last column.",
                "{path} names {count} classes; expected 150 lines below the header, each with "
                "a different name in its last column.",
                len(names),
                path=table,
            )
            command = shell_command("rm", table)
            hint = msg("{command}   # Fullconv knows the names of SceneParsing", command=command)
            raise FullconvError(message, hint)
    values: dict[int | RGB, int] = {0: 255, **{k + 1: k for k in range(len(names))}}
    return Labels(names, values=values, strict_values=True)


def numbered_names(path: Path) -> dict[int, str]:
    """Return id -> name from lines such as "1: person" (PASCAL-Context, COCO-Stuff); {} if any line
    has another form."""
    lines = [line.strip() for line in path.read_text("utf-8-sig", errors="replace").splitlines()]
    matches = [re.fullmatch(r"(\d+):\s*(\S.*)", line) for line in lines if line]
    return {int(m[1]): m[2] for m in matches if m} if all(matches) else {}


def pascal_context(labels: Path, subset: Path | None) -> Labels:
    """Return the class table of PASCAL-Context, whose masks have the values 1 to 459 of labels.txt.

    59_labels.txt (`subset`) selects 59 names. The rest is class 0, "background", which is trained
    and evaluated like the others, as in the FCN code.

    Raises:
        FullconvError: a list has another form, or names an unknown class.
    """
    names = numbered_names(labels)
    if not names:
        raise FullconvError(
            msg("{path} is not a list of lines with a number and a name.", path=labels),
            "1: accordion",
        )
    values: dict[int | RGB, int]
    if subset is None:
        order = sorted(names)
        values = {0: 65535, **{value: k for k, value in enumerate(order)}}
        return Labels(tuple(names[v] for v in order), (), 65535, values, strict_values=True)
    selected = list(numbered_names(subset).values())
    by_name = {name: value for value, name in names.items()}
    values = dict.fromkeys((0, *names), 0)
    for k, name in enumerate(selected, 1):
        value = by_name.get(name, by_name.get(_CONTEXT_SYNONYMS.get(name, "")))
        if value is None:
            parts = {"subset": subset, "name": name, "labels": labels}
            message = msg("{subset} selects {name!r}, which {labels} does not have.", **parts)
            raise FullconvError(message, msg("remove the line from {name}", name=subset.name))
        values[value] = k
    return Labels(("background", *selected), (), 255, values, strict_values=True)


def numbered_from_one(names: list[str]) -> Labels:
    """Return the class table in which values 1-K have these names. Value 0 is ignored, as in SIFT
    Flow and NYUDv2, and -1, as in the geometric labels of SIFT Flow."""
    ignore = 255 if len(names) <= 255 else 65535
    values: dict[int | RGB, int] = {-1: ignore, 0: ignore, **{k + 1: k for k in range(len(names))}}
    return Labels(tuple(names), (), ignore, values, strict_values=True)
