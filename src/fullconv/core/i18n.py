"""Messages in English and Chinese, by gettext.

A message keeps its template and its values until it is printed:

    raise FullconvError(msg("{path} is not a TOML file.", path=path))

As a `str` it is the English text. `translate` looks the template up in the catalog of the current
language (`locale/zh/LC_MESSAGES/fullconv.po`), translates values that are messages themselves, and
fills them in. Write whole sentences: a sentence glued from fragments cannot be translated.
"""

from __future__ import annotations

import gettext
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

LANGUAGES = ("en", "zh")
_VARIABLES = ("LC_ALL", "LC_MESSAGES", "LANG")  # the first one that is set counts
_current = "en"


class Message(str):
    """An English text that knows its template and values, and so can be translated later."""

    template: str
    plural: str
    values: Mapping[str, Any]

    def __new__(
        cls, template: str, values: Mapping[str, Any], plural: str = "", count: int = 1
    ) -> Message:
        message = super().__new__(cls, (template if count == 1 else plural).format_map(values))
        message.template, message.plural, message.values = template, plural, values
        return message

    def __getnewargs__(self) -> tuple[Any, ...]:  # messages cross process boundaries
        return (self.template, self.values, self.plural, self.values.get("count", 1))

    def in_language(self, language: str) -> str:
        """Return the message in one of `LANGUAGES`."""
        catalog = _catalog(language)
        values = {name: translate(value, language) for name, value in self.values.items()}
        if self.plural:
            template = catalog.ngettext(self.template, self.plural, self.values["count"])
        else:
            template = catalog.gettext(self.template) if self.template else ""
        return template.format_map(values)


def msg(template: str, /, **values: Any) -> Message:
    """Return a translatable message.

    >>> msg("{path} has {share:.1%} ignored pixels.", path="a.png", share=0.25)
    'a.png has 25.0% ignored pixels.'
    """
    return Message(template, values)


def nmsg(singular: str, plural: str, /, count: int, **values: Any) -> Message:
    """Return a translatable message whose form depends on `count`.

    >>> nmsg("{count} image", "{count} images", count=1), nmsg("{count} image", "{count} images", 3)
    ('1 image', '3 images')
    """
    return Message(singular, {"count": count, **values}, plural, count)


def join(parts: Iterable[str], separator: str = "\n") -> Message:
    """Join messages into one that is translated part by part.

    >>> join([msg("one {n}.", n=1), "two"], " ")
    'one 1. two'
    """
    values = {f"part{k}": part for k, part in enumerate(parts)}
    return Message(separator.join(f"{{{name}}}" for name in values), values)


def translate(text: Any, language: str = "") -> Any:
    """Return a message in a language (default: the current one); return anything else unchanged."""
    return text.in_language(language or _current) if isinstance(text, Message) else text


def set_language(language: str) -> None:
    """Set the language that `translate` uses by default."""
    global _current
    _current = language


def format_error(message: str, hint: str = "") -> str:
    """Return an error as it is printed, with the line to paste below it."""
    text = msg("error: {message}", message=message)
    return translate(join([text, msg("  try: {hint}", hint=hint)]) if hint else text)


def requested_language(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> str:
    """Return the language of a command line: `--lang`, else the environment, else English.

    Falls back to English if stdout or stderr cannot encode Chinese.

    >>> requested_language(["check", "--lang", "zh"], {}), requested_language([], {"LANG": "de"})
    ('zh', 'en')
    """
    name = next((environ[name] for name in _VARIABLES if environ.get(name)), "")
    for word, following in zip(argv, [*argv, ""][1:], strict=True):
        if word == "--":
            break
        if word == "--lang" or word.startswith("--lang="):
            name = word.partition("=")[2] or following
    language = re.split("[_.@-]", name.lower())[0]
    try:
        for stream in (sys.stdout, sys.stderr):
            "中文".encode(getattr(stream, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return "en"
    return language if language in LANGUAGES else "en"


def accepted_language(header: str) -> str:
    """Return the language that an HTTP Accept-Language header prefers.

    >>> accepted_language("de, zh-CN;q=0.9, en;q=0.8"), accepted_language("en, zh;q=0.5")
    ('zh', 'en')
    """
    best, best_weight = "en", 0.0
    for part in header.split(","):
        name, _, parameters = part.partition(";")
        language = name.strip().lower().split("-")[0]
        quality = re.fullmatch(r"\s*q=(\d(?:\.\d+)?)\s*", parameters)
        weight = float(quality[1]) if quality else 1.0
        if language in LANGUAGES and weight > best_weight:
            best, best_weight = language, weight
    return best


@cache
def _catalog(language: str) -> gettext.NullTranslations:
    folder = Path(__file__).with_name("locale")
    return gettext.translation("fullconv", folder, [language], fallback=True)
