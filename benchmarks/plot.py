"""Draws results/peers.json: milliseconds from a picture to its label map, by network.
Fullconv's bars have a colour of their own.

    python benchmarks/plot.py [--results benchmarks/results] [--out docs/speed.svg]
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
        f"One {height} × {width} picture, 21 classes, {section['threads']} threads of "
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
    axes.set_title("From a picture to its label map", loc="left", fontweight="bold")
    figure.supxlabel(caption(results), fontsize=8, x=0.01, ha="left")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    default = Path(__file__).parent.parent / "docs/speed.svg"
    parser.add_argument("--out", type=Path, default=default)
    arguments = parser.parse_args()
    path = arguments.results / "peers.json"
    if not path.is_file():
        sys.exit(f"no {path}: run benchmarks/peers.py first.")
    draw(json.loads(path.read_text(encoding="utf-8")), arguments.out)
    print(arguments.out)


if __name__ == "__main__":
    main()
