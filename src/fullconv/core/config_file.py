"""The config.toml of a run: read it, and write its tables."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg


def read_config(path: str | Path) -> dict[str, dict[str, Any]]:
    """Read the tables of a config.toml: [data] and [train], either of which may be absent.

    Raises:
        FullconvError: there is no such file, it is not TOML, or it has other tables.
    """
    try:
        config = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        message = msg("there is no configuration at {path}.", path=path)
        raise FullconvError(message, "fullconv train DATA") from None
    except OSError as error:
        message = msg(
            "the configuration {path} cannot be read: {reason}.", path=path, reason=error.strerror
        )
        raise FullconvError(message, "fullconv train --config RUN/config.toml") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        message = msg("{path} is not a TOML file: {reason}.", path=path, reason=error)
        raise FullconvError(message, "[train]\nstride = 8") from None
    for key, value in config.items():
        if key not in ("data", "train") or not isinstance(value, dict):
            message = msg(
                "{path} has {key!r} at its top level; expected only the tables [data] and [train].",
                path=path,
                key=key,
            )
            line = "" if isinstance(value, dict) else f"\n{key} = {toml_value(value)}"
            raise FullconvError(message, f"[train]{line}")
    root = config.get("data", {}).get("root", "")
    if not isinstance(root, str):
        message = msg(
            "{path}: root is {root!r}; expected the folder of a dataset.", path=path, root=root
        )
        raise FullconvError(message, 'root = "DATA"')
    return config


def to_toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Return tables of plain values as TOML text.

    >>> to_toml({"train": {"stride": 8, "flip": True, "scale": (0.5, 2.0)}})
    '[train]\\nstride = 8\\nflip = true\\nscale = [0.5, 2.0]\\n'
    """
    lines = []
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {toml_value(value)}" for key, value in table.items())]
        lines.append("")
    return "\n".join(lines)


def toml_value(value: Any) -> str:
    """Return a plain value as TOML on one line; tomli-w would spread a list over several.

    >>> toml_value('a "b"'), toml_value([1, "x"])
    ('"a \\\\"b\\\\""', '[1, "x"]')
    """
    import tomli_w

    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(toml_value, value))}]"
    plain = value if isinstance(value, (bool, int, float, str)) else str(value)
    return tomli_w.dumps({"key": plain}).removeprefix("key = ").rstrip("\n")
