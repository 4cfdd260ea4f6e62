"""The recorded terminal session at the head of README.md, and what records it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image
from scripts import script

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
SVG = "{http://www.w3.org/2000/svg}"


maker = script("examples/images.py", "images_maker")


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_a_session_holds_what_was_typed_and_what_came(tmp_path: Path) -> None:
    lines = maker.record(("fullconv --version", "fullconv train --help"), tmp_path)
    typed = [line.text for line in lines if line.typed]
    assert typed == ["$ fullconv --version", "$ fullconv train --help"]
    assert re.fullmatch(r"\d+\.\d+.*", lines[1].text)
    seconds = [line.seconds for line in lines]
    assert seconds == sorted(seconds)
    assert all(len(line.text) <= maker.COLUMNS for line in lines)
    drawing = maker.svg(lines)
    assert texts(drawing) == [line.text for line in lines if line.text]
    frames = [float(at) for at in re.findall(r"^([\d.]+)% {", drawing, re.MULTILINE)]
    assert frames[0] == 0
    assert frames == sorted(set(frames))
    assert frames[-1] < 100


def test_a_command_that_fails_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"\$ fullconv check nothing\n(?s:.*)try: "):
        maker.record(("fullconv check nothing",), tmp_path)


def test_a_long_line_goes_on_below_and_what_xml_means_stands_as_it_is() -> None:
    text = "<a> & " * 40
    assert "".join(maker.wrapped(text)) == text
    assert maker.wrapped("") == [""]
    lines = [maker.Line(part, 0.0) for part in maker.wrapped(text)]
    assert "".join(texts(maker.svg(lines))) == text


def test_the_session_in_the_repository_is_of_these_commands() -> None:
    drawing = (IMAGES / "terminal.svg").read_text(encoding="utf-8")
    title = ElementTree.fromstring(drawing).find(f"{SVG}title")
    assert title is not None
    assert title.text == f"A terminal session: {'; '.join(maker.SESSION)}"
    assert all(shlex.split(line)[0] == "fullconv" for line in maker.SESSION)
    assert "http" not in drawing.replace("http://www.w3.org/2000/svg", "")  # nothing is fetched
    assert len(drawing) < 60_000
    with Image.open(IMAGES / "report.png") as report:
        assert report.size == maker.SHOWN
