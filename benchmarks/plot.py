"""Make docs/performance.md and docs/speed.svg (speed and memory), and docs/classifiers.md
(convolutionalized classifiers) from the results.

    python benchmarks/plot.py [--results benchmarks/results] [--out docs]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from method import RESULTS

mpl.use("agg")
import matplotlib.pyplot as plt

OURS, THEIRS, TEXT = "#0b6e99", "#b8bec5", "#24292f"


def bars(results: dict[str, Any]) -> list[tuple[str, float, float, float]]:
    """Return (network, median, lower and upper quartile) in milliseconds, the slowest first."""
    times = results["sections"]["predict"]["milliseconds"]
    rows = [(name, t["median"], t["low"], t["high"]) for name, t in times.items()]
    return sorted(rows, key=lambda row: -row[1])


def caption(results: dict[str, Any]) -> str:
    """Describe the measurement and the machine."""
    section = results["sections"]["predict"]
    height, width = section["size"][:2]
    return (
        f"One {height} × {width} image, 21 classes, {section['threads']} threads of "
        f"{results['processor']}, torch {results['versions']['torch']}. Medians of "
        f"{section['rounds']} rounds, with quartiles. Lower is better."
    )


def draw(results: dict[str, Any], out: Path) -> None:
    """Save the chart in the format of the suffix."""
    rows = bars(results)
    mpl.rcParams.update({"svg.hashsalt": "fullconv", "font.size": 10, "text.color": TEXT})
    figure, axes = plt.subplots(figsize=(8, 0.42 * len(rows) + 1.1), layout="constrained")
    longest = max(high for *_, high in rows)
    for place, (name, middle, low, high) in enumerate(rows):
        ours = name.startswith("Fullconv")
        axes.barh(place, middle, height=0.66, color=OURS if ours else THEIRS)
        axes.plot([low, high], [place, place], color=TEXT, linewidth=1)
        text = f"{middle:.0f} ms" if middle >= 20 else f"{middle:.1f} ms"
        weight = "bold" if ours else "normal"
        right = max(middle, high) + 0.01 * longest
        axes.text(right, place, text, va="center", fontweight=weight)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    for label in axes.get_yticklabels():
        label.set_fontweight("bold" if label.get_text().startswith("Fullconv") else "normal")
    axes.set_xlim(0, 1.12 * longest)
    axes.xaxis.set_visible(False)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.tick_params(left=False)
    axes.set_title("From an image to its label map", loc="left", fontweight="bold")
    figure.supxlabel(caption(results), fontsize=8, x=0.01, ha="left")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None, dpi=120)
    plt.close(figure)


TITLES = {
    "speed": "Speed",
    "memory": "Memory",
    "peers": "Other networks",
    "data": "Dataset checks",
    "tiles": "Large images in tiles",
    "many": "Many images",
    "export": "Exported files",
    "serve": "The server under load",
    "amx/speed": "Speed on a processor with matrix units",
    "amx/peers": "Other networks on a processor with matrix units",
    "avx2/speed": "Speed on a processor without bfloat16",
    "avx2/peers": "Other networks on a processor without bfloat16",
}
HEAD = """# Performance

![Milliseconds from an image to its label map for several networks](speed.svg)

{summary}
Each figure is a ratio of two things measured in one run, in alternating order: the median and the
quartiles over the rounds. Benchmarks that missed their target are listed too, marked **short**.
[Benchmarks](../benchmarks/README.md) describes how each figure is measured. The ratio is the
baseline divided by Fullconv, or Fullconv divided by the baseline for memory, errors and rates. If a
target is an absolute limit in seconds or bytes, the limit is in the baseline column.

Matrix units (Intel's AMX) multiply bfloat16 matrices several times as fast as the processor does
anything else. There, ratios against float32 networks are larger, and operations other than matrix
products (normalization, activations, loading, resizing) take most of the training time. On a
processor without bfloat16 and AVX-512, Fullconv uses float32 like the others, and the ratios are
smallest.
"""
# Older results use other words in the names of their figures.
WORDS = {
    "a picture": "an image",
    "picture": "image",
    "normalisation": "normalization",
    "Cannot be made dense": "Cannot be convolutionalized",
    "and so cannot be made dense": "and so cannot be convolutionalized",
    "Its scores are made of the whole image by": "Its logits depend on the whole image because of",
    "a list of tokens, not a map of rows and columns": "a list of tokens, not a feature map",
    "is no map of rows and columns": "is not a feature map",
    "its end reads": "its head reads",
    "its end holds": "its head contains",
    "of its modules resizes its map, or pools over all of it out of sight": "of its modules resizes or pools its feature map in a way that cannot be traced",  # noqa: E501
    "its forward cannot be followed, for it decides by what it computes": "its forward function cannot be traced because it depends on computed values",  # noqa: E501
    "theirs channels last": "baseline channels last",
    "theirs in our large pages": "baseline in large memory pages",
    "as taught": "of the textbook",
    "taught FCN-32s": "the textbook's FCN-32s",
    "as chosen": "default",
    "tracebacks and words of libraries": "tracebacks and library messages",
    "processes that told": "processes that reported",
    "unlike one process's": "that differ from those of one process",
    "unlike predict's": "that differ from those of predict",
    "answers of 500 and more but 503": "responses with status 500 or higher, except 503",
    "answers that are not as they should be": "unexpected responses",
    "answered of those under way": "completed requests",
    "over one after the other": "over sequential processing",
    "over the bare network": "over the network alone",
    "of those before the kill, not touched": "results from before the kill that are unchanged",
    "of those before the kill, skipped": "results from before the kill that are skipped",
    "when all is there": "in a repeated job",
}


def summary(results: dict[str, dict[str, Any]]) -> str:
    """Return the most important ratios on the three processors."""

    def ratios(section: str, *names: str) -> str:
        cells = []
        for folder in ("", "amx/", "avx2/"):
            facts = results[f"{folder}{'peers' if section == 'predict' else 'speed'}"]
            figures = facts["sections"].get(section, {}).get("figures", [])
            medians = {figure["name"]: figure["ratio"]["median"] for figure in figures}
            values = [medians.get(name) for name in names]
            cells.append(
                " / ".join("–" if v is None else f"{v:.{1 if v < 9.95 else 0}f}" for v in values)
            )
        return " | ".join(cells)

    classes = (11, 21, 150)
    peers = ("ResNet-18 FCN-32s as taught", "smp Unet resnet18", "torchvision fcn_resnet50")
    loss = ratios("loss", *(f"loss + gradient, {k} classes" for k in classes))
    labels = ratios("labels", *(f"label map, {k} classes" for k in classes))
    step = ratios("step", "step, FCN-8s / taught FCN-32s")
    predict = ratios("predict", *(f"{name} / as chosen" for name in peers))
    processors = ("", "amx/", "avx2/")
    names = [results[f"{folder}speed"]["processor"] for folder in processors]
    return f"""How many times as fast is Fullconv, on two cores? A dash means that it was not measured.

| | baseline | {names[0]} | {names[1]}, AMX | {names[2]}, AVX2 only |
|---|---|---|---|---|
| loss and gradient; 11 / 21 / 150 classes | `interpolate` + `cross_entropy` | {loss} |
| label map; 11 / 21 / 150 classes | `interpolate` + `argmax` | {labels} |
| training step, ResNet-18 FCN-8s | the textbook's ResNet-18 FCN-32s | {step} |
| image to label map, ResNet-18 FCN-8s | the textbook's FCN-32s / smp U-Net, ResNet-18 / torchvision fcn_resnet50 | {predict} |
"""  # noqa: E501


def page(results: dict[str, dict[str, Any]]) -> str:
    """Return docs/performance.md."""
    lines = [HEAD.format(summary=summary(results))]
    for name, facts in results.items():
        lines += [f"## {TITLES[name]}", "", f"`{_words(facts['command'])}`, {facts['processor']}, "]
        lines[-1] += f"{facts['cores']} cores, torch {facts['versions']['torch']}."
        for title, section in facts["sections"].items():
            stated = f"{section['rounds']} rounds, commit {section['commit']}"
            lines += ["", f"**{title}** ({stated})", ""]
            lines += [
                "| | Fullconv | baseline | unit | ratio | quartiles | target |",
                "|---|---|---|---|---|---|---|",
            ]
            lines += [_row(figure) for figure in section["figures"]]
        lines.append("")
    return "\n".join(lines)


def _words(command: str) -> str:
    """Return a command without its options, which name folders of one machine."""
    return " ".join(command.split()[:2])


def _renamed(text: str) -> str:
    for old, new in WORDS.items():
        text = text.replace(old, new)
    return text


def _row(figure: dict[str, Any]) -> str:
    def number(value: float | None) -> str:
        if value is None:
            return ""
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"

    ratio = figure["ratio"]
    bounds = [("≥", figure["at_least"]), ("≤", figure["at_most"])]
    target = " ".join(f"{sign} {number(value)}" for sign, value in bounds if value is not None)
    if figure["verdict"] == "short":
        target += " **short**"
    cells = [
        _renamed(figure["name"]),
        number(figure["ours"]),
        number(figure["theirs"]),
        _renamed(figure["unit"]),
    ]
    spread = f"{number(ratio['low'])} – {number(ratio['high'])}"
    return "| " + " | ".join([*cells, number(ratio["median"]), spread, target]) + " |"


CLASSIFIERS = """# Convolutionalized classifiers

`fc.convolutionalize(NAME)` and `fullconv heatmap NAME IMAGE` accept all of these classifiers. Each
was built with random weights (including random batch norm statistics, scales and biases),
convolutionalized, and compared with the original classifier.

- **own size**: the largest difference of its logits from those of the classifier, relative to the
  largest logit, on an image of the classifier's own size (one cell).
- **windows**: on a larger image, the largest difference of any cell from what the classifier's own
  head (pooling, fully connected layers) computes for the window of the feature map at that cell.
- **crop**: the difference of one cell of a larger noise image from the classifier on the crop of
  its window. This is not an error. At the border of the crop, zero padding replaces what the cell
  sees in the image, and operations on the whole image (last column) see only the crop. Nearly all
  networks use padding. If a network neither pads nor uses the whole image, cell and crop are equal,
  as a test verifies for each cell.
- **cells**: the number of cells for an image of 500 x 500 pixels. **stride, offset**: cell i is
  centered at pixel `offset + stride * i`. `+ 32 k` after the size: padding depends on the size, or
  the network does not accept every size, so images are cropped to its own size plus a multiple of
  that many pixels.

"""


def classifiers_page(results: dict[str, Any]) -> str:
    """Return docs/classifiers.md."""
    section, heat = results["sections"]["dense"], results["sections"]["heat"]
    dense = [row for row in section["rows"] if "refused" not in row]
    refused = [row for row in section["rows"] if "refused" in row]
    lines = [
        f"{CLASSIFIERS}`{_words(results['command'])}`, torch {results['versions']['torch']}, "
        f"torchvision {results['versions']['torchvision']}, timm {results['versions']['timm']}. "
        f"{section['equal']} classifiers of {section['families']} families are equal within "
        f"{section['tolerance']:g}. {len(refused)} are refused; the reasons are below.",
        "",
        "| classifier | pixels | own size | windows | crop | cells | stride, offset "
        "| uses the whole image |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_dense_row(row) for row in dense]
    lines += ["", "## Refused classifiers", "", "| classifier | reason |", "|---|---|"]
    lines += [f"| {_classifier(row['name'])} | {_renamed(row['refused'])} |" for row in refused]
    scales = [name for name in heat if name.startswith(("scale ", "best "))]
    lines += [
        "",
        "## Heat map positions",
        "",
        f"{heat.get('images', heat.get('pictures'))} photos of cats and dogs from the VOC sample, "
        "MobileNetV2 with ImageNet weights. From ImageNet's 123 cat and dog classes, the one with "
        "the highest probability anywhere in the photo is selected. The first column shows how "
        "often the center of its best cell is on an animal according to VOC's mask, the second one "
        "the share of all cells whose center is on an animal.",
        "",
        "| | best cell on an animal | any cell on an animal |",
        "|---|---|---|",
    ]
    lines += [
        f"| {name} | {heat[name]['inside']:.0%} | {heat[name]['chance']:.0%} |" for name in scales
    ]
    return "\n".join(lines) + "\n"


def _dense_row(row: dict[str, Any]) -> str:
    grid, shown = row["grid"], row["cells"].get("500")
    cells = [
        _classifier(row["name"]),
        str(row["size"]) + (f" + {row['step']} k" if row["step"] > 1 else ""),
        f"{row['native']:.0e}",
        f"{row['windows']:.0e}",
        f"{row['crop']:.1g}",
        f"{shown[0]} x {shown[1]}" if shown else "",
        f"{grid['stride']:g}, {grid['offset']:g}",
        _renamed(", ".join(grid["whole"])),
    ]
    return "| " + " | ".join(cells) + " |"


def _classifier(name: str) -> str:
    return f"`{name}`"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs")
    arguments = parser.parse_args()
    found = {}
    for name in TITLES:
        path = arguments.results / f"{name}.json"
        if not path.is_file():
            sys.exit(f"no {path}: run benchmarks/{Path(name).name}.py first.")
        found[name] = json.loads(path.read_text(encoding="utf-8"))
    draw(found["peers"], arguments.out / "speed.svg")
    (arguments.out / "performance.md").write_text(page(found), encoding="utf-8")
    path = arguments.results / "classifiers.json"
    if not path.is_file():
        sys.exit(f"no {path}: run benchmarks/classifiers.py first.")
    text = classifiers_page(json.loads(path.read_text(encoding="utf-8")))
    (arguments.out / "classifiers.md").write_text(text, encoding="utf-8")
    print(*(arguments.out / name for name in ("speed.svg", "performance.md", "classifiers.md")))


if __name__ == "__main__":
    main()
