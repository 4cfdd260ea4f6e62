"""Check source and documentation for the words that STYLE.md replaces.

    python tools/check_words.py [PATH ...]

Without arguments, it checks the source, docs, examples, benchmarks, recipes, tools and the
top-level pages. It prints each hit and exits with code 1 if there are any.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PATHS = ("*.md", "src/**/*.py", "src/**/*.html", "src/**/*.jinja", "src/**/templates/*.md",
         "docs/**/*.md", "docs/hooks/*.py", "examples/*", "benchmarks/*.py", "benchmarks/*.md",
         "recipes/*.toml", "tools/*.py", "mkdocs.yml")  # fmt: skip
SKIPPED = (
    "STYLE.md",
    "CHANGELOG.md",
    "tools/check_words.py",
    "docs/classifiers.md",
    "benchmarks/plot.py",
)

# Regular expression -> what to write instead. Words must be wrong in every sentence of ours.
WORDS = {
    r"pictures?": "image",
    r"colours?|coloured|grey|normalis\w+|recognis\w+|initialis\w+|labelled|neighbours?": "American",
    r"data sets?": "dataset",
    r"mend(?:s|ed|ing)?": "fix, repair",
    r"trunks?": "backbone",
    r"weighs?(?: the| a)? (?:loss|class)": "weight",
    r"so many(?:-th)?|so-many-th": "every N, N",
    r"with commas(?: between)?": "comma-separated",
    r"of one's own|of its own accord": "own",
    r"(?:lies|lie|stands?|sits?) (?:in|at|on|beside|there|where|below|behind)": "is, is stored",
    r"(?:is|are|was|were) (?:said|told)": "prints, reports",
    r"by (?:itself|themselves)": "automatically",
    r"the very": "exactly the",
    r"anew|nothing but|for elsewhere": "the plain sentence",
    r"(?:further|other) (?:heads?|inputs?)": "additional heads, extra inputs",
    r"magnif\w+": "resize",
    r"middle size": "median size",
    r"made dense": "convolutionalized",
    r"what is wanted|is wanted|are wanted": "target, needed",
    r"photos?(?= (?:is|of the data))": "image",
}
NAMES = {"found", "there", "told", "said", "made", "kept", "shown", "of", "one"}  # of variables
BAD_START = re.compile(r"(Of|What|Whether|As|How|Where) ")
# File -> the words that it needs: data formats have them.
ALLOWED = {
    "src/fullconv/core/metric_names.py": {"picture", "pictures"},  # keys of version 0.1
    "src/fullconv/data/layouts/pairing.py": {"pictures"},  # a name of folders with images
    "src/fullconv/inference/manifest.py": {"picture"},  # a key of version 0.1
    "src/fullconv/inference/video.py": {"labelled"},  # a key of `fullconv predict --json`
}
PATTERN = re.compile(
    "|".join(rf"(?P<w{k}>\b(?:{words})\b)" for k, words in enumerate(WORDS)), re.IGNORECASE
)


def words_in(text: str, first_line: int = 1) -> Iterator[tuple[int, str, str]]:
    """Yield (line, word, what to write instead). Code in backticks is exempt."""
    text = re.sub(r"`[^`\n]*`", lambda match: " " * len(match[0]), text)
    for match in PATTERN.finditer(text):
        line = first_line + text.count("\n", 0, match.start())
        better = list(WORDS.values())[int((match.lastgroup or "w0")[1:])]
        yield line, match[0], better


def hits_in_python(text: str, *, names: bool = True) -> Iterator[tuple[int, str, str]]:
    """Check comments, strings, docstrings and the names of variables and parameters."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (
            tokenize.COMMENT,
            tokenize.STRING,
            getattr(tokenize, "FSTRING_MIDDLE", -1),
        ):
            yield from words_in(token.string, token.start[0])
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
            line = getattr(node, "lineno", 1)
            if match := BAD_START.match(ast.get_docstring(node) or ""):
                yield line, f"docstring begins with {match[1]}", "a verb"
            yield from words_in(getattr(node, "name", "").replace("_", " "), line)
        if not names:
            continue
        if isinstance(node, ast.arg):
            name, line = node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name, line = node.id, node.lineno
        else:
            continue
        if name in NAMES:
            yield line, f"variable {name}", "the thing's noun"
        for part in name.split("_"):
            yield from words_in(part, line)


def main(arguments: list[str]) -> int:
    paths = [Path(word).resolve() for word in arguments]
    paths = paths or sorted({path for pattern in PATHS for path in ROOT.glob(pattern)})
    rooms: Counter[str] = Counter()
    for path in paths:
        name = path.relative_to(ROOT).as_posix()
        if name in SKIPPED or not path.is_file() or ".zh-CN." in name or name.startswith("docs/zh"):
            continue
        text = path.read_text(encoding="utf-8")
        text = re.sub(
            r"^(```|~~~).*?^\1", lambda m: "\n" * m[0].count("\n"), text, flags=re.M | re.S
        )
        hits = list(
            hits_in_python(text, names=not name.startswith("benchmarks"))
            if path.suffix == ".py"
            else words_in(text)
        )
        hits = [hit for hit in hits if hit[1].lower() not in ALLOWED.get(name, ())]
        for line, word, better in hits:
            print(f"{name}:{line}: {word!r}; write: {better}")
        rooms["/".join(name.split("/")[: 3 if name.startswith("src") else 1])] += len(hits)
    print(
        ", ".join(f"{room}: {count}" for room, count in sorted(rooms.items()) if count) or "clean"
    )
    return int(bool(sum(rooms.values())))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
