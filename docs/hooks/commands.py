"""The reference of the command line, made by cyclopts from the commands themselves."""

from __future__ import annotations

import re

from fullconv.cli.main import app

ROW = re.compile(r"^\* `([^`]+)`: ?(.*(?:\n {4}.*)*)$", re.MULTILINE)
REMARK = re.compile(r" ?(?:\*\[(\w+): (.*?)\]\*|\*\*\[required\]\*\*)(?= |$)", re.DOTALL)


def commands() -> str:
    """Every command with its arguments, options and defaults, in the order of `fullconv --help`."""
    text = app.generate_docs(heading_level=1)
    _, *parts = re.split(r"^## (?=fullconv )", text, flags=re.MULTILINE)
    by_name = {part.split()[1]: part for part in parts}
    order = sorted(by_name, key=lambda name: _key(name))
    everywhere = text.split("**Of every command**:")[1].split("\n## ")[0]
    head = f"{_table(everywhere)}\n\nOf every command; `--help` too.\n\n"
    return head + "\n".join(_command(by_name[name]) for name in order)


def _key(name: str) -> tuple[int, str]:
    return app[name].sort_key or 0, name  # type: ignore[return-value]


def _command(part: str) -> str:
    part = part.split("**Of every command**:")[0]
    head, *groups = re.split(r"^\*\*(?:Arguments|Parameters)\*\*:\n", part, flags=re.MULTILINE)
    head = head.replace("```console", "```text").replace(" [ARGS]", "")
    # cyclopts puts how it was started itself between the two: python -m mkdocs.
    head = re.sub(r"^(fullconv \w+) .*?\[OPTIONS\]", r"\1 [OPTIONS]", head, flags=re.MULTILINE)
    rows = "\n".join(groups)
    return f"## {head.strip()}\n\n{_table(rows)}\n"


def _table(text: str) -> str:
    lines = ["| | | default |", "|---|---|---|"]
    for names, rest in ROW.findall(text):
        remarks = {kind: said for kind, said in REMARK.findall(rest) if kind}
        what = " ".join(REMARK.sub("", rest).split())
        if "choices" in remarks:
            what += f" One of {remarks['choices']}."
        if "env" in remarks:
            what += f" Or the environment variable `{remarks['env']}`."
        default = "required" if "**[required]**" in rest else remarks.get("default", "")
        default = {"False": "off", "True": "on", '""': ""}.get(default, default)
        if default not in ("", "required", "off", "on"):
            default = f"`{default}`"
        names, what = (one.replace("|", "\\|") for one in (names, what))
        lines.append(f"| `{_named(names)}` | {what} | {default} |")
    return "\n".join(lines)


def _named(names: str) -> str:
    """DATA of "DATA, --data": a word needs no option before it."""
    first = names.split(",")[0]
    return first if first.isupper() and not first.startswith("-") else names
