"""Runs the walkthrough and writes it as pages, in English and Chinese, with its figures.

    python examples/walkthrough.py      -> docs/walkthrough.md, docs/walkthrough.zh-CN.md,
                                           docs/walkthrough/*.png; it takes some minutes

Both notebooks hold the same code, so one run serves both pages: no number differs between them.
Figures carry a name, and a description in the notebook's language, in the metadata of their cell.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image
from traitlets.config import Config

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs"
NAMES = ("walkthrough", "walkthrough.zh-CN")
HEADS = (
    "> Made by `python examples/walkthrough.py` from [the notebook](../examples/{name}.ipynb), on "
    'street scenes that the library draws (`DATA = "drawn"`): each number and image is of that '
    "run, another machine's may differ a little.",
    "> 本页由 `python examples/walkthrough.py` 运行[笔记本](../examples/{name}.ipynb)生成，"
    '数据为库自行绘制的街景（`DATA = "drawn"`）：页面上的数字和图片都出自这一次运行，'
    "换一台机器可能略有出入。",
)


def notebook(name: str) -> NotebookNode:
    """One of `NAMES`, without outputs."""
    return nbformat.read(ROOT / "examples" / f"{name}.ipynb", as_version=4)


def execute(node: NotebookNode, *, seconds: int) -> None:
    """Runs all cells, from top to bottom, in a kernel of their own; the outputs stay in the node.

    Args:
        seconds: for each cell.
    """
    # Sockets of the file system, for nobody else to listen to.
    config = Config({"AsyncKernelManager": {"transport": "ipc"}})
    NotebookClient(node, kernel_name="python3", timeout=seconds, config=config).execute()


def page(node: NotebookNode, ran: NotebookNode, head: str, name: str) -> str:
    """A notebook as Markdown for docs/, with what the cells of another of the same code printed."""
    title, _, rest = node.cells[0].source.partition("\n")
    parts = [title, head.format(name=name), rest.strip()]
    for cell, done in zip(node.cells[1:], ran.cells[1:], strict=True):
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        assert cell.source == done.source, f"{name}.ipynb: code differs:\n{cell.source}"
        parts.append(f"```python\n{cell.source}\n```")
        printed = "".join(o.text for o in done.outputs if o.output_type == "stream")
        if printed:
            parts.append(f"```text\n{printed.rstrip()}\n```")
        if "figure" in cell.metadata:
            parts.append(f"![{cell.metadata.alt}](walkthrough/{cell.metadata.figure}.png)")
    text = "\n\n".join(parts) + "\n"
    return "\n".join(
        line if line.startswith(">") else line.replace(".ipynb)", ".md)")
        for line in text.split("\n")
    )


def figures(ran: NotebookNode) -> dict[str, Image.Image]:
    """The figures of a notebook that ran, by name, in few colours: they lie in the repository."""
    found = {}
    for cell in ran.cells:
        if "figure" in cell.metadata:
            (data,) = (o.data["image/png"] for o in cell.outputs if "data" in o)
            image = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
            found[cell.metadata.figure] = image.quantize(256, dither=Image.Dither.NONE)
    return found


def main() -> None:
    """Writes the pages."""
    ran = notebook(NAMES[0])
    execute(ran, seconds=3600)
    (PAGES / "walkthrough").mkdir(exist_ok=True)
    for old in (PAGES / "walkthrough").glob("*.png"):
        old.unlink()
    for figure, image in figures(ran).items():
        image.save(PAGES / "walkthrough" / f"{figure}.png", optimize=True)
    for name, head in zip(NAMES, HEADS, strict=True):
        text = page(notebook(name), ran, head, name)
        (PAGES / f"{name}.md").write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
