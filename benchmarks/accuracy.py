"""CamVid, FCN-32s, 16s and 8s with one recipe: `fullconv train`, then `fullconv evaluate` on test.

Runs that are there already are not trained again. Writes results/camvid_<recipe>.json.

    python benchmarks/accuracy.py recipes/camvid_mobilenetv2.toml --strides 32 16 8 --runs runs
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from method import save

FULLCONV = [sys.executable, "-m", "fullconv"]


def one(recipe: Path, stride: int, seed: int, runs: Path, shared: Path) -> dict[str, Any]:
    """Trains (if need be) and evaluates one network."""
    data = shared / "data/camvid"
    folder = runs / f"{recipe.stem}_{stride}s_seed{seed}"
    card = shared / "weights/mobilenetv2_100_tf_quant_in1k.toml"
    command = ["train", str(data), "--config", str(recipe), "--backbone", str(card)]
    command += ["--stride", str(stride)]
    command += ["--seed", str(seed), "--out", str(folder)]
    if not (folder / "metrics.json").is_file():
        started = time.monotonic()
        resume = (folder / "checkpoint/last.ckpt").is_file()
        words = ["train", "--resume", str(folder)] if resume else command
        subprocess.run([*FULLCONV, *words], check=True, stdout=subprocess.DEVNULL)
        (folder / "seconds.txt").write_text(f"{time.monotonic() - started:.0f}")
    words = ["evaluate", str(folder), str(data), "--split", "test", "--json"]
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--strides", type=int, nargs="+", default=[32, 16, 8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    shared = os.environ.get("FULLCONV_SHARED")
    if not shared:
        sys.exit("FULLCONV_SHARED is not set: it names the folder that holds data/camvid.")
    results = [
        one(arguments.recipe, stride, seed, arguments.runs, Path(shared).resolve())
        for stride in arguments.strides
        for seed in arguments.seeds
    ]
    for r in results:
        iou = r["test"]["mean_iou"]
        print(f"FCN-{r['stride']}s seed {r['seed']}: test mean IoU {iou:.4f}")
    strides = " ".join(map(str, arguments.strides))
    command = f"python benchmarks/accuracy.py {arguments.recipe} --strides {strides}"
    save(arguments.recipe.stem, command, {"runs": results})


if __name__ == "__main__":
    main()
