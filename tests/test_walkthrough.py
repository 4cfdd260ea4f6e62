"""The walkthrough: its notebooks run, and the notebooks and pages of both languages agree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from scripts import script

ROOT = Path(__file__).parents[1]
NAMES = ("walkthrough", "walkthrough.zh-CN")
FENCE = re.compile(r"^```(\w+)\n(.*?)\n```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?)\[[^\]]*\]\(([^)]+)\)")
maker = script("examples/walkthrough.py", "walkthrough_maker")


def cells(name: str, kind: str) -> list[str]:
    return [cell.source for cell in maker.notebook(name).cells if cell.cell_type == kind]


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


def headings(text: str) -> list[tuple[str, str]]:
    """Return the level and the leading number of each heading."""
    return re.findall(r"^(#+) (\d*)", FENCE.sub("", text), re.MULTILINE)


@pytest.mark.slow
def test_a_notebook_runs_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the English notebook on few small scenes. The Chinese one has equal code."""
    executed = maker.notebook(NAMES[0])
    monkeypatch.setenv("FULLCONV_WALKTHROUGH", "quick")
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    maker.execute(executed, seconds=240)
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        for output in cell.outputs:
            assert output.output_type in ("stream", "display_data")
            assert output.get("name") != "stderr", output.text
        images = sum("data" in output for output in cell.outputs)
        assert images == ("figure" in cell.metadata)  # each figure has a name
    figures = maker.figures(executed)
    assert len(figures) >= 10
    assert all(len(figure.getcolors()) > 10 for figure in figures.values())  # none is blank
    for name in NAMES:
        text = maker.page(maker.notebook(name), executed, "> head", name)
        assert FENCE.findall(text)[0] == ("python", code[0].source)
        assert "FCN-32s   FCN-16s    FCN-8s" in text


def test_both_languages_have_the_same_code_and_figures() -> None:
    assert cells(NAMES[0], "code") == cells(NAMES[1], "code")
    english, chinese = ([cell.metadata for cell in maker.notebook(n).cells] for n in NAMES)
    for ours, theirs in zip(english, chinese, strict=True):
        assert ours.get("figure") == theirs.get("figure")
        assert bool(ours.get("alt")) == bool(theirs.get("alt")) == ("figure" in ours)


def test_headings_and_paragraphs_of_both_languages_correspond() -> None:
    english, chinese = (cells(name, "markdown") for name in NAMES)
    assert [headings(text) for text in english] == [headings(text) for text in chinese]
    assert [text.count("\n\n") for text in english] == [text.count("\n\n") for text in chinese]
    assert all(re.search(r"[\u4e00-\u9fff]", text) for text in chinese)
    numbers = [number for text in english for _, number in headings(text) if number]
    assert numbers == [str(k + 1) for k in range(len(numbers))]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_no_outputs(name: str) -> None:
    for cell in maker.notebook(name).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_the_notebook_with_its_output(name: str) -> None:
    text = page(name)
    fences = FENCE.findall(text)
    assert [code for kind, code in fences if kind == "python"] == cells(name, "code")
    assert {kind for kind, _ in fences} == {"python", "text"}
    first, *rest = cells(name, "markdown")
    title, _, body = first.partition("\n")
    assert text.startswith(f"{title}\n\n> ")
    position = 0
    for paragraph in (body.strip(), *rest):
        paragraph = paragraph.replace(".ipynb)", ".md)")
        assert paragraph in text[position:], paragraph
        position = text.index(paragraph, position)


def test_both_pages_print_the_same() -> None:
    english, chinese = (FENCE.findall(page(name)) for name in NAMES)
    assert english == chinese
    assert sum(kind == "text" for kind, _ in english) > 8


@pytest.mark.parametrize("name", NAMES)
def test_the_links_and_figures_of_a_page_exist(name: str) -> None:
    links = LINK.findall(FENCE.sub("", page(name)))
    assert [target for _, target in links if not (ROOT / "docs" / target).is_file()] == []
    folder = ROOT / "docs" / "walkthrough"
    images = sorted(target for mark, target in links if mark)
    assert images == sorted(f"walkthrough/{path.name}" for path in folder.iterdir())
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1_500_000
    notebook_links = [link for _, link in LINK.findall("\n".join(cells(name, "markdown")))]
    assert notebook_links
    assert [link for link in notebook_links if not (ROOT / "examples" / link).is_file()] == []
