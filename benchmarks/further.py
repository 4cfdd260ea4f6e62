"""Measure additional heads and extra inputs on synthetic cards (tests/cards.py).

`heads`: materials and order, where near cards look larger: one model each, and two heads on one
backbone. `inputs`: order, which the images do not show: images alone, and depth with early and late
fusion. `fullconv train` trains each model with a ResNet-10 from random weights, and
`fullconv evaluate` evaluates it on the test cards. Writes results/further.json.

    python benchmarks/further.py --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from accuracy import FULLCONV, spread
from method import save

sys.path.append(str(Path(__file__).parent.parent / "tests"))
import cards

COUNTS = {"train": 160, "val": 40, "test": 80}
OPTIONS = ["--no-pretrained", "--backbone", "resnet10t", "--epochs", "20"]
OPTIONS += ["--crop", "97", "129", "--scale", "0.8", "1.25"]
FOLDERS = {  # name -> how the cards are drawn and annotated
    "both": {"sized": True, "labels": "both"},
    "order": {"sized": True, "labels": "order"},
    "blind": {"sized": False, "labels": "order"},
}
MODELS = {  # name -> data, options, and the reported metrics
    "materials alone": ("both", [], {"materials": None}),
    "order alone": ("order", [], {"order": None}),
    "both heads": ("both", ["--heads", "order"], {"materials": None, "order": "order"}),
    "images alone": ("blind", [], {"order": None}),
    "depth, early": ("blind", ["--extra-inputs", "depth"], {"order": None}),
    "depth, late": ("blind", ["--extra-inputs", "depth", "--fusion", "late"], {"order": None}),
}


def scored(name: str, seed: int, place: Path) -> dict[str, float]:
    """Return the mIoU of each head on the test cards."""
    data, options, wanted = MODELS[name]
    folder = place / f"{name.replace(', ', '_').replace(' ', '_')}_seed{seed}"
    if not (folder / "metrics.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        words = ["train", str(place / data), *OPTIONS, *options]
        words += ["--seed", str(seed), "--out", str(folder)]
        subprocess.run([*FULLCONV, *words], check=True, stdout=subprocess.DEVNULL)
    words = ["evaluate", str(folder), str(place / data), "--split", "test", "--json"]
    done = subprocess.run([*FULLCONV, *words], check=True, capture_output=True, text=True)
    result = json.loads(done.stdout)
    return {
        what: (result["heads"][head] if head else result)["mean_iou"]
        for what, head in wanted.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/further"))
    arguments = parser.parse_args()
    place = arguments.runs
    for name, options in FOLDERS.items():
        if not (place / name / "dataset.toml").is_file():
            shutil.rmtree(place / name, ignore_errors=True)
            cards.write(place / name, **COUNTS, **options)  # type: ignore[arg-type]
    rows: dict[str, dict[str, Any]] = {}
    for name in MODELS:
        found = [scored(name, seed, place) for seed in arguments.seeds]
        rows[name] = {what: spread([one[what] for one in found]) for what in found[0]}
        for what, row in rows[name].items():
            number = f"{row['mean']:.4f} +- {row['standard_deviation']:.4f}"
            print(f"{name:16} {what:10} {number}", flush=True)
    facts = {
        "seeds": arguments.seeds,
        "cards": COUNTS,
        "options": " ".join(OPTIONS),
        "test_mean_iou": rows,
    }
    seeds = " ".join(map(str, arguments.seeds))
    save("further", f"python benchmarks/further.py --seeds {seeds}", facts)


if __name__ == "__main__":
    main()
