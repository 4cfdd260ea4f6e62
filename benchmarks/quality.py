"""Measure the cost of boundary, object and confidence statistics in `evaluate`.

CamVid's validation images, with and without the statistics, in turn. Writes results/quality.json.

    python benchmarks/quality.py --model RUN
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from method import RESULTS, compare, save

from fullconv.data.layouts.dataset import load_dataset
from fullconv.evaluation.evaluate import evaluate
from fullconv.inference.predictor import load

IMAGES = 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="a run on data/camvid")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    dataset = load_dataset(Path(os.environ["FULLCONV_SHARED"]) / "data/camvid")
    few = dataset.pairs_of("val")[:: len(dataset.pairs_of("val")) // IMAGES][:IMAGES]
    dataset = replace(dataset, splits={"val": few})
    model = load(asked.model, device="cpu", precision="float32")
    variants = {
        name: partial(evaluate, model, dataset, split="val", quality=quality)
        for name, quality in (("with", True), ("without", False))
    }
    timings = compare(variants, rounds=asked.rounds)
    ratio = timings.ratio("with", "without")
    print(f"{ratio.median:.2f} times as long ({ratio.low:.2f} - {ratio.high:.2f})")
    results = {
        "model": model.backbone,
        "stride": model.stride,
        "images": len(few),
        "threads": asked.threads,
        "milliseconds": timings.to_dict(),
        "times_as_long": asdict(ratio),
    }
    words = f"python benchmarks/quality.py --model RUN --rounds {asked.rounds}"
    save("quality", words, results, folder=asked.out)


if __name__ == "__main__":
    main()
