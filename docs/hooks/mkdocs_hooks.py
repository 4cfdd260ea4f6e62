"""Hooks that add generated parts and files outside docs/ to the site.

A link that leaves docs/ (../src/fullconv/inference/tiling.py) leads to a copy below files/. Source
files and tables become pages with numbered lines; other files are copied unchanged.
`<!-- made: NAME -->` is replaced by a part that is generated from the source.
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
GENERATED = {"commands": commands.commands, "source": source.source, **tables.TABLES}
LANGUAGES = {".py": "python", ".toml": "toml", ".md": "", ".cpp": "cpp", ".inc": "cpp"}
LINK = re.compile(r"(?<=\]\()([^()\s#]+)(#[^()\s]+)?(?=\))")
IN_NAVIGATION = ("CONTRIBUTING.md", "CHANGELOG.md", "STYLE.md", "benchmarks/README.md")
LINKED_TO_SOURCE = ("explanation/paper.md", "explanation/architecture.md")


def on_files(files: Files, config: Any) -> Files:
    """Add the files outside docs/ that pages link to, and the files that these link to."""
    todo = {*IN_NAVIGATION, *(path.relative_to(ROOT).as_posix() for path in source.files())}
    for file in files.documentation_pages():
        todo |= outside_links(f"docs/{file.src_uri}", file.content_string)
    done: set[str] = set()
    while todo - done:
        path = (todo - done).pop()
        done.add(path)
        copy = _copy(path, config)
        files.append(copy)
        if copy.is_documentation_page() and path.endswith(".md"):
            todo |= outside_links(path, (ROOT / path).read_text(encoding="utf-8"))
        if (ROOT / path).is_dir():
            todo |= {f"{path}/{file.name}" for file in _files_in(ROOT / path)}
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Insert the generated parts, and redirect links to the copies."""
    uri = page.file.src_uri
    markdown = re.sub(r"<!-- made: (\w+) -->", lambda match: GENERATED[match[1]](), markdown)
    if uri in LINKED_TO_SOURCE:
        markdown = paper.with_links(markdown)
    if uri.startswith("files/") and LANGUAGES.get(Path(uri).with_suffix("").suffix):
        return markdown  # source code, not text
    path = uri.removeprefix("files/") if uri.startswith("files/") else f"docs/{uri}"
    return LINK.sub(lambda match: _redirect(path, uri, match), markdown)


def on_page_context(context: Any, *, page: Any, config: Any, **_: Any) -> Any:
    """Set the language of the menus, and link the language switch to the translated page."""
    uri = page.file.src_uri
    config.theme["language"] = "zh" if uri.startswith("zh/") or ".zh-CN." in uri else "en"
    for alternate in config.extra["alternate"]:
        target = _translation(uri, alternate["lang"])
        if not (Path(config.docs_dir) / target).is_file():
            target = "zh/index.md" if alternate["lang"] == "zh" else "index.md"
        alternate["link"] = target.removesuffix(".md") + ".html"
    return context


def _translation(uri: str, language: str) -> str:
    """Map howto/cpu.md to zh/howto/cpu.md and back, and likewise walkthrough.md."""
    english = uri.removeprefix("zh/").replace(".zh-CN.", ".")
    if language == "en":
        return english
    return "walkthrough.zh-CN.md" if english == "walkthrough.md" else f"zh/{english}"


def link_target(path: str, link: str) -> str | None:
    """Return the repository path that a link in the file `path` leads to, if it leads to a file."""
    if ":" in link or link.startswith("/"):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))


def outside_links(path: str, text: str) -> set[str]:
    """Return the files outside docs/ that a page links to."""
    targets = {link_target(path, match[1]) for match in LINK.finditer(text)}
    outside = {path for path in targets if path and not path.startswith(("docs/", ".."))}
    return {path for path in outside if (ROOT / path).exists()}


def _redirect(path: str, uri: str, match: re.Match[str]) -> str:
    """Return a link in the file `path` as the page at `uri` needs it."""
    link, anchor = match[1], match[2] or ""
    target = link_target(path, link)
    if target is None or not (ROOT / target).exists():
        return match[0]
    copy = target.removeprefix("docs/") if target.startswith("docs/") else copy_uri(target)
    return posixpath.relpath(copy, posixpath.dirname(uri) or ".") + anchor


def copy_uri(path: str) -> str:
    """Return where the site has the copy of a file of the repository."""
    if (ROOT / path).is_dir():
        return f"files/{path}/index.md"
    if path.endswith(".md"):
        return f"files/{path}"
    return f"files/{path}.md" if Path(path).suffix in LANGUAGES else f"files/{path}"


def _copy(path: str, config: Any) -> File:
    file, uri = ROOT / path, copy_uri(path)
    if file.is_dir():
        rows = "\n".join(f"- [{child.name}]({child.name})" for child in _files_in(file))
        text = f"---\nsearch: {{exclude: true}}\n---\n# {path}/\n\n{rows}\n"
    elif uri == f"files/{path}":
        return File.generated(config, uri, abs_src_path=str(file))
    else:
        code = file.read_text(encoding="utf-8").rstrip("\n")
        head = f"---\nsearch: {{exclude: true}}\nhide: [toc]\n---\n# {path}\n\n"
        text = f'{head}~~~~~~ {{ .{LANGUAGES[file.suffix]} linenums="1" }}\n{code}\n~~~~~~\n'
    return File.generated(config, uri, content=text)


def _files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
