"""Read what earlier versions wrote: config.json of models, metrics.json and log.csv of runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fullconv.core.settings import RENAMED

_LOG_COLUMNS = {"rate": "lr"}
_PICTURES = {"pictures": "images", "picture_size": "image_size"}


def migrate_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config.json with the keys of this version; a current one is returned unchanged."""
    training = dict(config.get("training", {}))
    if "trained_on" in training:
        training["trained_on"] = [_rename(split, _PICTURES) for split in training["trained_on"]]
    if "data" in training:
        training["data"] = _rename(training["data"], _PICTURES)
    if "settings" in training:
        training["settings"] = _rename(training["settings"], RENAMED)
    return {
        **config,
        **({"training": training} if "training" in config else {}),
        **({"metrics": migrate_metrics(config["metrics"])} if "metrics" in config else {}),
    }


def migrate_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return metrics with the protocol keys of this version."""
    if "pictures" not in metrics.get("protocol", {}):
        return dict(metrics)
    protocol = _rename(metrics["protocol"], _PICTURES)
    for key, value in protocol.items():
        if isinstance(value, str):  # "train (367 pictures)"
            protocol[key] = re.sub(r"\bpicture(s?)\b", r"image\1", value)
    return {**metrics, "protocol": protocol}


def migrate_columns(names: list[str]) -> list[str]:
    """Return the column names of a log.csv in this version."""
    return [_LOG_COLUMNS.get(name, name) for name in names]


def _rename(table: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in table.items()}
