"""The documentation: its blocks run, and its links work. tests/test_site.py builds the site."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
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
from fullconv.cli.main import run
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


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnish(tmp_path_factory.mktemp("documented"))


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


def test_a_failing_command_fails_the_test(capfd: pytest.CaptureFixture[str]) -> None:
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
