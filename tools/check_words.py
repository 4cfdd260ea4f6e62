"""Check source and documentation for the words that STYLE.md replaces.

    python tools/check_words.py [--src] [PATH ...]

Without arguments, it checks docs, examples, benchmarks, recipes and the top-level pages. `--src`
adds the source. It prints each hit and exits with code 1 if there are any.
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
PAGES = ("*.md", "docs/**/*.md", "docs/hooks/*.py", "examples/*", "benchmarks/*.py",
         "benchmarks/*.md", "recipes/*.toml", "tools/*.py", "mkdocs.yml")  # fmt: skip
SOURCE = ("src/**/*.py",)
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
MOST_PICTURES = 20  # in src: words in data formats of others
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
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
            docstring = ast.get_docstring(node) or ""
            if match := BAD_START.match(docstring):
                yield node.lineno, f"docstring begins with {match[1]}", "a verb"
            yield from words_in(node.name.replace("_", " "), node.lineno)
        name = node.arg if isinstance(node, ast.arg) else getattr(node, "id", "")
        bound = isinstance(node, ast.arg) or isinstance(getattr(node, "ctx", None), ast.Store)
        if names and bound and name in NAMES:
            yield node.lineno, f"variable {name}", "the thing's noun"


def main(arguments: list[str]) -> int:
    patterns = (*PAGES, *(SOURCE if "--src" in arguments else ()))
    paths = [Path(word).resolve() for word in arguments if word != "--src"]
    paths = paths or sorted({path for pattern in patterns for path in ROOT.glob(pattern)})
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
        for line, word, better in hits:
            print(f"{name}:{line}: {word!r}; write: {better}")
        rooms["/".join(name.split("/")[: 3 if name.startswith("src") else 1])] += len(hits)
    pictures = sum(p.read_text().lower().count("picture") for p in ROOT.glob("src/**/*.py"))
    if pictures > MOST_PICTURES:
        print(f"src has 'picture' {pictures} times; at most {MOST_PICTURES}")
    print(
        ", ".join(f"{room}: {count}" for room, count in sorted(rooms.items()) if count) or "clean"
    )
    return int(bool(sum(rooms.values())) or pictures > MOST_PICTURES)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
