"""The documentation: its blocks run, its links work, and the site builds without a warning."""

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
    EXPORTED,
    NOT_RUN,
    PAGES,
    REPLACED,
    ROOT,
    WALKTHROUGH,
    Block,
    arguments,
    blocks_of,
    furnish,
    is_known,
    python_of,
    text_of,
)
from PIL import Image
from pymdownx.slugs import slugify
from scripts import script

import fullconv
from fullconv.cli.main import app, run
from fullconv.core.config_file import read_config
from fullconv.core.labels import parse_color
from fullconv.core.settings import Settings
from fullconv.data.download.registry import SOURCES
from fullconv.data.layouts.class_table import read_labels
from fullconv.data.layouts.settings_file import read_settings
from fullconv.network.backbone_card import read_card

ENGLISH = [page for page in PAGES if page not in CHINESE and page not in WALKTHROUGH]
TOML_BLOCKS = [b for page in ENGLISH for b in blocks_of(page) if b.language == "toml"]
RUNNABLE = [page for page in ENGLISH if {b.language for b in blocks_of(page)} & {"sh", "python"}]
GENERATED_FOLDERS = {"converted", "repaired", "tiles"}  # commands on a page create them
README_RESULTS = (
    "check.png", "street.png", "exported/model.onnx", "runs/first/report.html",
    "predictions/street_0000_mask.png", "predictions/street_0001_overlay.jpg",
)  # fmt: skip
executed = {EXPORTED}  # commands run once, except those that use a folder of their page


def hook(name: str) -> Any:
    return script(f"docs/hooks/{name}.py", f"docs_{name}")


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnish(tmp_path_factory.mktemp("documented"))


# Blocks


def test_every_block_is_of_a_known_kind() -> None:
    blocks = [block for page in PAGES for block in blocks_of(page)]
    assert {block.language for block in blocks} <= {"sh", "python", "toml", "text"}
    commands = [c for block in blocks if block.language == "sh" for c in block.commands]
    assert [command for command in commands if not is_known(command)] == []
    assert not is_known("fulconv check data")
    for page in PAGES:  # an indented block would not run
        assert not re.search(r"\n\n {4}(fullconv check|import|from) ", text_of(page)), page


def test_the_tables_of_exceptions_have_no_unused_entries() -> None:
    blocks = [block for page in ENGLISH for block in blocks_of(page)]
    commands = {c for block in blocks if block.language == "sh" for c in block.commands}
    assert {*NOT_RUN, *ADDED} - commands == set()
    python = "".join(block.text for block in blocks if block.language == "python")
    assert [old for old in REPLACED if old not in python] == []


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE)
def test_the_blocks_of_a_page_run_in_order(
    page: str,
    furnished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # blocks change it
    monkeypatch.chdir(shutil.copytree(furnished, tmp_path / "folder"))
    for block in blocks_of(page):
        if block.language == "python":
            exec(compile(python_of(block.text), page, "exec"), {"__name__": "__main__"})
        if block.language == "sh":
            run_block(block, capfd)
    if page == "README.md":
        assert [name for name in README_RESULTS if not Path(name).is_file()] == []


def run_block(block: Block, capfd: pytest.CaptureFixture[str]) -> None:
    for line in block.text.splitlines():
        command = " ".join(Block(block.page, "sh", line).commands)
        local = GENERATED_FOLDERS & set(command.split())
        if not command or command in NOT_RUN or (command in executed and not local):
            continue
        words = arguments(line)
        if words[0] == "train" and "--out" in words:  # replaces the furnished run
            shutil.rmtree(words[words.index("--out") + 1], ignore_errors=True)
        code = run(words)
        printed = capfd.readouterr()
        assert code == 0, f"{command}\n{printed.out}{printed.err}"
        executed.add(command)


@pytest.mark.slow
def test_a_failing_command_fails_the_test(
    furnished: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(furnished)
    with pytest.raises(AssertionError, match="nowhere"):
        run_block(Block("page.md", "sh", "fullconv check nowhere\n"), capfd)


@pytest.mark.parametrize("block", TOML_BLOCKS, ids=lambda block: block.page)
def test_a_toml_block_is_read_by_the_function_that_reads_such_files(
    block: Block, tmp_path: Path
) -> None:
    table = tomllib.loads(block.text)
    path = tmp_path / "file.toml"
    path.write_text(block.text, encoding="utf-8")
    if "source" in table:
        (tmp_path / table["weights"]).touch()
        assert read_card(path).name == table["name"]
    elif "train" in table:
        settings = Settings.from_dict(read_config(path)["train"])
        assert settings.backbone == table["train"]["backbone"]
    else:
        path.rename(tmp_path / "dataset.toml")
        labels = read_labels(tmp_path, read_settings(tmp_path), [])[0]
        assert list(labels.names) == table["classes"]
        for value, name in table["map"].items():
            key = parse_color(value) if value.startswith("#") else int(value)
            assert labels.class_of(key) == labels.index(name)


@pytest.mark.parametrize("page", sorted(CHINESE - WALKTHROUGH - {"docs/zh/index.md"}))
def test_a_chinese_page_has_the_blocks_of_the_english_one(page: str) -> None:
    english = page.replace("docs/zh/", "docs/").replace(".zh-CN", "")
    chinese_blocks, english_blocks = (
        [(b.language, without_comments(b)) for b in blocks_of(name) if b.language != "text"]
        for name in (page, english)
    )
    assert chinese_blocks == english_blocks


def without_comments(block: Block) -> list[str]:
    if block.language == "sh":
        return block.commands
    lines = [re.sub(r"(^|\s+)#(?![0-9a-f]{6}).*| *$", "", line) for line in block.text.splitlines()]
    return [line for line in lines if line]


def test_dataset_names_in_commands_are_known() -> None:
    commands = [c.split() for p in ENGLISH for b in blocks_of(p) for c in b.commands]
    names = {c[2] for c in commands if c[:2] == ["fullconv", "train"] and c[2].isalnum()}
    assert names - {"data"} - GENERATED_FOLDERS <= set(SOURCES)


# Links


@pytest.mark.parametrize(
    "page", [*PAGES, "CONTRIBUTING.md", "STYLE.md", "CHANGELOG.md", "benchmarks/README.md"]
)
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    for link in links_of(text_of(page)):
        parts = urlsplit(link)
        if parts.scheme:
            assert parts.scheme == "https" or parts.hostname in ("localhost", "127.0.0.1"), link
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
    """Return the anchors of a page's headings, as the site and the repository's host make them."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ +(.*?)\s*$", text, re.MULTILINE)
    return {slugify(case="lower")(heading.replace("`", ""), "-") for heading in headings}


def test_links_and_anchors_are_found() -> None:
    assert "choose-the-output-types---save" in anchors_of("## Choose the output types: `--save`\n")
    page = "[a](b.md#c) `[no](x)` ![d](e.png)\n```sh\n[f](g)\n```\n"
    assert links_of(page) == ["b.md#c", "e.png"]


# Generated parts


def test_drawings_are_up_to_date() -> None:
    drawings = hook("drawings")
    for name, draw in drawings.DRAWINGS.items():
        path = drawings.FOLDER / f"{name}.svg"
        assert path.read_text(encoding="utf-8") == draw().svg(), "python docs/hooks/drawings.py"
    # The cells of a ResNet over a row of 97 pixels, by the definition of its layers.
    grid, count = drawings.grids_of("resnet18", 97)[32]
    assert [grid.center(cell) for cell in range(count)] == [0, 32, 64, 96]
    assert list(drawings.assumed_positions(97, 4)) == [11.625, 35.875, 60.125, 84.375]


def test_the_definitions_that_the_paper_page_names_exist() -> None:
    paper = hook("paper")
    symbols = paper.SYMBOL.findall(text_of("docs/explanation/paper.md"))
    assert len(symbols) > 30
    for path, name in symbols:
        lines = (ROOT / "src/fullconv" / path).read_text(encoding="utf-8").splitlines()
        line = lines[paper.line_of(path, name) - 1]
        assert name.split(".")[-1] in line or line.strip().startswith("@"), (path, name, line)
    with pytest.raises(LookupError, match=r"evaluation/metrics.py has no Metrics.kappa"):
        paper.line_of("evaluation/metrics.py", "Metrics.kappa")


def test_the_files_that_the_architecture_page_names_exist() -> None:
    text = text_of("docs/explanation/architecture.md")
    files = hook("paper").FILE.findall(text)
    assert len(files) > 20
    root = ROOT / "src/fullconv"
    assert [path for path in files if not (root / path).is_file()] == []
    packages = {path.name for path in root.iterdir() if any(path.glob("*.py"))}
    assert {name for name in packages if f"| `{name}/` |" not in text} == set()


def test_every_public_name_is_in_the_reference() -> None:
    text = text_of("docs/reference/python.md")
    names = set(re.findall(r"^::: fullconv\.(\w+)", text, re.MULTILINE))
    assert set(fullconv.__all__) - {"__version__"} <= names


def test_commands_escape_what_html_would_swallow() -> None:
    text = hook("commands").commands()
    assert "&#60;date&#62;" in text
    cells = re.sub(r"`[^`]*`", "", "".join(re.findall(r"^\|.*", text, re.MULTILINE)))
    assert not re.search(r"[<>]", cells)


# The site


class Page(HTMLParser):
    """The links, resources, anchors and words of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.resources: list[str] = []
        self.anchors: set[str] = set()
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in ("script", "img", "iframe", "source") and "src" in values:
            self.resources.append(values["src"])
        if tag == "link" and "stylesheet" in values.get("rel", ""):
            self.resources.append(values["href"])

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    """Build the site as `make docs` does."""
    folder = tmp_path_factory.mktemp("site")
    build = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert build.returncode == 0, build.stderr
    assert "WARNING" not in build.stderr
    return {path: Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}


@pytest.mark.slow
def test_every_link_of_the_site_leads_somewhere(site: dict[Path, Page]) -> None:
    dead = []
    for path, page in site.items():
        if path.name == "404.html":  # its links start at the root of a server
            continue
        for link in page.links:
            parts = urlsplit(unquote(link))
            if parts.scheme:
                continue
            target = (path.parent / parts.path).resolve() if parts.path else path
            anchors = site[target].anchors if target in site else set()
            if not target.is_file() or (
                parts.fragment and target in site and parts.fragment not in anchors
            ):
                dead.append(f"{path.name}: {link}")
    assert dead == []
    assert len(site) > 100


@pytest.mark.slow
def test_the_site_loads_nothing_from_other_servers(site: dict[Path, Page]) -> None:
    for path, page in site.items():
        for resource in page.resources:
            assert not urlsplit(resource).scheme, f"{path.name} loads {resource}"
            assert not resource.startswith("//")
            assert path.name == "404.html" or (path.parent / resource).resolve().is_file(), resource


@pytest.mark.slow
def test_the_command_reference_has_every_option_of_the_help(
    site: dict[Path, Page], capsys: pytest.CaptureFixture[str]
) -> None:
    (page,) = (page for path, page in site.items() if path.name == "commands.html")
    options = set(re.findall(r"--[a-z][\w-]*", " ".join(page.words)))
    names = [name for name in app if not name.startswith("-")]
    assert len(names) > 10
    for name in names:
        assert f"fullconv-{name}" in page.anchors
        assert run([name, "--help"]) == 0
        expected = set(re.findall(r"--[a-z][\w-]*", capsys.readouterr().out))
        # DATA may be typed as --data, which the reference leaves out.
        missing = {option for option in expected - options if option[2:].upper() not in page.words}
        assert missing == set(), name


@pytest.mark.slow
def test_the_file_reference_has_every_key(site: dict[Path, Page]) -> None:
    (page,) = (p for path, p in site.items() if path.parts[-2:] == ("reference", "files.html"))
    keys = {*Settings().to_dict(), "crop", "classes", "ignore_index", "pretrained_on"}
    assert keys <= set(page.words)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("query", "title"), [("receptive field", "How Fullconv works"), ("跳跃连接", "术语")]
)
def test_the_search_works_on_pages_opened_from_disk(
    site: dict[Path, Page], query: str, title: str
) -> None:
    start = next(path for path in site if path.name == "start.html" and path.parent.name != "zh")
    with chromium() as browser:
        page = browser.new_page()
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(start.as_uri())
        field = page.get_by_role("textbox", name="Search")
        field.click()
        field.fill(query)
        field.press("End")
        result = page.locator(".md-search-result__item", has_text=title)
        result.first.wait_for(state="attached", timeout=60_000)
        page.close()
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.mark.slow
def test_pages_state_their_language(site: dict[Path, Page]) -> None:
    for path in site:
        chinese = path.parts[-2] == "zh" or path.parent.parent.name == "zh" or ".zh-CN" in path.name
        match = re.search(r'<html lang="(\w+)"', path.read_text(encoding="utf-8"))
        assert match is not None
        assert match[1] == ("zh" if chinese else "en"), path
