"""Read and write dataset.toml, the file in which the user describes a dataset.

    classes = ["background", "road"]      # dataset.toml; the position is the id in the mask
    ignore_index = 255
    images = "photos"                     # optional: the folders, relative to this file
    masks = "truth"
    layout = "folders"                    # optional: if another layout is recognized
    [map]                                 # optional: value in a mask file -> class, or "ignore"
    255 = "road"
    "#804080" = "road"
    [colors]                              # optional: default is the VOC palette
    road = "#804080"

Any other key is an error.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, TypeAlias

import tomli_w

from fullconv.core.errors import FullconvError
from fullconv.core.files import atomic_write
from fullconv.core.i18n import msg
from fullconv.core.labels import Labels, format_color
from fullconv.core.text import nearest

Settings: TypeAlias = dict[str, Any]

SETTINGS_NAME = "dataset.toml"
SETTINGS_KEYS: dict[str, tuple[str, type, str]] = {  # description, type, example to paste
    "classes": (msg("a list of names"), list, 'classes = ["background", "road"]'),
    "ignore_index": (msg("a whole number"), int, "ignore_index = 255"),
    "map": (msg("a table"), dict, '[map]\n255 = "road"'),
    "colors": (msg("a table"), dict, '[colors]\nroad = "#804080"'),
    "images": (msg("a folder"), str, 'images = "images"'),
    "masks": (msg("a folder"), str, 'masks = "masks"'),
    "layout": (msg("the name of a layout"), str, 'layout = "folders"'),
}


def read_settings(root: Path) -> Settings:
    """Return the keys of ROOT/dataset.toml; {} if there is no such file.

    Raises:
        FullconvError: the file is not TOML, or a key or value is wrong.
    """
    path = root / SETTINGS_NAME
    if not path.is_file():
        return {}
    try:
        table = tomllib.loads(path.read_text("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FullconvError(
            msg("{path} is not valid TOML: {reason}.", path=path, reason=str(error)),
            'classes = ["a", "b"]',
        ) from error
    for key, value in table.items():
        if key not in SETTINGS_KEYS:
            values = {"path": path, "key": key, "keys": ", ".join(SETTINGS_KEYS)}
            message = msg("{path}: unknown key {key!r}; expected one of {keys}.", **values)
            close = nearest(key, SETTINGS_KEYS, 0)
            raise FullconvError(message, msg("replace {key} by {nearest}", key=key, nearest=close))
        description, kind, example = SETTINGS_KEYS[key]
        wrong = not isinstance(value, kind) or isinstance(value, bool)
        if wrong or (kind is list and not all(isinstance(name, str) for name in value)):
            values = {"path": path, "key": key, "value": value, "description": description}
            message = msg("{path}: {key} is {value!r}; expected {description}.", **values)
            raise FullconvError(message, example)
    return table


def write_settings(root: Path, labels: Labels, *, colors: bool = True) -> None:
    """Write ROOT/dataset.toml: the names, the ignore index and (`colors`) the colors of a table."""
    table: Settings = {"classes": list(labels.names), "ignore_index": labels.ignore_index}
    if colors:
        texts = map(format_color, labels.colors)
        table["colors"] = dict(zip(labels.names, texts, strict=True))
    atomic_write(root / SETTINGS_NAME, tomli_w.dumps(table))
