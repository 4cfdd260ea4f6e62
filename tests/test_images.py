"""The image at the top of README.md."""

from __future__ import annotations

from pathlib import Path

from lively import lively
from PIL import Image
from scripts import script

from fullconv.data.synthetic import scenes
from fullconv.models.model import save_model

ROOT = Path(__file__).parents[1]
maker = script("examples/images.py", "images_maker")


def test_three_test_scenes_of_a_demo_are_drawn(tmp_path: Path) -> None:
    scenes.write(tmp_path / "scenes", train=1, val=1, test=4, size=(48, 64))
    save_model(lively(labels=scenes.LABELS), tmp_path / "run" / "model")
    sheet = maker.predictions(tmp_path)
    assert sheet.width > 4 * 64  # four columns
    assert sheet.height > 3 * 48  # three rows


def test_the_image_in_the_repository_is_a_sheet_of_predictions() -> None:
    with Image.open(ROOT / "docs" / "images" / "predictions.png") as image:
        colors = {color for _, color in image.convert("RGB").getcolors(1 << 24) or []}
    assert set(scenes.LABELS.colors) <= colors
    assert image.width >= 1000
    assert (ROOT / "docs" / "images" / "predictions.png").stat().st_size < 400_000


def test_the_architecture_drawing_has_every_package() -> None:
    drawing = (ROOT / "docs" / "drawings" / "architecture.svg").read_text(encoding="utf-8")
    packages = {path.parent.name for path in (ROOT / "src/fullconv").glob("*/__init__.py")}
    packages |= {p.name for p in (ROOT / "src/fullconv").iterdir() if any(p.glob("*.py"))}
    assert [name for name in packages if f">{name}/<" not in drawing] == []
    assert "http" not in drawing.replace("http://www.w3.org/2000/svg", "")
