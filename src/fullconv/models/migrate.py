"""Read what version 0.1 wrote: config.json of models, and the settings and log.csv of runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fullconv.core.metric_names import current_names
from fullconv.core.settings import RENAMED

_LOG_COLUMNS = {"rate": "lr"}


def migrate_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config.json with today's keys; one of this version is returned unchanged."""
    migrated = dict(config)
    if "metrics" in config:
        migrated["metrics"] = current_names(config["metrics"])
    if "training" in config:
        migrated["training"] = current_names(config["training"])
        if "settings" in config["training"]:
            migrated["training"]["settings"] = migrate_settings(config["training"]["settings"])
    return migrated


def migrate_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return training options under today's names."""
    return {RENAMED.get(key, key): value for key, value in settings.items()}


def migrate_columns(names: list[str]) -> list[str]:
    """Return the column names of a log.csv in this version."""
    return [_LOG_COLUMNS.get(name, name) for name in names]
