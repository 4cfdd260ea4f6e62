"""Make docs/images/predictions.png, the image at the top of README.md, from a finished demo.

fullconv demo
python examples/images.py [DEMO]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import fullconv as fc
from fullconv.data.io.images import read_image
from fullconv.data.io.masks import read_mask
from fullconv.data.layouts.dataset import load_dataset
from fullconv.data.synthetic.scenes import LABELS
from fullconv.evaluation.metrics import Metrics, confusion_matrix
from fullconv.visualization.contact_sheet import contact_sheet
from fullconv.visualization.overlay import error_map

IMAGES = Path(__file__).parents[1] / "docs" / "images"
QUANTILES = (0.1, 0.5, 0.9)  # of the test scenes, ordered by mIoU: neither the best nor the worst
TITLES = ("image", "ground truth", "prediction", "errors (red)")


def predictions(demo: Path) -> Image.Image:
    """Draw three test scenes of a demo: image, ground truth, prediction and errors.

    Args:
        demo: output folder of `fullconv demo`.
    """
    predictor = fc.load(demo / "run")
    scenes = []
    for pair in load_dataset(demo / "scenes").splits["test"]:
        image, truth = read_image(pair.image), read_mask(pair.mask, LABELS)
        mask = predictor(image).mask
        mean_iou = Metrics(LABELS.names, confusion_matrix(truth, mask, len(LABELS))).mean_iou
        errors = error_map(truth, mask, LABELS.ignore_index, image=image)
        scenes.append((mean_iou, [image, truth, mask, errors]))
    scenes.sort(key=lambda scene: -scene[0])
    rows = [scenes[round(q * (len(scenes) - 1))] for q in QUANTILES]
    captions = [f"mIoU {mean_iou:.1%}" for mean_iou, _ in rows]
    sheet = contact_sheet([row for _, row in rows], TITLES, captions, labels=LABELS)
    colors = np.unique(np.asarray(sheet).reshape(-1, 3), axis=0)
    return sheet if len(colors) <= 256 else sheet.quantize(256, dither=Image.Dither.NONE)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("demo", type=Path, nargs="?", default=Path("demo"))
    IMAGES.mkdir(exist_ok=True)
    predictions(parser.parse_args().demo).save(IMAGES / "predictions.png", optimize=True)


if __name__ == "__main__":
    main()
