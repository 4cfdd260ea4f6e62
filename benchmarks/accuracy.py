"""Train FCN-32s, 16s and 8s on CamVid with one recipe, and evaluate them on the test split.

A staged recipe trains all networks in one run, each initialized from the one before. Existing runs
are not trained again. Writes results/<recipe>.json.

    python benchmarks/accuracy.py recipes/camvid_mobilenetv2.toml --strides 32 16 8 --runs runs
    python benchmarks/accuracy.py recipes/camvid_staged.toml --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

from method import save

FULLCONV = [sys.executable, "-m", "fullconv"]


def trained(folder: Path, recipe: Path, options: list[str], shared: Path) -> Path:
    """Train a run, resume it, or return it if it is complete."""
    if not (folder / "metrics.json").is_file():
        card = shared / "weights/mobilenetv2_100_tf_quant_in1k.toml"
        words = ["train", str(shared / "data/camvid"), "--config", str(recipe)]
        words += ["--backbone", str(card), *options, "--out", str(folder)]
        if (folder / "config.toml").is_file():
            words = ["train", "--resume", str(folder)]
        started = time.monotonic()
        subprocess.run([*FULLCONV, *words], check=True, stdout=subprocess.DEVNULL)
        (folder / "seconds.txt").write_text(f"{time.monotonic() - started:.0f}")
    return folder


def scored(folder: Path, stride: int, seed: int, shared: Path) -> dict[str, Any]:
    """Return the test metrics of a run's model, and the time and memory of the run."""
    words = ["evaluate", str(folder), str(shared / "data/camvid"), "--split", "test", "--json"]
    done = subprocess.run([*FULLCONV, *words], check=True, capture_output=True, text=True)
    with (folder / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    result = json.loads(done.stdout)
    del result["confusion"]
    return {
        "stride": stride,
        "seed": seed,
        "epochs": len(rows),
        "training_seconds": float(rows[-1]["seconds"]),
        "validation_mean_iou": max(float(row["mean_iou"]) for row in rows),
        "test": result,
    }


def one(recipe: Path, stride: int, seed: int, runs: Path, shared: Path) -> dict[str, Any]:
    """Train one network on its own."""
    folder = runs / f"{recipe.stem}_{stride}s_seed{seed}"
    options = ["--stride", str(stride), "--seed", str(seed)]
    return scored(trained(folder, recipe, options, shared), stride, seed, shared)


def in_stages(recipe: Path, seed: int, runs: Path, shared: Path) -> list[dict[str, Any]]:
    """Train all networks of a staged recipe."""
    folder = trained(runs / f"{recipe.stem}_seed{seed}", recipe, ["--seed", str(seed)], shared)
    stages = json.loads((folder / "stages.json").read_text(encoding="utf-8"))
    results = []
    for stage in stages:
        place = Path(stage["model"]).parent
        result = scored(place, int(stage["name"][4:-1]), seed, shared)
        results.append({**result, "unchanged_at_start": stage["unchanged"]})
    return results


def summary(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the test mIoU by stride, coarsest first, and the gain over the previous stride: mean
    and standard deviation over the seeds."""
    by_stride: dict[int, dict[int, float]] = {}
    for r in results:
        by_stride.setdefault(r["stride"], {})[r["seed"]] = r["test"]["mean_iou"]
    rows: list[dict[str, Any]] = []
    before: dict[int, float] = {}
    for stride in sorted(by_stride, reverse=True):
        found = by_stride[stride]
        gains = [found[seed] - before[seed] for seed in found if seed in before]
        minutes = [r["training_seconds"] / 60 for r in results if r["stride"] == stride]
        rows.append(
            {
                "stride": stride,
                "seeds": len(found),
                "mean_iou": spread(list(found.values())),
                "gain": spread(gains) if gains else None,
                "minutes": statistics.mean(minutes),
            }
        )
        before = found
    return rows


def spread(values: list[float]) -> dict[str, float]:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.mean(values), "standard_deviation": deviation}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--strides", type=int, nargs="+", default=[32, 16, 8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    if not os.environ.get("FULLCONV_SHARED"):
        sys.exit("FULLCONV_SHARED is not set: it names the folder that holds data/camvid.")
    shared = Path(os.environ["FULLCONV_SHARED"]).resolve()
    recipe, runs = arguments.recipe, arguments.runs
    command = f"python benchmarks/accuracy.py {recipe}"
    if tomllib.loads(recipe.read_text(encoding="utf-8"))["train"].get("staged"):
        parts = [in_stages(recipe, seed, runs, shared) for seed in arguments.seeds]
        results = [result for part in parts for result in part]
    else:
        command += f" --strides {' '.join(map(str, arguments.strides))}"
        results = [
            one(recipe, stride, seed, runs, shared)
            for stride in arguments.strides
            for seed in arguments.seeds
        ]
    if arguments.seeds != [0]:
        command += f" --seeds {' '.join(map(str, arguments.seeds))}"
    rows = summary(results)
    for row in rows:
        gain, iou = row["gain"], row["mean_iou"]
        said = f"test mean IoU {iou['mean']:.4f} +- {iou['standard_deviation']:.4f}"
        if gain:
            said += f", gain {gain['mean']:+.4f} +- {gain['standard_deviation']:.4f}"
        print(f"FCN-{row['stride']}s: {said}, {row['minutes']:.1f} min, {row['seeds']} seeds")
    save(recipe.stem, command, {"summary": rows, "runs": results})


if __name__ == "__main__":
    main()
