"""Check the Chinese catalog against the messages in the source; exit code 1 on any problem.

python tools/check_translations.py           missing, fuzzy, obsolete entries; placeholders
python tools/check_translations.py --template FILE.pot    writes the messages of the source
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/fullconv"
CATALOG = SOURCE / "core/locale/zh/LC_MESSAGES/fullconv.po"
# Both extractors read each file: the one for calls of msg and nmsg, the other for --help.
KEYWORDS = {"msg": (1,), "nmsg": (1, 2)}
METHODS = ("python", "babel_help:extract_help")
_FIELD = re.compile(r"\{(\w*)[^{}]*\}")


def extract(folder: Path = SOURCE) -> Catalog:
    """Return the messages of the source files below a folder."""
    sys.path.insert(0, str(Path(__file__).parent))  # Babel imports babel_help from here
    catalog = Catalog(project="fullconv", charset="utf-8")
    for method in METHODS:
        entries = extract_from_dir(folder, [("**.py", method)], {}, KEYWORDS)
        for file, line, text, comments, context in entries:
            if text:
                catalog.add(text, None, [(file, line)], auto_comments=comments, context=context)
    return catalog


def problems(template: Catalog, translated: Catalog) -> list[str]:
    """Return what is wrong with the translation of a template, a line each."""
    lines = []
    for message in template:
        if message.id:
            entry = translated.get(message.id)
            file, line = message.locations[0]
            where = f"{file}:{line}: {_first(message)!r}"
            if entry is None or not _strings(entry)[0]:
                lines.append(f"missing: {where}")
            elif entry.fuzzy:
                lines.append(f"fuzzy: {where}")
            elif any(_fields(text) - _fields(*_ids(message)) for text in _strings(entry)):
                lines.append(f"other placeholders: {where}: {_strings(entry)[0]!r}")
            elif any(_fields(_ids(message)[0]) - _fields(text) for text in _strings(entry)):
                lines.append(f"lacks placeholders: {where}: {_strings(entry)[0]!r}")
    known = {_first(message) for message in template}
    stale = [*translated, *translated.obsolete.values()]
    lines += [f"obsolete: {_first(entry)!r}" for entry in stale if _first(entry) not in known]
    return lines


def _ids(message: Message) -> tuple[str, ...]:
    return (message.id,) if isinstance(message.id, str) else tuple(message.id)


def _first(message: Message) -> str:
    return _ids(message)[0]


def _strings(message: Message) -> tuple[str, ...]:
    return (message.string,) if isinstance(message.string, str) else tuple(message.string) or ("",)


def _fields(*texts: str) -> set[str]:
    return {name for text in texts for name in _FIELD.findall(text)}


def main(argv: list[str]) -> int:
    template = extract()
    if argv[:1] == ["--template"]:
        with Path(argv[1]).open("wb") as file:
            write_po(file, template, width=0, sort_output=True)
        return 0
    with CATALOG.open("rb") as file:
        lines = problems(template, read_po(file, locale="zh"))
    print("\n".join(lines) or "The Chinese catalog is complete.")
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
