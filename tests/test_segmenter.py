"""What every model does with pictures, tried with one that names each pixel by its red."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fullconv.data.channels import Input
from fullconv.errors import FullconvError
from fullconv.labels import Labels
from fullconv.segmenter import Segmenter


class Red(Segmenter):
    """Class 1 where there is more red than 127; the second head where the input is above 1."""

    def __init__(self, further: bool = False) -> None:
        self.further = further

    labels = Labels(("dark", "red"))  # type: ignore[assignment]
    pretrained_on = ""  # type: ignore[assignment]

    @property
    def head(self) -> str:
        return "red" if self.further else ""

    @property
    def heads(self) -> Mapping[str, Labels]:
        return {"far": Labels(("near", "far"))} if self.further else {}

    @property
    def inputs(self) -> tuple[Input, ...]:
        return (Input("depth", 1, (0.0,), (1.0,)),) if self.further else ()

    def label_maps(self, picture: np.ndarray, inputs: Sequence[Any] = ()) -> list[np.ndarray]:
        planes = self.joined(picture, inputs)
        maps = [(planes[..., 0] > 127).astype(np.uint8)]
        return [*maps, (planes[..., 3] > 1).astype(np.uint8)] if self.further else maps


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos/deep").mkdir(parents=True)
    for name, red in (("a", 200), ("deep/b", 10)):
        Image.new("RGB", (3, 2), (red, 0, 0)).save(tmp_path / f"photos/{name}.png")
    return tmp_path / "photos"


def test_one_several_or_a_folder(folder: Path) -> None:
    model = Red()
    one = model(folder / "a.png")
    assert one.mask.tolist() == [[1, 1, 1]] * 2
    assert one.source == folder / "a.png"
    several = model([folder / "deep/b.png", np.full((1, 4, 3), 255, np.uint8)])
    assert [found.mask.sum() for found in several] == [0, 4]
    assert [found.source and found.source.name for found in model(folder)] == ["a.png", "b.png"]


def test_further_inputs_are_found_by_name_and_heads_come_back(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "depth/deep").mkdir(parents=True)
    for name, far in (("a", 0), ("deep/b", 5)):
        Image.fromarray(np.full((2, 3), far, np.uint8)).save(tmp_path / f"depth/{name}.png")
    found = Red(further=True)(folder, inputs=[tmp_path / "depth"])
    assert [of.heads["far"].mask.max() for of in found] == [0, 1]
    assert [of.mask.max() for of in found] == [1, 0]


def test_what_belongs_to_a_picture_is_missing_or_too_much(folder: Path) -> None:
    with pytest.raises(FullconvError, match="takes depth beside each picture; nothing was") as one:
        Red(further=True)(folder / "a.png")
    assert "--inputs depth" in one.value.hint
    with pytest.raises(FullconvError, match="takes nothing beside each picture; 1 was") as other:
        Red()(folder / "a.png", inputs=["depth.png"])
    assert "model(picture)" in other.value.hint
    with pytest.raises(FullconvError, match="of type ndarray have no names to find") as nameless:
        Red(further=True)([np.zeros((2, 3, 3), np.uint8)], inputs=["depth"])
    assert "zip(pictures, depths)" in nameless.value.hint


def test_what_is_no_picture() -> None:
    with pytest.raises(FullconvError, match="something of type int; expected a path") as caught:
        Red()(7)
    assert caught.value.hint == 'model("photo.jpg")'
