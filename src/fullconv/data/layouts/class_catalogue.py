"""Class tables of published data sets: names, colours, and what a value in their masks means.

Cityscapes: the 19 classes that are scored, of 34 label ids (cityscapesScripts, labels.py). ADE20K:
the 150 classes of SceneParsing; 0 is everything else. PASCAL-Context and SIFT Flow come with lists
of their own.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from fullconv.core.errors import FullconvError
from fullconv.core.labels import RGB, Labels
from fullconv.core.text import plural, shell_command

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
_ADE20K = (  # of synonyms the first
    "wall",
    "building",
    "sky",
    "floor",
    "tree",
    "ceiling",
    "road",
    "bed",
    "windowpane",
    "grass",
    "cabinet",
    "sidewalk",
    "person",
    "earth",
    "door",
    "table",
    "mountain",
    "plant",
    "curtain",
    "chair",
    "car",
    "water",
    "painting",
    "sofa",
    "shelf",
    "house",
    "sea",
    "mirror",
    "rug",
    "field",
    "armchair",
    "seat",
    "fence",
    "desk",
    "rock",
    "wardrobe",
    "lamp",
    "bathtub",
    "railing",
    "cushion",
    "base",
    "box",
    "column",
    "signboard",
    "chest",
    "counter",
    "sand",
    "sink",
    "skyscraper",
    "fireplace",
    "refrigerator",
    "grandstand",
    "path",
    "stairs",
    "runway",
    "case",
    "pool",
    "pillow",
    "screen",
    "stairway",
    "river",
    "bridge",
    "bookcase",
    "blind",
    "coffee",
    "toilet",
    "flower",
    "book",
    "hill",
    "bench",
    "countertop",
    "stove",
    "palm",
    "kitchen",
    "computer",
    "swivel",
    "boat",
    "bar",
    "arcade",
    "hovel",
    "bus",
    "towel",
    "light",
    "truck",
    "tower",
    "chandelier",
    "awning",
    "streetlight",
    "booth",
    "television",
    "airplane",
    "dirt",
    "apparel",
    "pole",
    "land",
    "bannister",
    "escalator",
    "ottoman",
    "bottle",
    "buffet",
    "poster",
    "stage",
    "van",
    "ship",
    "fountain",
    "conveyer",
    "canopy",
    "washer",
    "plaything",
    "swimming",
    "stool",
    "barrel",
    "basket",
    "waterfall",
    "tent",
    "bag",
    "minibike",
    "cradle",
    "oven",
    "ball",
    "food",
    "step",
    "tank",
    "trade",
    "microwave",
    "pot",
    "animal",
    "bicycle",
    "lake",
    "dishwasher",
    "screen (silver)",
    "blanket",
    "sculpture",
    "hood",
    "sconce",
    "vase",
    "traffic",
    "tray",
    "ashcan",
    "fan",
    "pier",
    "crt",
    "plate",
    "monitor",
    "bulletin",
    "shower",
    "radiator",
    "glass",
    "clock",
    "flag",
)


def cityscapes(*, train_ids: bool) -> Labels:
    """Of masks of label ids (0-33), or of train ids (0-18 and 255)."""
    names = tuple(name for name, _, _ in _CITYSCAPES)
    colors = tuple(color for _, _, color in _CITYSCAPES)
    if train_ids:
        return Labels(names, colors)
    scored = {label: k for k, (_, label, _) in enumerate(_CITYSCAPES)}
    values: dict[int | RGB, int] = {label: scored.get(label, 255) for label in range(34)}
    return Labels(names, colors, values=values, strict_values=True)


def ade20k(table: Path | None) -> Labels:
    """Values 1-150; names from an objectInfo150.csv or .txt where there is one."""
    names: tuple[str, ...] = _ADE20K
    if table is not None:
        text = table.read_text("utf-8-sig", errors="replace")
        rows = list(csv.reader(io.StringIO(text), delimiter="\t" if "\t" in text else ","))
        words = [[word.strip() for word in row[-1].split(";")] for row in rows[1:] if row]
        first = [synonyms[0] for synonyms in words]
        found = [
            f"{name} ({synonyms[1]})" if name in first[:k] and len(synonyms) > 1 else name
            for k, (name, synonyms) in enumerate(zip(first, words, strict=True))
        ]
        if len(found) != len(_ADE20K) or len(set(found)) != len(found):
            raise FullconvError(
                f"{table} names {plural(len(found), 'class', 'classes')}; expected 150 "
                "lines below its head, each with another name in its last column.",
                f"{shell_command('rm', table)}   # the names of SceneParsing are known",
            )
        names = tuple(found)
    values: dict[int | RGB, int] = {0: 255, **{k + 1: k for k in range(len(names))}}
    return Labels(names, values=values, strict_values=True)


def numbered_names(path: Path) -> dict[int, str]:
    """id -> name of a list with lines "1: person", as PASCAL-Context and COCO-Stuff have; {} where
    any line is another."""
    lines = [line.strip() for line in path.read_text("utf-8-sig", errors="replace").splitlines()]
    found = [re.fullmatch(r"(\d+):\s*(\S.*)", line) for line in lines if line]
    return {int(m[1]): m[2] for m in found if m} if all(found) else {}


def pascal_context(labels: Path, chosen: Path | None) -> Labels:
    """Of LabelMap values 1-459 (labels.txt); where 59_labels.txt chooses 59 of them by name, the
    rest is class 0, "background", trained and scored like the others, as in the FCN code."""
    names = numbered_names(labels)
    if not names:
        raise FullconvError(
            f"{labels} is not a list of lines with a number and a name.", "1: accordion"
        )
    values: dict[int | RGB, int]
    if chosen is None:
        order = sorted(names)
        values = {0: 65535, **{value: k for k, value in enumerate(order)}}
        return Labels(tuple(names[v] for v in order), (), 65535, values, strict_values=True)
    wanted = list(numbered_names(chosen).values())
    # The code of FCN: three names are written differently in the two lists.
    other = {"table": "diningtable", "bedclothes": "bedcloth", "cloth": "clothes"}
    of_name = {name: value for value, name in names.items()}
    values = dict.fromkeys((0, *names), 0)
    for k, name in enumerate(wanted, 1):
        value = of_name.get(name, of_name.get(other.get(name, "")))
        if value is None:
            raise FullconvError(
                f"{chosen} chooses {name!r}, which {labels} does not have.",
                f"take the line out of {chosen.name}",
            )
        values[value] = k
    return Labels(("background", *wanted), (), 255, values, strict_values=True)


def from_one(names: list[str]) -> Labels:
    """Values 1-K with these names; 0 is ignored, as in SIFT Flow and NYUDv2, and -1, as in the
    geometric labels of SIFT Flow."""
    ignore = 255 if len(names) <= 255 else 65535
    values: dict[int | RGB, int] = {-1: ignore, 0: ignore, **{k + 1: k for k in range(len(names))}}
    return Labels(tuple(names), (), ignore, values, strict_values=True)
