"""Makes docs/performance.md, the figures of speed and memory in tables, docs/speed.svg:
milliseconds from an image to its label map, by network; and docs/classifiers.md: classifiers made
dense.

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
    """(network, median, lower and upper quartile) in milliseconds, the slowest first."""
    times = results["sections"]["predict"]["milliseconds"]
    rows = [(name, t["median"], t["low"], t["high"]) for name, t in times.items()]
    return sorted(rows, key=lambda row: -row[1])


def caption(results: dict[str, Any]) -> str:
    """What was measured, on what."""
    section = results["sections"]["predict"]
    height, width = section["size"][:2]
    return (
        f"One {height} × {width} image, 21 classes, {section['threads']} threads of "
        f"{results['processor']}, torch {results['versions']['torch']}. Medians of "
        f"{section['rounds']} rounds, with quartiles. Less is better."
    )


def draw(results: dict[str, Any], out: Path) -> None:
    """Writes the plot; the suffix says which format."""
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
    "peers": "Beside other networks",
    "data": "Checking data",
    "tiles": "Large images in tiles",
    "many": "Many images",
    "export": "Exported files",
    "serve": "A server under load",
    "amx/speed": "Speed, on a processor with matrix units",
    "amx/peers": "Beside other networks, on a processor with matrix units",
    "avx2/speed": "Speed, on a processor without bfloat16",
    "avx2/peers": "Beside other networks, on a processor without bfloat16",
}
HEAD = """# Performance

Ratios of two things measured in one run, turn by turn: medians with quartiles over the rounds.
Those that fall short of what was wanted stand here like the others. How each is measured:
[benchmarks/README.md](../benchmarks/README.md). A ratio is theirs over ours (ours over theirs for
memory, errors and rates), so that what is wanted is a bound on it. Where a limit is stated in
seconds or bytes, it stands in the place of theirs.

Matrix units (Intel's AMX) multiply in bfloat16 several times as fast as the processor does anything
else. Against networks that run as usual the ratios grow there; what does not multiply matrices
(normalisation, activations, loading, resizing) then takes most of a training's time, and the shares
of the machine's rate fall.

Where a processor has neither bfloat16 nor AVX-512, Fullconv runs in float32 like the others, and
the ratios are the smallest.

![Milliseconds from an image to its label map, by network](speed.svg)
"""


def page(results: dict[str, dict[str, Any]]) -> str:
    """docs/performance.md."""
    lines = [HEAD]
    for name, facts in results.items():
        lines += [f"## {TITLES[name]}", "", f"`{_words(facts['command'])}`, {facts['processor']}, "]
        lines[-1] += f"{facts['cores']} cores, torch {facts['versions']['torch']}."
        for title, section in facts["sections"].items():
            stated = f"{section['rounds']} rounds, commit {section['commit']}"
            lines += ["", f"**{title}** ({stated})", ""]
            lines += [
                "| | ours | theirs | | ratio | quartiles | wanted |",
                "|---|---|---|---|---|---|---|",
            ]
            lines += [_row(figure) for figure in section["figures"]]
        lines.append("")
    return "\n".join(lines)


def _words(command: str) -> str:
    """The command without its options, which name folders of one machine."""
    return " ".join(command.split()[:2])


def _row(figure: dict[str, Any]) -> str:
    def number(value: float | None) -> str:
        if value is None:
            return ""
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"

    ratio = figure["ratio"]
    bounds = [("≥", figure["at_least"]), ("≤", figure["at_most"])]
    wanted = " ".join(f"{sign} {number(value)}" for sign, value in bounds if value is not None)
    if figure["verdict"] == "short":
        wanted += " **short**"
    cells = [figure["name"], number(figure["ours"]), number(figure["theirs"]), figure["unit"]]
    spread = f"{number(ratio['low'])} – {number(ratio['high'])}"
    return "| " + " | ".join([*cells, number(ratio["median"]), spread, wanted]) + " |"


CLASSIFIERS = """# Classifiers made dense

`fc.convolutionalize(NAME)` and `fullconv heatmap NAME IMAGE` take any of these. Each was built
with random weights (statistics of batch norm, scales and biases stirred), made dense, and compared
with the classifier that it was.

- **own size**: on an image of the classifier's own size there is one cell. The largest difference
  of its scores from the classifier's, over the largest score.
- **windows**: on a larger image, the largest difference of any cell's scores from what the
  classifier's own end (pooling, fully connected layers) gives for the window of the trunk's feature
  map at that cell.
- **crop**: the difference of one cell amid a larger image of noise from the classifier on the
  crop of its window. It is no error: at the crop's border padding puts zeros where the cell sees
  what the image has there, and what sees the whole image (last column) sees the crop alone.
  Nearly all networks pad, so that nothing is claimed about crops; where a network neither pads nor
  sees the whole image, cell and crop are equal, as tests/network/test_sliding.py proves at every
  cell.
- **cells** of an image of 500 x 500 pixels; **stride, offset**: cell i looks at pixel
  `offset + stride * i`. `+ 32 k` behind the pixels: padding depends on the size, or not every size
  is taken, and images are cut to the own size and a multiple of that many pixels.

"""


def classifiers_page(results: dict[str, Any]) -> str:
    """docs/classifiers.md."""
    section, heat = results["sections"]["dense"], results["sections"]["heat"]
    dense = [row for row in section["rows"] if "refused" not in row]
    refused = [row for row in section["rows"] if "refused" in row]
    lines = [
        f"{CLASSIFIERS}`{_words(results['command'])}`, torch {results['versions']['torch']}, "
        f"torchvision {results['versions']['torchvision']}, timm {results['versions']['timm']}. "
        f"{section['equal']} classifiers of {section['families']} families are equal within "
        f"{section['tolerance']:g}; {len(refused)} are refused, with the reason, below.",
        "",
        "| classifier | pixels | own size | windows | crop | cells | stride, offset "
        "| sees the whole image |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_dense_row(row) for row in dense]
    lines += ["", "## Not made dense", "", "| classifier | why |", "|---|---|"]
    lines += [f"| {_classifier(row['name'])} | {row['refused']} |" for row in refused]
    scales = [name for name in heat if name.startswith(("scale ", "best "))]
    lines += [
        "",
        "## Where the heat lies",
        "",
        f"{heat['images']} photos of cats and dogs of the VOC sample, MobileNetV2 with weights "
        "of ImageNet. Of ImageNet's 123 cats and dogs the class that is most probable anywhere in "
        "the photo is taken. Is the pixel that its best cell looks at on an animal, by VOC's mask? "
        "Beside it, the share of all cells that look at one.",
        "",
        "| | best cell on the animal | any cell |",
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
        ", ".join(grid["whole"]),
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
