"""Read models and runs that were written before options and keys were renamed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fullconv.core.metric_names import current_names
from fullconv.core.settings import rename_option

_LOG_COLUMNS = {"rate": "lr"}


def migrate_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the keys of a config.json to their current names; current keys are kept."""
    migrated = dict(config)
    if "metrics" in config:
        migrated["metrics"] = current_names(config["metrics"])
    if "training" in config:
        migrated["training"] = current_names(config["training"])
        if "settings" in config["training"]:
            migrated["training"]["settings"] = migrate_settings(config["training"]["settings"])
    return migrated


def migrate_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Rename training options to their current names, and values that were renamed."""
    return dict(rename_option(key, value) for key, value in settings.items())


def migrate_columns(names: list[str]) -> list[str]:
    """Rename the columns of a log.csv to their current names."""
    return [_LOG_COLUMNS.get(name, name) for name in names]
