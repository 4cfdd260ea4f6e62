"""Records the images at the head of README.md: a terminal session, and the report it ends in.

    python examples/images.py         -> docs/images/terminal.svg, docs/images/report.png

The session is what the commands print on the street scenes of the demo, line by line as it came;
longer pauses are cut to `PAUSE`. FULLCONV_CHROMIUM is the path of a Chromium, which takes the
image of the report; without it there is the session alone. Takes about two minutes.
"""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

from PIL import Image

from fullconv.data.synthetic import scenes as drawn

IMAGES = Path(__file__).parents[1] / "docs" / "images"
SESSION = (
    "fullconv check data",
    "fullconv train data --backbone resnet10t --no-pretrained --stride 4 --epochs 20 --out streets",
    "fullconv evaluate streets data --split test",
    "fullconv predict streets data/images/test --out predictions",
)
ROWS, COLUMNS = 26, 104  # of the terminal
PAUSE, READ, END = 0.7, 2.0, 6.0  # seconds: at most between lines, after a command, at the end
LINE, LETTER, EDGE = 18, 8.4, 16  # pixels
STYLE = """
svg { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace }
text { fill: #d6deeb; white-space: pre } .typed { fill: #7fdbca; font-weight: bold }
@media (prefers-reduced-motion: no-preference) {
.roll { animation: roll SECONDSs infinite step-end } }
"""
SHOWN = (1100, 1240)  # pixels of the report, in width and height


class Line(NamedTuple):
    """What stands in a line, the seconds at which it came, and whether a person typed it."""

    text: str
    seconds: float
    typed: bool = False


def record(commands: tuple[str, ...], place: Path) -> list[Line]:
    """Runs commands one after the other and notes what they print, stderr too.

    Args:
        commands: of fullconv, as they are typed.
        place: the folder in which they run.

    Raises:
        RuntimeError: a command failed.
    """
    lines, now = [], 0.0
    environment = {**os.environ, "TERM": "dumb", "COLUMNS": str(COLUMNS), "PYTHONUNBUFFERED": "1"}
    for typed in commands:
        now += READ if lines else 0.0
        lines += [Line(part, now, typed=True) for part in wrapped(f"$ {typed}")]
        words = [sys.executable, "-m", *shlex.split(typed)]
        last = time.monotonic()
        with subprocess.Popen(
            words,
            cwd=place,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as running:
            assert running.stdout is not None
            for text in running.stdout:
                came = time.monotonic()
                now, last = now + min(came - last, PAUSE), came
                lines += [Line(part, now) for part in wrapped(text.rstrip("\n"))]
        if running.returncode:
            raise RuntimeError("\n".join(line.text for line in lines))
        lines.append(Line("", now))
    return lines[:-1]


def wrapped(text: str) -> list[str]:
    """As a terminal breaks it."""
    return [text[k : k + COLUMNS] for k in range(0, len(text), COLUMNS)] or [""]


def svg(lines: list[Line]) -> str:
    """A terminal whose last line is always the newest; where nothing may move, the end of it."""
    total = lines[-1].seconds + END
    width, height = round(COLUMNS * LETTER) + 2 * EDGE, ROWS * LINE + 2 * EDGE
    moments = {f"{100 * line.seconds / total:.2f}": n for n, line in enumerate(lines, 1)}
    frames = "".join(
        f"{percent}% {{ transform: translateY({-number * LINE}px) }}\n"
        for percent, number in moments.items()  # the last line of each
    )
    texts = "\n".join(
        f'<text class="{"typed" if line.typed else ""}" x="{EDGE}" y="{number * LINE - 5}"'
        f' xml:space="preserve">{escape(line.text)}</text>'
        for number, line in enumerate(lines, 1)
        if line.text
    )
    said = escape("; ".join(line.text[2:] for line in lines if line.text.startswith("$ ")))
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<title>A terminal session: {said}</title>
<style>{STYLE.replace("SECONDS", f"{total:.1f}")}@keyframes roll {{
{frames}}}</style>
<rect width="{width}" height="{height}" rx="8" fill="#10171f"/>
<svg y="{EDGE}" width="{width}" height="{height - 2 * EDGE}">
<g transform="translate(0 {height - 2 * EDGE})">
<g class="roll" transform="translate(0 {-len(lines) * LINE})">
{texts}
</g></g></svg></svg>
"""


def photograph(page: Path, chromium: str) -> Image.Image:
    """The top of a page as a browser shows it, in few colours: it lies in the repository."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        width, height = SHOWN
        tab = browser.new_page(viewport={"width": width, "height": height})
        tab.goto(page.as_uri())
        shot = tab.screenshot()
        browser.close()
    return Image.open(io.BytesIO(shot)).convert("RGB").quantize(256, dither=Image.Dither.NONE)


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        drawn.write(Path(place) / "data")
        lines = record(SESSION, Path(place))
        (IMAGES / "terminal.svg").write_text(svg(lines), encoding="utf-8")
        chromium = os.environ.get("FULLCONV_CHROMIUM")
        if not chromium:
            sys.exit("FULLCONV_CHROMIUM is not set, so there is no image of the report")
        photograph(Path(place) / "streets/report.html", chromium).save(IMAGES / "report.png")


if __name__ == "__main__":
    main()
