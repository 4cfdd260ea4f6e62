"""The walkthrough runs from top to bottom, and its four texts never drift apart."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from scripts import script

ROOT = Path(__file__).parents[1]
MAKER = ROOT / "examples" / "walkthrough.py"
NAMES = ("walkthrough", "walkthrough.zh-CN")
FENCE = re.compile(r"^```(\w+)\n(.*?)\n```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?)\[[^\]]*\]\(([^)]+)\)")


maker = script("examples/walkthrough.py", "walkthrough_maker")


def cells(name: str, kind: str) -> list[str]:
    return [cell.source for cell in maker.notebook(name).cells if cell.cell_type == kind]


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


def headings(text: str) -> list[tuple[str, str]]:
    """Of Markdown without its code: the level, and the number in front of the words."""
    found = re.findall(r"^(#+) (\d*)", FENCE.sub("", text), re.MULTILINE)
    return [(level, number) for level, number in found]


@pytest.fixture(scope="module", params=NAMES)
def ran(request: pytest.FixtureRequest) -> tuple[str, Any]:
    """A notebook after a run of all cells on few and small scenes, and its name."""
    node = maker.notebook(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FULLCONV_WALKTHROUGH", "quick")
        patch.setenv("OMP_WAIT_POLICY", "PASSIVE")
        maker.execute(node, seconds=120)
    return request.param, node


def test_a_notebook_runs_from_top_to_bottom_without_a_warning(ran: tuple[str, Any]) -> None:
    name, node = ran
    code = [cell for cell in node.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        for output in cell.outputs:
            assert output.output_type in ("stream", "display_data")
            assert output.get("name") != "stderr", output.text
        shown = sum("data" in output for output in cell.outputs)
        assert shown == ("figure" in cell.metadata)  # each figure has a name and a place
    figures = maker.figures(node)
    assert len(figures) >= 10
    assert all(len(figure.getcolors()) > 10 for figure in figures.values())  # nothing is blank
    text = maker.page(maker.notebook(name), node, "> head", name)
    assert FENCE.findall(text)[0] == ("python", code[0].source)
    assert "FCN-32s   FCN-16s    FCN-8s" in text


def test_both_languages_hold_the_same_code() -> None:
    one, other = (cells(name, "code") for name in NAMES)
    assert one == other
    assert len(one) > 15
    metadata = [[dict(cell.metadata) for cell in maker.notebook(name).cells] for name in NAMES]
    for english, chinese in zip(*metadata, strict=True):
        assert english.get("figure") == chinese.get("figure")
        assert bool(english.get("alt")) == bool(chinese.get("alt")) == ("figure" in english)


def test_headings_and_paragraphs_correspond() -> None:
    one, other = (cells(name, "markdown") for name in NAMES)
    assert [headings(text) for text in one] == [headings(text) for text in other]
    assert [len(text.split("\n\n")) for text in one] == [len(text.split("\n\n")) for text in other]
    for english, chinese in zip(one, other, strict=True):
        assert re.search(r"[\u4e00-\u9fff]", chinese)
        assert chinese != english
    numbers = [number for text in one for _, number in headings(text) if number]
    assert numbers == [str(k + 1) for k in range(len(numbers))]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_holds_no_outputs(name: str) -> None:
    for cell in maker.notebook(name).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_the_notebook_with_what_it_printed(name: str) -> None:
    text = page(name)
    fences = FENCE.findall(text)
    assert [code for kind, code in fences if kind == "python"] == cells(name, "code")
    assert {kind for kind, _ in fences} == {"python", "text"}
    place = 0
    first, *rest = cells(name, "markdown")
    title, _, body = first.partition("\n")
    assert text.startswith(f"{title}\n\n> ")
    for words in (body.strip(), *rest):
        words = words.replace(".ipynb)", ".md)")
        assert words in text[place:], words
        place = text.index(words, place)
    assert "`python examples/walkthrough.py`" in text.split("\n")[2]
    assert 'DATA = "drawn"' in text.split("\n")[2]


def test_both_pages_print_the_same() -> None:
    one, other = (FENCE.findall(page(name)) for name in NAMES)
    assert one == other
    assert sum(kind == "text" for kind, _ in one) > 8


@pytest.mark.parametrize("name", NAMES)
def test_what_a_page_links_to_is_there(name: str) -> None:
    text = FENCE.sub("", page(name))
    links = LINK.findall(text)
    images = [target for mark, target in links if mark]
    for _, target in links:
        assert (ROOT / "docs" / target).is_file(), target
    folder = ROOT / "docs" / "walkthrough"
    assert sorted(images) == sorted(f"walkthrough/{path.name}" for path in folder.iterdir())
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1_500_000


@pytest.mark.parametrize("name", NAMES)
def test_what_a_notebook_links_to_is_there(name: str) -> None:
    links = [target for text in cells(name, "markdown") for _, target in LINK.findall(text)]
    assert links
    for target in links:
        assert (ROOT / "examples" / target).is_file(), target
