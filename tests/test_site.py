"""The site of the documentation builds without a warning, its links work, and it is complete."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser import chromium
from documented import ROOT

from fullconv.cli.main import app, run
from fullconv.core.settings import Settings

pytestmark = pytest.mark.slow


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
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    build = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert build.returncode == 0, build.stderr
    assert "WARNING" not in build.stderr
    return {path: Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}


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
            has_anchor = target not in site or parts.fragment in {"", *site[target].anchors}
            if not (target.is_file() and has_anchor):
                dead.append(f"{path.name}: {link}")
    assert dead == []
    assert len(site) > 100


def test_the_site_loads_nothing_from_other_servers(site: dict[Path, Page]) -> None:
    for path, page in site.items():
        for resource in page.resources:
            assert not urlsplit(resource).scheme, f"{path.name} loads {resource}"
            assert not resource.startswith("//")
            assert path.name == "404.html" or (path.parent / resource).resolve().is_file(), resource


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


def test_the_file_reference_has_every_key(site: dict[Path, Page]) -> None:
    (page,) = (p for path, p in site.items() if path.parts[-2:] == ("reference", "files.html"))
    keys = {*Settings().to_dict(), "crop", "classes", "ignore_index", "pretrained_on"}
    assert keys <= set(page.words)


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


def test_pages_state_their_language(site: dict[Path, Page]) -> None:
    for path in site:
        chinese = path.parts[-2] == "zh" or path.parent.parent.name == "zh" or ".zh-CN" in path.name
        match = re.search(r'<html lang="(\w+)"', path.read_text(encoding="utf-8"))
        assert match is not None
        assert match[1] == ("zh" if chinese else "en"), path
