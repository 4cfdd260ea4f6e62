"""What the site has beyond the pages of docs/: files that they link to, parts made of the source.

A link that leaves docs/ (../src/fullconv/inference/tiling.py) leads to a copy below files/: source and tables
as pages with numbered lines, all else as it is. `<!-- made: NAME -->` stands where a part is put
that is made from the source when the site is built, so that it cannot be out of date.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import commands
import paper
import source
import tables
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
MADE = {"commands": commands.commands, "source": source.source, **tables.MADE}
SHOWN = {".py": "python", ".toml": "toml", ".md": "", ".cpp": "cpp", ".inc": "cpp"}
LINK = re.compile(r"(?<=\]\()([^()\s#]+)(#[^()\s]+)?(?=\))")
EXTRA = ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")  # in the navigation


def on_files(files: Files, config: Any) -> Files:
    """Adds the files outside docs/ that pages link to, and those that these link to."""
    texts = {f"docs/{f.src_uri}": f.content_string for f in files.documentation_pages()}
    todo = {*EXTRA, *(path.relative_to(ROOT).as_posix() for path in source.files())}
    for path, text in texts.items():
        todo |= outside(path, text)
    done: set[str] = set()
    while todo - done:
        path = (todo - done).pop()
        done.add(path)
        made = _file(path, config)
        files.append(made)
        if made.is_documentation_page() and path.endswith(".md"):
            todo |= outside(path, (ROOT / path).read_text(encoding="utf-8"))
        if (ROOT / path).is_dir():
            todo |= {f"{path}/{one.name}" for one in _listed(ROOT / path)}
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """The page with its made parts, and with links that lead to the copies."""
    uri = page.file.src_uri
    markdown = re.sub(r"<!-- made: (\w+) -->", lambda found: MADE[found[1]](), markdown)
    if uri == "explanation/paper.md":
        markdown = paper.linked(markdown)
    if uri.startswith("files/") and SHOWN.get(Path(uri).with_suffix("").suffix):
        return markdown  # source, not text
    path = uri.removeprefix("files/") if uri.startswith("files/") else f"docs/{uri}"
    return LINK.sub(lambda found: relinked(path, uri, found), markdown)


def on_page_context(context: Any, *, page: Any, config: Any, **_: Any) -> Any:
    """Menus are in the language of the page, and the choice of a language leads to the same page in
    the other one, where there is one."""
    uri = page.file.src_uri
    config.theme["language"] = "zh" if uri.startswith("zh/") or ".zh-CN." in uri else "en"
    for one in config.extra["alternate"]:
        there = _in_language(uri, one["lang"])
        known = there and (Path(config.docs_dir) / there).is_file()
        start = "zh/index.md" if one["lang"] == "zh" else "index.md"
        one["link"] = (there if known else start).removesuffix(".md") + ".html"
    return context


def _in_language(uri: str, language: str) -> str:
    """howto/cpu.md of zh/howto/cpu.md and back, walkthrough.zh-CN.md of walkthrough.md."""
    bare = uri.removeprefix("zh/").replace(".zh-CN.", ".")
    if language == "en":
        return bare
    beside = bare.replace(".md", ".zh-CN.md")
    return beside if bare == "walkthrough.md" else f"zh/{bare}"


def target_of(path: str, link: str) -> str | None:
    """Where a link in a file of the repository leads, from its root; None where not to a file."""
    if ":" in link or link.startswith("/"):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))


def outside(path: str, text: str) -> set[str]:
    """The files outside docs/ that a page links to."""
    targets = {target_of(path, found[1]) for found in LINK.finditer(text)}
    there = {one for one in targets if one and not one.startswith(("docs/", ".."))}
    return {one for one in there if (ROOT / one).exists()}


def relinked(path: str, uri: str, found: re.Match[str]) -> str:
    """A link of a page as it must be on the site, where the page lies at `uri`."""
    link, anchor = found[1], found[2] or ""
    target = target_of(path, link)
    if target is None or not (ROOT / target).exists():
        return found[0]
    inside = target.startswith("docs/")
    wanted = target.removeprefix("docs/") if inside else uri_of(target)
    return posixpath.relpath(wanted, posixpath.dirname(uri) or ".") + anchor


def uri_of(path: str) -> str:
    """Where the copy of a file of the repository lies on the site."""
    if (ROOT / path).is_dir():
        return f"files/{path}/index.md"
    if path.endswith(".md"):
        return f"files/{path}"
    return f"files/{path}.md" if Path(path).suffix in SHOWN else f"files/{path}"


def _file(path: str, config: Any) -> File:
    whole, uri = ROOT / path, uri_of(path)
    if whole.is_dir():
        rows = "\n".join(f"- [{one.name}]({one.name})" for one in _listed(whole))
        text = f"---\nsearch: {{exclude: true}}\n---\n# {path}/\n\n{rows}\n"
    elif uri == f"files/{path}":
        return File.generated(config, uri, abs_src_path=str(whole))
    else:
        code = whole.read_text(encoding="utf-8").rstrip("\n")
        kind = SHOWN[whole.suffix]
        head = f"---\nsearch: {{exclude: true}}\nhide: [toc]\n---\n# {path}\n\n"
        text = f'{head}~~~~~~ {{ .{kind} linenums="1" }}\n{code}\n~~~~~~\n'
    return File.generated(config, uri, content=text)


def _listed(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.is_file() and one.name[0] != ".")
