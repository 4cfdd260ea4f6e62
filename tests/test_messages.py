"""Every text of the source has a translation, and the catalogue is what they make."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts import script

from fullconv.core.i18n import read_table

DOCS = Path(__file__).parents[1] / "docs"


texts = script("docs/texts_in_code.py", "texts_in_code")
messages = script("docs/messages.py", "messages")
SAID = texts.Reader().read()
TABLE = read_table("zh")


def test_every_text_has_a_translation() -> None:
    lacking = messages.to_fill_in(messages.missing(SAID, TABLE))
    assert not lacking, f"add to src/fullconv/messages.zh.toml, filled in:\n\n{lacking}"


def test_every_translation_is_of_a_text() -> None:
    left = messages.surplus(SAID, TABLE)
    assert not left, f"take out of src/fullconv/messages.zh.toml: {left}"


def test_every_error_says_why() -> None:
    """But for those that only carry another one, such as `{path}: {message~}`."""
    known = messages.entries(TABLE)
    for one in SAID:
        if texts.shape(one.text) in known and one.kind == "message" and texts.has_words(one.text):
            entry = known[texts.shape(one.text)][2]
            carries = one.text[-1] == texts.Hole("message", True)
            assert entry.get("why") or carries, f"no why: {entry['en']}"


def test_the_catalogue_is_what_the_code_gives() -> None:
    page = (DOCS / "messages.md").read_text(encoding="utf-8")
    assert page == messages.page(SAID, TABLE), "python docs/messages.py"


def read(source: str, tmp_path: Path) -> list[str]:
    errors = (DOCS.parent / "src/fullconv/core/errors.py").read_text(encoding="utf-8")
    (tmp_path / "errors.py").write_text(errors, encoding="utf-8")
    (tmp_path / "a.py").write_text(source, encoding="utf-8")
    found = texts.Reader(tmp_path).read()
    return [texts.written(one.text) for one in found if one.places[0][0] == "a.py"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("raise FullconvError(f'no {path} here.', 'ls -l')", ["no {path} here."]),
        ("raise FullconvError(f'no {x!r} {x:.2f}.', 'ls -l')", ["no {x} {x2}."]),
        (
            "raise FullconvError(f\"a{' b' if x else ''} c.\", 'ls -l')",
            ["a b c.", "a c."],
        ),
        (
            "raise FullconvError(f\"it is {'one' if x else 'two'}.\", 'ls -l')",
            ["one", "two", "it is {value~}."],
        ),
        (
            "raise FullconvError(f\"{plural(n, 'mask')} lost.\", 'ls -l')",
            ["{count} mask", "{count} masks", "{plural~} lost."],
        ),
        (
            "def f(what):\n    raise FullconvError(f'no {what} here.', 'ls -l')\n"
            "f('mask')\nf('head')",
            ["mask", "head", "no {what~} here."],
        ),
        (
            "def f(x):\n    said = f'bad {x}'\n    raise FullconvError(said + '.', 'ls -l')",
            ["bad {x}", "bad {x}."],
        ),
        (
            "KINDS = {'a': 'whole numbers', 'b': 'a name'}\n"
            "def f(k):\n    raise FullconvError(f'expected {KINDS[k]}.', 'ls -l')",
            ["whole numbers", "a name", "expected {kinds~}."],
        ),
        (
            "raise FullconvError('a thing.', f'df -h   # or {x}')",
            ["or {x}", "a thing."],
        ),
        ("raise FullconvError('{} a brace.', 'ls -l')", ["{{}} a brace."]),
    ],
)
def test_what_is_read_of_the_source(source: str, expected: list[str], tmp_path: Path) -> None:
    assert sorted(read(source, tmp_path)) == sorted(expected)


def test_a_new_error_is_said_in_a_form_to_fill_in(tmp_path: Path) -> None:
    source = "from x import FullconvError\nraise FullconvError(f'no {path} anywhere.', 'ls -l')"
    read(source, tmp_path)
    found = messages.missing(texts.Reader(tmp_path).read(), TABLE)
    assert messages.to_fill_in(found).splitlines() == [
        "# a.py:2",
        "[[messages]]",
        'en = "no {path} anywhere."',
        'zh = ""',
        'why = ""',
    ]
