"""The layout of --help: sections, placeholders and defaults. Its texts are translated.

The texts are the docstrings of the commands and of `Settings`; tools/babel_help.py extracts them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fullconv.cli.app import app
from fullconv.core.i18n import Message, msg, translate

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

GLOBAL_OPTIONS = msg("Options of every command")
# The sections of `fullconv train --help`: title -> options, in this order.
TRAIN_SECTIONS: dict[Message, str] = {
    msg("Data"): "heads extra-inputs fusion ignore-rules workers cache",
    msg("Model"): "backbone pretrained stride upsampling init-from freeze-backbone",
    msg("Optimization"): "epochs batch-size grad-accumulation lr backbone-lr weight-decay "
    "optimizer schedule class-weights label-smoothing patience seed",
    msg("Augmentation"): "crop scale flip color-jitter",
    msg("Logging"): "out json logger log-images-every",
    msg("Hardware"): "device devices nodes precision",
    msg("Configuration"): "config resume",
    msg("Paper reproduction"): "staged stage-lr-factor sum-loss-lr bias-lr-factor momentum",
}
# Placeholders of values, where that of the type (N, X, PATH) says too little.
_OPTIONS_BY_METAVAR = {
    "NAME": "backbone class device",
    "NAME,...": "classes extra-inputs foreground heads save",
    "RULE,...": "ignore-rules",
    "MODEL": "init-from",
    "RUN": "resume",
    "LR": "lr backbone-lr sum-loss-lr",
    "X": "bias-lr-factor",
    "X,...": "scales",
    "LOW HIGH": "scale",
    "H W": "crop",
    "PX": "max-pixels min-area stride tile",
    "BYTES": "max-bytes",
    "GIB": "cache",
    "S": "max-seconds",
}
METAVARS = {
    name: metavar for metavar, names in _OPTIONS_BY_METAVAR.items() for name in names.split()
}
# Texts that cyclopts adds, here to be translated.
_ADDED_TEXTS = (
    msg("Arguments"),
    msg("Display this message and exit."),
    msg("Display application version."),
)
_TYPES = {"STR": "NAME", "INT": "N", "FLOAT": "X", "CHOICE": "NAME", "SPLIT": "NAME"}
# What stays on one line: a remark, a word, or a Chinese character with its punctuation.
_TOKENS = re.compile(
    r"\[[^\]]*\]\s*|（?(?:[\u4e00-\u9fff]|[^\s\u4e00-\u9fff，。：；、（）…]+)[，。：；、）…]*\s*|\S\s*"
)
_NO_DEFAULTS = {"False", '""', "''", "()", "None"}  # "off" and "empty" are no news


class HelpFormatter:
    """Print a help page section by section, as cyclopts asks for it."""

    show_metavar = True

    def __init__(self) -> None:
        self.command = ""

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        """Print "Usage: fullconv train [DATA] [OPTIONS]": what a command needs comes first."""
        words = str(usage).strip().removeprefix("Usage:").split()
        self.command = words[1] if len(words) > 1 and words[1].islower() else ""
        line = usage_line(self.command) if self.command else "fullconv COMMAND [OPTIONS]"
        console.print(translate(msg("Usage: {line}", line=line)), style="bold", highlight=False)
        console.print()

    def render_description(
        self, console: Console, options: ConsoleOptions, description: Any
    ) -> None:
        """Print what the command does, a paragraph at a time."""
        for paragraph in re.split(r"\n\s*\n", _plain_text(description)):
            for line in wrap(translate_help(paragraph), console.width):
                console.print(line, highlight=False, markup=False, soft_wrap=True)
            console.print()

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Print a panel; that of `train` as several sections."""
        if self.command and panel.title == GLOBAL_OPTIONS:
            return  # only in `fullconv --help`
        entries = list(panel.entries)
        if self.command == "train" and panel.title == "Parameters":
            by_name = {_name(entry): entry for entry in entries}
            for title, names in TRAIN_SECTIONS.items():
                _print_section(console, title, [by_name.pop(name) for name in names.split()])
            entries = list(by_name.values())
        heading: str = msg("Options") if panel.title == "Parameters" else str(panel.title)
        if self.command and panel.title in ("Commands", msg("Commands")):
            return  # --help and --version
        _print_section(console, heading, entries)


def usage_line(command: str) -> str:
    """Return how a command is typed: "fullconv predict MODEL IMAGES... [OPTIONS]"."""
    from inspect import Parameter, signature

    words = ["fullconv", command]
    for parameter in signature(app[command].default_command).parameters.values():  # type: ignore[arg-type]
        name = parameter.name.upper()
        if parameter.kind == Parameter.VAR_POSITIONAL:
            words.append(f"{name}...")
        elif parameter.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD):
            words.append(name if parameter.default is Parameter.empty else f"[{name}]")
    return " ".join([*words, "[OPTIONS]"])


def translate_help(text: str) -> str:
    """Return a paragraph of a docstring as one line, in the current language."""
    return str(translate(Message(" ".join(text.split()), {})))


def _print_section(console: Console, title: str, entries: list[HelpEntry]) -> None:
    """Print a title, and below it a column of names and one of descriptions."""
    from rich.text import Text

    if not entries:
        return
    console.print(Text(translate_help(title), style="bold"))
    column = min(max(12, *(len(_label(entry)) for entry in entries)), 26) + 4
    for entry in entries:
        text = " ".join([translate_help(_plain_text(entry.description)), *_remarks(entry)])
        first, *rest = wrap(text, max(console.width - column, 20)) or [""]
        name = Text(f"  {_label(entry)}".ljust(column), style="cyan")
        if len(name.plain) > column:
            first, rest = "", [first, *rest]
        console.print(name.append(first, style="default") if first else name, soft_wrap=True)
        for line in rest:
            console.print(Text(" " * column + line), soft_wrap=True)
    console.print()


def wrap(text: str, width: int) -> list[str]:
    """Return text in lines of at most `width` cells; Chinese may break after any character.

    >>> wrap("one of many [default: a]", 13)
    ['one of many', '[default: a]']
    >>> wrap("分割头的学习率。", 6)
    ['分割头', '的学习', '率。']
    """
    from rich.cells import cell_len

    lines, line = [], ""
    for token in _TOKENS.findall(text):
        if line and cell_len(line) + cell_len(token.rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        line += token
    return [*lines, line.rstrip()] if line else lines


def _name(entry: HelpEntry) -> str:
    names = entry.positive_names or entry.all_options
    return names[0].removeprefix("--") if names else str(entry.positional_label)


def _label(entry: HelpEntry) -> str:
    """Return the option and its placeholder, such as "--[no-]flip" or "--lr LR"."""
    if entry.positional_label:
        return entry.positional_label.removesuffix("...")
    name = _name(entry)
    if not entry.metavar:
        negative = entry.negative_names and entry.default == "True"
        short = "".join(f", {short}" for short in entry.positive_shorts)
        option = f"--[no-]{name}" if negative else f"--{name}"
        return (option if entry.positive_names and "-" in entry.all_options[0] else name) + short
    return f"--{name} {METAVARS.get(name, _TYPES.get(entry.metavar, entry.metavar))}"


def _remarks(entry: HelpEntry) -> list[str]:
    remarks = []
    if choices := [choice for choice in entry.choices or () if choice]:
        remarks.append(msg("[{choices}]", choices=", ".join(choices)))
    if entry.env_var:
        remarks.append(msg("[environment variable: {name}]", name=", ".join(entry.env_var)))
    if entry.default is not None and entry.default not in _NO_DEFAULTS:
        value = msg("on") if entry.default == "True" else entry.default
        remarks.append(msg("[default: {value}]", value=value))
    return [translate(remark) for remark in remarks]


def _plain_text(description: Any) -> str:
    """Return the text of what cyclopts wraps in renderables."""
    description = getattr(description, "primary_renderable", description)
    return getattr(description, "plain", None) or str(description or "")
