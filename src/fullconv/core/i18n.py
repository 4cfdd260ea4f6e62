"""The language that messages are printed in: English as it stands in the code, or Chinese.

Texts are made in English, wherever they are made. Where one is printed it is compared with the
templates of a file of translations (`messages.zh.toml`), and what stood in the holes of the English
template is put into those of the other. A text that fits none is printed in English, never lost.

A template is `no folder {path}.`; a hole whose content is words of ours, which are translated in
turn, is `{what~}`. Commands to paste and values are left as they are.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

LANGUAGES = ("en", "zh")
OPTION = "--lang"
VARIABLES = ("LC_ALL", "LC_MESSAGES", "LANG")  # the first that is set counts
# Of texts, in the file; those of the parser of the command line and of the system are not ours.
KINDS = ("messages", "hints", "lines", "words", "parser", "system")
_COMMENT = "   # "
_SEPARATORS = {"; ": "；", ", and ": "，并且 ", " and ": " 和 ", ", ": "、"}
_OWN = 6  # letters of its own by which a text is known, whatever stands in its holes
_ANYTHING = "\0"
_DEEP = 6  # texts within texts
_HOLE = re.compile(r"(\{\{|\}\}|\{[^{}]*\})")


@dataclass(frozen=True)
class Hole:
    """Of a template; `words`: what stands in it is translated, too."""

    name: str
    words: bool = False

    @property
    def counts(self) -> bool:
        """Whether it is for a whole number: its name is count, or count2 ..."""
        return self.name.rstrip("0123456789") == "count" and not self.words


Pieces = tuple[str | Hole, ...]


def pieces_of(text: str) -> Pieces:
    """A template as it is written in the file; braces that are meant are doubled.

    >>> pieces_of("no {what~} {path}.")
    ('no ', Hole(name='what', words=True), ' ', Hole(name='path', words=False), '.')
    """
    found: list[str | Hole] = []
    for part in _HOLE.split(text):
        if part in ("{{", "}}"):
            part = part[0]
        elif part.startswith("{") and part.endswith("}"):
            found.append(Hole(part[1:-1].rstrip("~"), part.endswith("~}")))
            continue
        if part and found and isinstance(found[-1], str):
            found[-1] += part
        elif part:
            found.append(part)
    return tuple(found)


@dataclass(frozen=True)
class Template:
    """An English text and what it is in another language."""

    english: Pieces
    other: Pieces

    @cached_property
    def certain(self) -> bool:
        """Whether it is known by words of its own, and not only by those in its holes."""
        labelled = isinstance(self.english[0], str) and self.english[0].endswith(": ")
        return labelled or not self.worded or sum(map(str.isalpha, self.own)) >= _OWN

    def understood(self, told: Mapping[str, _Told | None]) -> bool:
        """Whether its holes hold words of ours; of `{path~}: {message~}` the last will do."""
        ends = [*told.values()][-1:] if ": " in self.own else told.values()
        return all(ends)

    @cached_property
    def worded(self) -> tuple[Hole, ...]:
        """Its holes for words."""
        return tuple(piece for piece in self.english if isinstance(piece, Hole) and piece.words)

    @cached_property
    def own(self) -> str:
        """What it says itself."""
        return "".join(piece for piece in self.english if isinstance(piece, str))

    def found_in(self, text: str) -> dict[str, str] | None:
        """What stands in its holes where a text is made of it; None where it is not."""
        at, found, pieces = 0, {}, self.english
        for index, piece in enumerate(pieces):
            if isinstance(piece, str):
                if not text.startswith(piece, at):
                    return None
                at += len(piece)
                continue
            ahead = pieces[index + 1] if index + 1 < len(pieces) else ""
            assert isinstance(ahead, str)  # or it would be open where one hole ends
            last = index + 2 >= len(pieces)
            end = len(text) - len(ahead) if last else text.find(ahead, at + 1)
            if end <= at or not text.endswith(ahead if last else ""):
                return None
            value = text[at:end]
            if piece.counts and not value.isdecimal():
                return None
            found[piece.name] = value
            at = end
        return found if at == len(text) else None


class Translation:
    """All templates of a language.

    Args:
        table: kind of text -> entries with "en", one template or several of one meaning, and the
            language's own.
        language: which key that is.
    """

    def __init__(self, table: Mapping[str, Sequence[Mapping[str, Any]]], language: str) -> None:
        self.language = language
        self._fixed: dict[bool, dict[str, str]] = {True: {}, False: {}}
        self._open: dict[bool, list[Template]] = {True: [], False: []}
        self._met: dict[tuple[str, bool], _Told | None] = {}  # while one text is looked at
        for kind in KINDS:
            for entry in table.get(kind, ()):
                for english in variants(entry):
                    self._add(english, str(entry[language]), inside=kind in ("words", "system"))
        for templates in self._open.values():
            templates.sort(key=lambda one: -len(one.own))

    def _add(self, english: str, other: str, *, inside: bool) -> None:
        template = Template(pieces_of(english), pieces_of(other))
        # What may stand alone may stand in a hole, too.
        for where in (True,) if inside else (True, False):
            if len(template.english) == 1 and isinstance(template.english[0], str):
                self._fixed[where].setdefault(
                    template.english[0], "".join(map(str, template.other))
                )
            else:
                self._open[where].append(template)

    def text(self, english: str) -> str:
        """One message, whose values may have several lines; or what is known of its lines."""
        self._met.clear()
        whole = self._known(english, False, 0)
        lines = [self._line(line, False, 0) for line in english.split("\n")]
        if whole and len(whole.said) >= sum(len(line.said) for line in lines):
            return whole.text
        return "\n".join(line.text for line in lines)

    def lines(self, english: str) -> str:
        """Many, each on a line of its own."""
        self._met.clear()
        return "\n".join(self._line(line, False, 0).text for line in english.split("\n"))

    def labelled(self, english: str, after: str) -> str:
        """A text behind a label such as "error: ", where the text may be anything."""
        label = english.removesuffix(after)
        return self.text(label + _ANYTHING).replace(_ANYTHING, self.text(after))

    def _line(self, line: str, inside: bool, deep: int) -> _Told:
        """With the blanks at its ends; behind a command, its comment alone."""
        text = line.strip(" ")
        known = self._known(text, inside, deep)
        if known is None and _COMMENT in text:
            head, _, comment = text.partition(_COMMENT)
            told = self._known(comment.strip(), True, deep + 1) or _Told(comment)
            first = self._line(head, inside, deep)
            known = _Told(first.text + _COMMENT + told.text, first.said + told.said)
        if known is None:
            return _Told(line)
        before = line[: len(line) - len(line.lstrip(" "))]
        return _Told(before + known.text + line[len(line.rstrip(" ")) :], known.said)

    def _known(self, text: str, inside: bool, deep: int) -> _Told | None:
        """The template that says most of a text, itself and in its holes."""
        if deep > _DEEP or not text:
            return None
        if text in self._fixed[inside]:
            return _Told(self._fixed[inside][text], text)
        if (text, inside) not in self._met:
            self._met[text, inside] = self._best(text, inside, deep)
        return self._met[text, inside]

    def _best(self, text: str, inside: bool, deep: int) -> _Told | None:
        best, most = None, 0
        for template in self._open[inside]:
            found = template.found_in(text)
            if found is None:
                continue
            words = {hole.name: found[hole.name] for hole in template.worded}
            own = template.own if template.certain else "".join(filter(str.isalpha, template.own))
            if len(own) + sum(map(len, words.values())) <= most:
                continue  # it cannot say more than the best so far
            told = {name: self._words(value, deep + 1) for name, value in words.items()}
            if not template.certain and not template.understood(told):
                continue
            said = own + "".join(one.said for one in told.values() if one)
            if len(said) > most:
                best, most = _Told(_filled(template, found, told), said), len(said)
        return best

    def _words(self, text: str, deep: int) -> _Told | None:
        """What stands in a hole for words: one text of ours, or several in a row."""
        if deep > _DEEP:
            return None
        ways = [self._known(text, True, deep)]
        if "\n" in text:
            lines = [self._line(line, True, deep) for line in text.split("\n")]
            ways.append(_Told("\n".join(t.text for t in lines), "".join(t.said for t in lines)))
        elif _COMMENT in text:
            ways.append(self._line(text, True, deep))
        elif ways[0] is None or "; " in text:
            ways += [self._row(text, separator, deep) for separator in _SEPARATORS]
        return max((way for way in ways if way and way.said), key=_length, default=None)

    def _row(self, text: str, separator: str, deep: int) -> _Told | None:
        parts = text.split(separator)
        if len(parts) < 2:
            return None
        each = [self._words(part, deep + 1) or _Told(part) for part in parts]
        if any(not one.said and " " in one.text for one in each):
            return None  # words of others
        other = _SEPARATORS[separator]
        return _Told(other.join(t.text for t in each), "".join(t.said for t in each))


@dataclass(frozen=True)
class _Told:
    """A text in the other language, and all that was understood of the English one."""

    text: str
    said: str = ""


def _length(told: _Told) -> int:
    return len(told.said)


def _filled(template: Template, found: dict[str, str], told: Mapping[str, _Told | None]) -> str:
    """A template in the other language; a blank parts its signs from letters and digits in words
    that were translated."""
    text, told_last = "", False
    for piece in template.other:
        if isinstance(piece, str):
            if told_last and _parted(text[-1:], piece[:1]):
                text += " "
            text, told_last = text + piece, False
        else:
            words = told.get(piece.name)
            told_last = words is not None
            value = words.text if words else found[piece.name]
            text += " " * (told_last and _parted(text[-1:], value[:1])) + value
    return text


def _parted(before: str, after: str) -> bool:
    """Whether a Chinese sign and a letter or digit of ASCII meet."""
    one, other = sorted((before, after))
    return one.isascii() and one.isalnum() and "\u4e00" <= other <= "\u9fff"


def variants(entry: Mapping[str, Any]) -> list[str]:
    """The English templates of an entry."""
    found = entry["en"]
    return [found] if isinstance(found, str) else list(found)


def path_of(language: str) -> Path:
    """The file of a language."""
    return Path(__file__).with_name(f"messages.{language}.toml")


def read_table(language: str) -> dict[str, Any]:
    """Everything in the file of a language."""
    return tomllib.loads(path_of(language).read_text(encoding="utf-8"))


@cache
def translation(language: str) -> Translation | None:
    """Into a language; None for English, into which nothing is to be translated."""
    return None if language == "en" else Translation(read_table(language), language)


def language_asked(words: Sequence[str], environ: Mapping[str, str] | None = None) -> str:
    """The language of a command line: that after --lang, else that of the environment. English
    where there is none, or where stderr cannot print the other.

    >>> language_asked(["check", "data", "--lang", "zh"], {}), language_asked([], {"LANG": "de"})
    ('zh', 'en')
    """
    environ = os.environ if environ is None else environ
    told = next((environ[name] for name in VARIABLES if environ.get(name)), "")
    for word, after in zip(words, [*words, ""][1:], strict=True):
        if word == "--":
            break
        if word == OPTION or word.startswith(OPTION + "="):
            told = word.partition("=")[2] or after
    language = re.split("[_.@-]", told.lower())[0]
    return language if language in LANGUAGES and _prints(language) else "en"


def _prints(language: str) -> bool:
    """Whether both streams can carry the signs of a language."""
    try:
        for stream in (sys.stdout, sys.stderr):
            ("错误：中文" if language == "zh" else "").encode(
                getattr(stream, "encoding", "") or "utf-8"
            )
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def language_accepted(header: str) -> str:
    """The language that an Accept-Language header likes best, of those there are.

    >>> language_accepted("de, zh-CN;q=0.9, en;q=0.8"), language_accepted("en, zh;q=0.5")
    ('zh', 'en')
    """
    best, weight = "en", 0.0
    for part in header.split(","):
        name, _, rest = part.partition(";")
        language = name.strip().lower().split("-")[0]
        found = re.fullmatch(r"\s*q=(\d(?:\.\d+)?)\s*", rest)
        value = float(found[1]) if found else 1.0
        if language in LANGUAGES and value > weight:
            best, weight = language, value
    return best


_spoken = "en"


def speak(language: str) -> None:
    """From now on, `said` answers in this language."""
    global _spoken
    _spoken = language


def said(text: str) -> str:
    """A text of ours as it is to be printed, line by line."""
    into = translation(_spoken)
    return text if into is None else into.lines(text)


def failure(message: str, hint: str = "") -> str:
    """An error as it is printed, with the line to paste below it.

    >>> print(failure("no folder 'data'.", "fullconv check data"))
    error: no folder 'data'.
      try: fullconv check data
    """
    into, head, foot = translation(_spoken), f"error: {message}", f"  try: {hint}"
    if into is not None:
        head, foot = into.labelled(head, message), into.labelled(foot, hint)
    return "\n".join([head, foot] if hint else [head])
