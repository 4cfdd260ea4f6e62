"""Text for people: lists, percentages, sizes, durations, shell commands, nearest names."""

from __future__ import annotations

import difflib
import math
import shlex
from collections.abc import Iterable, Sequence

from fullconv.core.i18n import Message, join, msg, translate

LIST_LIMIT = 12  # names or values that a message spells out


def truncated_list(names: Sequence[object], limit: int = LIST_LIMIT) -> Message:
    """Return the first names, comma-separated, and how many more there are.

    >>> truncated_list(["a", "b", "c"]), truncated_list(["a", "b", "c"], 2)
    ('a, b, c', 'a, b and 1 more')
    """
    listed = join([name if isinstance(name, str) else str(name) for name in names[:limit]], ", ")
    if len(names) <= limit:
        return listed
    return msg("{listed} and {count} more", listed=listed, count=len(names) - limit)


def split_list(text: str) -> list[str]:
    """Return the items of a comma-separated list, without blanks and empty items.

    >>> split_list(" mask, overlay,")
    ['mask', 'overlay']
    """
    return [item.strip() for item in text.split(",") if item.strip()]


def percent(fraction: float | None, digits: int = 1) -> str:
    """Return a fraction as percent; "-" if it is None or NaN.

    >>> percent(0.4267), percent(None), percent(0.00001)
    ('42.7%', '-', '<0.1%')
    """
    if fraction is None or math.isnan(fraction):
        return "-"
    smallest = 10.0**-digits
    if 0 < fraction * 100 < smallest / 2:
        return f"<{smallest:g}%"
    return f"{fraction:.{digits}%}"


def file_size(count: float) -> str:
    """Return a number of bytes with a decimal unit.

    >>> file_size(532), file_size(107_000_000), file_size(2.5e9)
    ('532 B', '107 MB', '2.5 GB')
    """
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def duration(seconds: float) -> str:
    """Return a duration as minutes and seconds, or hours, minutes and seconds.

    >>> duration(7), duration(95), duration(3725)
    ('0:07', '1:35', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error message without its period; the type if it has none.

    >>> first_line(ValueError("no such key.\\nat line 3")), first_line(KeyboardInterrupt())
    ('no such key', 'KeyboardInterrupt')
    """
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return the known name that resembles a misspelled one, or "" if none does.

    >>> nearest("overley", ["mask", "overlay"]), nearest("lr", ["mask", "overlay"])
    ('overlay', '')
    """
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return matches[0] if matches else ""


def markdown_cell(text: object) -> str:
    r"""Return text for a cell of a Markdown table.

    >>> print(markdown_cell("a|b"))
    a\|b
    """
    return str(text).replace("\\", "\\\\").replace("|", r"\|").replace("\n", " ")


def shell_command(*words: object) -> str:
    """Return a command to paste, with the quotes that a shell needs.

    >>> shell_command("fullconv", "check", "my data")
    "fullconv check 'my data'"
    """
    return shlex.join(map(as_typed, words))


def as_typed(word: object) -> str:
    """Return a word of a command as a person types it: `Path` turns hf:// into hf:/.

    >>> from pathlib import Path
    >>> as_typed(Path("hf://user/name"))
    'hf://user/name'
    """
    text = str(word)
    return f"hf://{text[4:]}" if text.startswith("hf:/") and text[4:5] != "/" else text


def align_columns(
    rows: Sequence[Sequence[str]], *, left: Sequence[int] = (0,), widest: int = 28
) -> str:
    """Return a table for the terminal: a line per row, cells translated, columns straight.

    Chinese letters take two columns of a terminal each. Cells wider than `widest` are cut.

    Args:
        rows: of equal length.
        left: numbers of the columns that are aligned left; the others are aligned right.

    >>> print(align_columns([["class", "IoU"], ["sky", "98.7"]]))
    class   IoU
    sky    98.7
    """
    from rich.cells import cell_len, set_cell_size

    table = [[str(translate(cell)) for cell in row] for row in rows]
    table = [
        [c if cell_len(c) <= widest else set_cell_size(c, widest - 1) + "…" for c in row]
        for row in table
    ]
    widths = [max(map(cell_len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = []
        for k, (cell, width) in enumerate(zip(row, widths, strict=True)):
            blanks = " " * (width - cell_len(cell))
            cells.append(cell + blanks if k in left else blanks + cell)
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
