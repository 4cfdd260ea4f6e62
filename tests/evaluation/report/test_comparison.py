"""The page and the images of a comparison: whole, of one file, and safe whatever names say."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from evaluated import counted, matrices, written
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.evaluation.compare import Comparison, compare

NAMES = ("sky", "<b>road</b>", "$x_1$ & tree")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    root = tmp_path_factory.mktemp("runs")
    runs = [
        written(root / name, counted(matrices(30, right=r), classes=NAMES), epochs=6)
        for name, r in (("<i>a", 0.6), ("b$", 0.7), ("c", 0.71))
    ]
    return compare(*runs, resamples=200)


class Read(HTMLParser):
    """Tags, text and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("href", "src", "xlink:href", "data")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_is_one_file_and_shows_everything(found: Comparison, tmp_path: Path) -> None:
    path = found.save(tmp_path / "new folder" / "compare.html")
    text = path.read_text(encoding="utf-8")
    read = Read(text)
    words = " ".join(read.words)
    for said in (*NAMES, "<i>a", "b$", "b$ against <i>a", "training loss", "mean IoU, validation"):
        assert said in words, said
    assert {"b", "i", "script", "link", "iframe"}.isdisjoint(read.tags)
    assert all(link.startswith(("#", "data:")) for link in read.links)
    assert not re.search(r"url\((?!#)", text)
    assert read.tags.count("table") == 1 + 2 * 2
    assert path.stat().st_size < 300_000


def test_a_notebook_gets_the_same_without_a_page_around_it(found: Comparison) -> None:
    text = found._repr_html_()
    read = Read(text)
    assert "html" not in read.tags
    assert "<b>road</b>" in " ".join(read.words)
    assert "currentColor" in text


def test_images(found: Comparison, tmp_path: Path) -> None:
    with Image.open(found.save(tmp_path / "c.png")) as image:
        assert image.format == "PNG"
        assert image.width > 900
        assert image.getpixel((2, 2))[:3] == (255, 255, 255)
        assert len(image.convert("RGB").getcolors(1 << 20) or []) > 10
    text = found.save(tmp_path / "c.svg").read_text(encoding="utf-8")
    assert "&lt;b&gt;road&lt;/b&gt;" in text
    assert "$x_1$ &amp; tree" in text
    assert found.save(tmp_path / "d.svg").read_text(encoding="utf-8") == text


def test_runs_without_a_log(tmp_path: Path) -> None:
    files = [
        counted(matrices(30, right=r)).save(tmp_path / f"{name}.npz")
        for name, r in (("a", 0.6), ("b", 0.7))
    ]
    found = compare(*files, resamples=100)
    assert "training loss" not in found.save(tmp_path / "c.html").read_text(encoding="utf-8")
    assert Image.open(io.BytesIO(found.save(tmp_path / "c.png").read_bytes())).height > 100


def test_what_cannot_be_written(found: Comparison, tmp_path: Path) -> None:
    with pytest.raises(FullconvError) as caught:
        found.save(tmp_path / "c.pdf")
    assert caught.value.message == ("a comparison is written as .html, .png, .svg, not as 'c.pdf'.")
    assert caught.value.hint == "--out compare.html"
    (tmp_path / "c.html").mkdir()
    with pytest.raises(FullconvError, match=r"could not be written to .*c.html: Is a directory"):
        found.save(tmp_path / "c.html")
