"""The catalogue of what Fullconv says: docs/messages.md, written from the code and its translation.

    python docs/messages.py             # writes docs/messages.md
    python docs/messages.py --missing   # what lacks a translation, in a form to fill in

The texts come from the source (texts_in_code.py), what they are in Chinese and why they come up
from src/fullconv/messages.zh.toml. The last line of a fix is one to paste.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "src")]

from texts_in_code import (  # noqa: E402 - what stands beside this file
    SOURCE,
    Hole,
    Reader,
    Said,
    Text,
    has_words,
    shape,
    written,
)

from fullconv.core.i18n import pieces_of, read_table, variants  # noqa: E402

PAGE = Path(__file__).with_name("messages.md")
KIND = {"message": "messages", "hint": "hints", "line": "lines", "words": "words"}
Shape = tuple[str | None, ...]

# Which files of the source a part of the page is about.
ROOMS = {
    "The command line": ("cli", "completion_command", "terminal", "options", "listed", "settings"),
    "This installation": ("doctor", "machine", "installed", "kernels", "memory", "processes"),
    "A data set": ("data/layouts", "data/unknown", "data/tables", "data/beside", "data/pairing"),
    "What `check` finds": ("data/findings", "data/check", "data/tolerance", "data/fix", "sheet"),
    "Published data sets": ("data/download", "data/fetch", "data/unpack", "data/catalogue"),
    "Annotations to convert": ("data/convert", "data/annotations"),
    "Pictures, masks and videos": ("data", "video", "rasters", "labels", "draw"),
    "Backbones and classifiers": ("network", "geometry", "tracing", "names", "heatmap"),
    "Training": ("training", "choices", "loop", "progress", "start", "stages", "finish", "demo"),
    "Models and results": ("model", "foreign", "predict", "segmenter", "outputs", "many", ""),
    "Exporting": ("export", "graph", "deployed", "web", "engine"),
    "The server": ("serve",),
}

HEAD = """# What Fullconv says, and what to do about it

Every error, and every finding of `check` and `doctor`: the text in English and in Chinese, why it
comes up, and the fix that stands below it. What is in braces is filled in. `--lang zh`, or
`LANG=zh_CN.UTF-8`, prints the Chinese; commands to paste, results in JSON and `--help` are the same
in every language.

This page is written by `python docs/messages.py` from the source and from
[the file of translations](../src/fullconv/messages.zh.toml).
"""


def entries(table: dict[str, Any]) -> dict[Shape, tuple[str, str, dict[str, Any]]]:
    """What a text is known by -> the kind, the English and the entry of its translation."""
    return {
        shape(_text(english)): (kind, english, entry)
        for kind in KIND.values()
        for entry in table.get(kind, ())
        for english in variants(entry)
    }


def _text(english: str) -> Text:
    """A template of the file, as the reader of the source has it."""
    return tuple(
        piece if isinstance(piece, str) else Hole(piece.name, piece.words)
        for piece in pieces_of(english)
    )


def kept(table: dict[str, Any]) -> set[Shape]:
    """What is the same in every language."""
    return {shape(_text(english)) for english in table["as_they_are"]}


def missing(said: Iterable[Said], table: dict[str, Any]) -> list[Said]:
    """Texts of the code without a translation, and those whose holes for words have changed."""
    known, same = entries(table), kept(table)
    found = []
    for one in said:
        if shape(one.text) in same:
            continue
        entry = known.get(shape(one.text))
        if (
            entry is None
            or entry[0] != KIND[one.kind]
            or _words(_text(entry[1])) != _words(one.text)
        ):
            found.append(one)
    return found


def _words(text: Text) -> list[bool]:
    return [piece.words for piece in text if not isinstance(piece, str)]


def surplus(said: Iterable[Said], table: dict[str, Any]) -> list[str]:
    """Translations of what the code does not say (any more)."""
    there = {shape(one.text) for one in said}
    texts = [english for _, english, _ in entries(table).values()] + table["as_they_are"]
    return [english for english in texts if shape(_text(english)) not in there]


def to_fill_in(found: Iterable[Said]) -> str:
    """Entries for the file of translations."""
    parts = []
    for one in found:
        module, line = one.places[0]
        lines = [f"# {module}:{line}", f"[[{KIND[one.kind]}]]"]
        lines += [f"en = {json.dumps(written(one.text), ensure_ascii=False)}", 'zh = ""']
        parts.append("\n".join([*lines, *['why = ""'] * (one.kind == "message"), ""]))
    return "\n".join(parts)


def page(said: Iterable[Said], table: dict[str, Any]) -> str:
    """The catalogue, as Markdown."""
    known = entries(table)
    rooms: dict[str, list[Said]] = defaultdict(list)
    for one in said:
        if one.kind == "message" and has_words(one.text) and shape(one.text) in known:
            rooms[_room(one.places[0][0])].append(one)
    parts = [HEAD]
    for room in ROOMS:
        if rooms[room]:
            parts.append(f"\n## {room}\n")
            parts += [_entry(one, known[shape(one.text)]) for one in rooms[room]]
    return "\n".join(parts)


def _room(module: str) -> str:
    """The longest beginning of a file's name decides; what nothing is said of is about models."""
    fitting = [
        (len(begin), room)
        for room, all_ in ROOMS.items()
        for begin in all_
        if module.startswith(begin)
    ]
    return max(fitting)[1]


def _entry(one: Said, translated: tuple[str, str, dict[str, Any]]) -> str:
    _, english, entry = translated
    lines = [_block(english.replace("~", ""), entry["zh"])]
    if why := entry.get("why"):
        lines.append(f"Why: {why}")
    fixes = [fix for fix in map(written, one.hints) if fix]
    for fix in fixes:
        lines.append(_block(fix.replace("~", "")))
    places = sorted({f"`{module}`" for module, _ in one.places})
    return "\n".join([*lines, f"<sub>{', '.join(places)}</sub>", ""])


def _block(*texts: str) -> str:
    plain = [text.replace("{{", "{").replace("}}", "}") for text in texts]
    return "\n".join(["```text", *plain, "```"])


def main(argv: list[str]) -> int:
    said, table = Reader(SOURCE).read(), read_table("zh")
    lacking, left = missing(said, table), surplus(said, table)
    if lacking or left:
        print(to_fill_in(lacking))
        print("\n".join(f"# not in the code (any more): {english!r}" for english in left))
    if "--missing" in argv:
        return int(bool(lacking or left))
    PAGE.write_text(page(said, table), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
