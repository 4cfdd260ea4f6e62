"""Text for people: plurals, lists that end early, commands to paste."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

LISTED = 12  # values or names that a message spells out


def plural(count: int, one: str, many: str = "") -> str:
    """So many of something, in words that agree with it.

    >>> plural(1, "mask"), plural(2, "mask"), plural(1, "mask holds", "masks hold")
    ('1 mask', '2 masks', '1 mask holds')
    """
    return f"{count} {one if count == 1 else many or one + 's'}"


def some(names: Sequence[str], most: int = LISTED) -> str:
    """The first of them, with commas, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def command(*words: object) -> str:
    """A command to paste, each word quoted where a shell would take it apart.

    >>> command("fullconv", "check", "my data")
    "fullconv check 'my data'"
    """
    return shlex.join(map(as_typed, words))


def as_typed(word: object) -> str:
    """A word of a command, also where a model's name on a hub became a path.

    >>> from pathlib import Path
    >>> as_typed(Path("hf://user/name"))
    'hf://user/name'
    """
    text = str(word)
    return f"hf://{text[4:]}" if text.startswith("hf:/") and text[4:5] != "/" else text
