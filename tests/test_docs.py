"""The documentation: every block of its pages runs, every link leads somewhere, the site is built
without a warning and needs nothing from elsewhere, and the Chinese pages show the same commands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from browser import chromium
from documented import (
    ADDED,
    CHINESE,
    FURNISHED,
    NOT_RUN,
    PAGES,
    REPLACED,
    ROOT,
    WALKTHROUGH,
    Block,
    blocks_of,
    furnish,
    known,
    python_of,
    text_of,
    typed,
)
from PIL import Image
from pymdownx.slugs import slugify
from scripts import script

import fullconv
from fullconv.cli.main import app, run
from fullconv.core.labels import parse_color
from fullconv.core.settings import Settings, read_config
from fullconv.data.download.registry import SOURCES
from fullconv.data.layouts import class_table as tables
from fullconv.network.backbone_card import read_card

ENGLISH = [page for page in PAGES if page not in CHINESE and page not in WALKTHROUGH]
MADE = {"converted", "repaired", "tiles"}  # folders that a page makes of data
DONE = set(FURNISHED)  # and commands that ran on an earlier page; README.md is the first
TOMLS = [block for page in ENGLISH for block in blocks_of(page) if block.language == "toml"]
RUNNING = [page for page in ENGLISH if {b.language for b in blocks_of(page)} & {"sh", "python"}]
LEFT = (  # what somebody has who typed all that stands in README.md
    "check.png", "heatmap.png", "street.png", "exported/model.onnx", "converted/dataset.toml",
    "predictions/street_0000_mask.png", "predictions/street_0001_overlay.jpg",
    "predictions/drive_mask.mkv", "predictions/drive_overlay.mp4", "predictions/drive_legend.png",
)  # fmt: skip


def hook(name: str) -> Any:
    """A module of docs/hooks."""
    return script(f"docs/hooks/{name}.py", f"docs_{name}")


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnish(tmp_path_factory.mktemp("documented"))


def test_every_block_is_of_a_known_kind() -> None:
    blocks = [block for page in PAGES for block in blocks_of(page)]
    assert {block.language for block in blocks} <= {"sh", "python", "toml", "text"}
    shown = [command for block in blocks if block.language == "sh" for command in block.commands]
    assert [command for command in shown if not known(command)] == []
    assert not known("fulconv check data")
    assert not known("pip install fullconv")
    for page in PAGES:  # a block that is merely indented would not be run
        assert not re.search(r"\n\n {4}(fullconv|import|from) ", text_of(page)), page


def test_the_tables_hold_nothing_that_is_gone() -> None:
    blocks = [block for page in ENGLISH for block in blocks_of(page)]
    shown = {command for block in blocks if block.language == "sh" for command in block.commands}
    assert {*NOT_RUN, *ADDED} - shown == set()
    python = "".join(block.text for block in blocks if block.language == "python")
    assert [old for old in REPLACED if old not in python] == []


@pytest.mark.parametrize("page", RUNNING)
def test_the_blocks_of_a_page_run_one_after_the_other(
    page: str,
    furnished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # some blocks lift it
    monkeypatch.chdir(shutil.copytree(furnished, tmp_path / "place"))
    for block in blocks_of(page):
        if block.language == "python":
            exec(compile(python_of(block.text), page, "exec"), {"__name__": "__main__"})
        if block.language == "sh":
            _run(block, capfd)
    if page == "README.md":
        assert [name for name in LEFT if not Path(name).is_file()] == []


def _run(block: Block, capfd: pytest.CaptureFixture[str]) -> None:
    for line in block.text.splitlines():
        command = " ".join(block.__class__(block.page, "sh", line).commands)
        made_here = MADE & set(command.split())  # of what the page made before
        if not command or command in NOT_RUN or (command in DONE and not made_here):
            continue
        words = typed(line)
        if words[0] == "train" and "--out" in words:  # again, over what was furnished
            shutil.rmtree(words[words.index("--out") + 1], ignore_errors=True)
        code = run(words)
        said = capfd.readouterr()
        assert code == 0, f"{command}\n{said.out}{said.err}"
        DONE.add(command)


def test_a_command_that_fails_is_seen(
    furnished: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(furnished)
    with pytest.raises(AssertionError, match="no folder"):
        _run(Block("page.md", "sh", "fullconv check nowhere\n"), capfd)


@pytest.mark.parametrize("block", TOMLS, ids=lambda block: block.page)
def test_a_file_that_is_shown_is_read(block: Block, tmp_path: Path) -> None:
    """By the function that reads such a file: a card, a configuration or a table of classes."""
    table = tomllib.loads(block.text)
    if "source" in table:
        path = tmp_path / "card.toml"
        (tmp_path / table["weights"]).touch()
        path.write_text(block.text, encoding="utf-8")
        assert read_card(path).name == table["name"]
    elif "train" in table:
        path = tmp_path / "config.toml"
        path.write_text(block.text, encoding="utf-8")
        settings = Settings.from_dict(read_config(path)["train"])
        assert settings.backbone == table["train"]["backbone"]
    else:
        (tmp_path / "dataset.toml").write_text(block.text, encoding="utf-8")
        labels, named, *_ = tables.read_labels(tmp_path, tables.read_settings(tmp_path), [])
        assert named
        assert list(labels.names) == table["classes"]
        for value, name in table["map"].items():
            read = parse_color(value) if value.startswith("#") else int(value)
            assert labels.class_of(read) == labels.index(name)


@pytest.mark.parametrize("page", sorted(CHINESE - WALKTHROUGH))
def test_a_chinese_page_shows_the_commands_of_the_english_one(page: str) -> None:
    english = page.replace("docs/zh/", "docs/").replace(".zh-CN", "")
    if page == "docs/zh/index.md":
        assert blocks_of(page) == []
        return
    ours, theirs = (
        [(block.language, _bare(block)) for block in blocks_of(one) if block.language != "text"]
        for one in (page, english)
    )
    assert ours == theirs


def _bare(block: Block) -> list[str]:
    """Without comments, which are translated."""
    if block.language == "sh":
        return block.commands
    lines = [re.sub(r"(^|\s+)#(?![0-9a-f]{6}).*| *$", "", line) for line in block.text.splitlines()]
    return [line for line in lines if line]


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", "benchmarks/README.md"])
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    for link in links_of(text_of(page)):
        parts = urlsplit(link)
        if parts.scheme:
            assert parts.scheme in ("https", "http"), link
            assert parts.scheme == "https" or parts.hostname in ("localhost", "127.0.0.1"), link
            assert parts.hostname
            assert "." in parts.hostname, link
            continue
        target = (ROOT / page).parent / parts.path if parts.path else ROOT / page
        assert target.exists(), f"{page}: {link}"
        if parts.fragment and target.suffix == ".md":
            anchors = anchors_of(target.read_text(encoding="utf-8"))
            assert parts.fragment in anchors, f"{page}: {link} of {sorted(anchors)}"


def links_of(text: str) -> list[str]:
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`\n]*`", "code", text)
    return re.findall(r"\]\(([^()\s]+)\)", text)


def anchors_of(text: str) -> set[str]:
    """What headings are called in links, on the site and where the repository is read."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ +(.*?)\s*$", text, re.MULTILINE)
    return {slugify(case="lower")(heading.replace("`", ""), "-") for heading in headings}


def test_anchors_are_those_of_the_site() -> None:
    assert "what-is-written---save" in anchors_of("## What is written: `--save`\n")
    assert links_of("[a](b.md#c) `[no](x)` ![d](e.png)\n```sh\n[f](g)\n```\n") == [
        "b.md#c", "e.png"
    ]  # fmt: skip


def test_drawings_are_what_the_grids_are_now() -> None:
    drawings = hook("drawings")
    for name, draw in drawings.DRAWINGS.items():
        path = drawings.FOLDER / f"{name}.svg"
        assert path.read_text(encoding="utf-8") == draw().svg(), "python docs/hooks/drawings.py"


def test_a_drawing_shows_the_cells_that_a_resnet_has() -> None:
    """At 0, 32, 64 and 96 of a row of 97 pixels, by the definition of its layers."""
    drawings = hook("drawings")
    grid, count = drawings.cells_of("resnet18", 97)[32]
    assert [grid.center(cell) for cell in range(count)] == [0, 32, 64, 96]
    assert list(drawings.interpolated(97, 4)) == [11.625, 35.875, 60.125, 84.375]


def test_what_the_page_about_the_paper_names_is_there() -> None:
    paper = hook("paper")
    text = text_of("docs/explanation/paper.md")
    found = paper.SYMBOL.findall(text)
    assert len(found) > 30
    for path, name in found:
        line = (
            (ROOT / "src/fullconv" / path)
            .read_text(encoding="utf-8")
            .splitlines()[paper.line_of(path, name) - 1]
        )
        assert name.split(".")[-1] in line or line.strip().startswith("@"), (path, name, line)
    with pytest.raises(
        LookupError, match=r"src/fullconv/evaluation/metrics.py has no Metrics.kappa"
    ):
        paper.line_of("metrics.py", "Metrics.kappa")


def test_every_public_name_is_in_the_reference() -> None:
    text = text_of("docs/reference/python.md")
    named = set(re.findall(r"^::: fullconv\.(\w+)", text, re.MULTILINE))
    assert set(fullconv.__all__) <= named


class Page(HTMLParser):
    """What a page links to, what it loads, what it can be linked at, and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in ("script", "img", "iframe", "source") and "src" in found:
            self.loads.append(found["src"])
        if tag == "link" and "stylesheet" in found.get("rel", ""):
            self.loads.append(found["href"])

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    """The site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return {path: Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}


def test_every_link_of_the_site_leads_somewhere(site: dict[Path, Page]) -> None:
    wrong = []
    for path, page in site.items():
        if path.name == "404.html":  # whose links are those of a server's root
            continue
        for link in page.links:
            parts = urlsplit(unquote(link))
            if parts.scheme or link.startswith("data:"):
                continue
            target = (path.parent / parts.path).resolve() if parts.path else path
            found = site.get(target)
            dead = not target.is_file() or (
                bool(parts.fragment) and found is not None and parts.fragment not in found.anchors
            )
            wrong += [f"{path.name}: {link}"] if dead else []
    assert wrong == []
    assert len(site) > 100


def test_the_site_loads_nothing_from_elsewhere(site: dict[Path, Page]) -> None:
    for path, page in site.items():
        for load in page.loads:
            assert not urlsplit(load).scheme, f"{path.name} loads {load}"
            assert not load.startswith("//")
            assert path.name == "404.html" or (path.parent / load).resolve().is_file(), load


def test_the_reference_of_commands_has_every_option_of_the_help(
    site: dict[Path, Page], capsys: pytest.CaptureFixture[str]
) -> None:
    (page,) = (page for path, page in site.items() if path.name == "commands.html")
    shown = set(re.findall(r"--[a-z][\w-]*", " ".join(page.words)))
    names = [name for name in app if not name.startswith("-")]
    assert len(names) > 10
    for name in names:
        assert f"fullconv-{name}" in page.anchors
        assert run([name, "--help"]) == 0
        wanted = set(re.findall(r"--[a-z][\w-]*", capsys.readouterr().out))
        # A word like DATA may be typed as --data, too.
        assert {one for one in wanted - shown if one[2:].upper() not in page.words} == set(), name


def test_the_reference_of_files_has_every_key(site: dict[Path, Page]) -> None:
    (page,) = (p for path, p in site.items() if path.parts[-2:] == ("reference", "files.html"))
    words = set(page.words)
    assert {*Settings().to_dict(), "crop", "classes", "ignore_index", "pretrained_on"} <= words


@pytest.mark.parametrize(
    ("asked", "wanted"), [("receptive field", "The one idea"), ("跳跃连接", "术语")]
)
def test_the_search_works_in_pages_that_are_opened_from_disk(
    site: dict[Path, Page], asked: str, wanted: str
) -> None:
    start = next(path for path in site if path.name == "start.html" and path.parent.name != "zh")
    with chromium() as browser:
        page = browser.new_page()
        requested: list[str] = []
        page.on("request", lambda request: requested.append(request.url))
        page.goto(start.as_uri())
        field = page.get_by_role("textbox", name="Search")
        field.click()
        field.fill(asked)
        field.press("End")
        found = page.locator(".md-search-result__item", has_text=wanted)
        found.first.wait_for(state="attached", timeout=60_000)
        page.close()
    assert [url for url in requested if not url.startswith(("file:", "data:", "blob:"))] == []


def test_chinese_pages_say_their_language(site: dict[Path, Page]) -> None:
    for path in site:
        chinese = path.parts[-2] == "zh" or path.parent.parent.name == "zh" or ".zh-CN" in path.name
        said = re.search(r'<html lang="(\w+)"', path.read_text(encoding="utf-8"))
        assert said is not None
        assert said[1] == ("zh" if chinese else "en"), path


def test_published_names_that_pages_use_are_known() -> None:
    shown = {
        words[2]
        for page in ENGLISH
        for block in blocks_of(page)
        if block.language == "sh"
        for words in map(str.split, block.commands)
        if words[:2] == ["fullconv", "train"] and words[2].isalnum()
    }
    assert shown - {"data"} - MADE <= set(SOURCES)
