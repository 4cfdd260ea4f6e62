"""Videos of drawn scenes: frames, masks, time stamps and sound of the results."""

from __future__ import annotations

import json
import signal
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from films import EVEN, UNEVEN, cut, film, masks_of, pixels_of, shown, sounds, times, tone
from lively import lively
from PIL import Image

from fullconv.core.errors import FullconvError, UnwrittenError
from fullconv.core.labels import Labels
from fullconv.data.io.extra_channels import ExtraInput
from fullconv.inference.input_files import find_inputs
from fullconv.inference.options import PredictOptions
from fullconv.inference.predictor import Predictor
from fullconv.inference.result_files import STREAM_OUTPUTS, is_own_output
from fullconv.inference.segmentation import Segmentation
from fullconv.inference.video import predict_video
from fullconv.inference.writers import refuse_overwriting_inputs
from fullconv.models.model import Model
from fullconv.visualization.overlay import legend

av = pytest.importorskip("av")

MakeModel = Callable[..., Model]


@pytest.fixture
def predictor(make_model: MakeModel) -> Predictor:
    return Predictor(make_model(("sky", "road", "tree")), device="cpu")


@pytest.mark.parametrize("stamps", [EVEN, UNEVEN], ids=["even", "uneven"])
def test_results_have_the_masks_times_and_sound_of_the_source(
    predictor: Predictor, tmp_path: Path, stamps: tuple[int, ...]
) -> None:
    source = film(tmp_path / "clip.mp4", stamps, sound="aac", sound_first=stamps is UNEVEN)
    kinds = ["overlay", "color", "mask", "json"]
    table = predict_video(predictor, source, tmp_path / "out/clip", kinds)
    names = [f"clip_{end}" for end in ("overlay.mp4", "color.mp4", "mask.mkv", "legend.png")]
    files = [tmp_path / "out" / name for name in (*names, "clip.json")]
    assert table["files"] == [str(path) for path in files]
    assert sorted((tmp_path / "out").iterdir()) == sorted(files)
    overlay, color, mask = files[:3]
    expected = [predictor(frame) for frame in pixels_of(source)]
    masks = masks_of(mask)
    assert len(expected) == 8
    assert all((a == b.mask).all() for a, b in zip(masks, expected, strict=True))
    assert len({result.mask.tobytes() for result in expected}) > 3
    assert max(abs(a - b) for a, b in zip(times(mask), times(source), strict=True)) <= 0.0005
    drawings = {
        overlay: [result.overlay(legend=False) for result in expected],
        color: [result.color() for result in expected],
    }
    for path, images in drawings.items():
        assert times(path) == times(source)
        assert sounds(path) == sounds(source)
        (stream,) = av.open(str(path)).streams.video
        assert stream.codec_context.name == "h264"
        assert stamps is not EVEN or stream.average_rate == 25
        for pixels, image in zip(pixels_of(path), images, strict=True):  # compressed with loss
            assert abs(pixels.astype(float) - np.asarray(image)).mean() < 12
    names = predictor.labels.names
    means = {name: np.mean([result.area[name] for result in expected]) for name in names}
    assert table["area"] == {k: pytest.approx(v) for k, v in means.items() if v}
    assert (table["height"], table["width"], table["damaged"]) == (48, 64, None)
    assert (table["frames"], table["labelled"]) == (8, 8)
    assert table["seconds"] == pytest.approx(stamps[-1] / 12800)
    stored = json.loads(files[-1].read_text())
    assert stored == {key: value for key, value in table.items() if key != "files"}
    # The areas alone: nobody writes the sound.
    areas = predict_video(predictor, source, tmp_path / "json/clip", ["json"])
    assert areas == {**table, "files": [str(tmp_path / "json/clip.json")]}
    assert [path.name for path in (tmp_path / "json").iterdir()] == ["clip.json"]


def test_legends_show_how_the_classes_are_drawn(make_model: MakeModel, tmp_path: Path) -> None:
    labels = Labels(("background", "road", "tree"))
    predictor = Predictor(make_model(labels.names), device="cpu")
    source = film(tmp_path / "clip.mp4", EVEN[:2])
    for kinds, over_image in ((["overlay"], True), (["overlay", "color"], False)):
        predict_video(predictor, source, tmp_path / "a", kinds)
        with Image.open(tmp_path / "a_legend.png") as image:
            assert np.array_equal(np.asarray(image), legend(labels, over_image=over_image))


def test_masks_are_repeated_in_between(predictor: Predictor, tmp_path: Path) -> None:
    source = film(tmp_path / "clip.mkv")
    predictor.set_options(PredictOptions(frame_step=3))
    table = predict_video(predictor, source, tmp_path / "a", ["mask"])
    assert (table["frames"], table["labelled"]) == (8, 3)
    expected = [predictor(frame).mask for frame in pixels_of(source)]
    for number, mask in enumerate(masks_of(tmp_path / "a_mask.mkv")):
        assert (mask == expected[number // 3 * 3]).all()


@pytest.mark.parametrize("turned", [90, -90, 180])
def test_frames_are_turned_upright(predictor: Predictor, tmp_path: Path, turned: int) -> None:
    source = film(tmp_path / "clip.mp4", turned=turned)  # degrees counterclockwise
    table = predict_video(predictor, source, tmp_path / "a", ["mask", "overlay"])
    size = (64, 48) if abs(turned) == 90 else (48, 64)
    assert (table["height"], table["width"]) == size
    frames = shown(tmp_path / "a_overlay.mp4")
    assert {frame.rotation for frame in frames} == {0}
    assert (frames[0].height, frames[0].width) == size
    for stored, mask in zip(pixels_of(source), masks_of(tmp_path / "a_mask.mkv"), strict=True):
        upright = {
            90: stored.transpose(1, 0, 2)[::-1],
            -90: stored[::-1].transpose(1, 0, 2),
            180: stored[::-1, ::-1],
        }[turned]
        assert (mask == predictor(np.ascontiguousarray(upright)).mask).all()


def test_odd_sides_and_more_than_255_classes(make_model: MakeModel, tmp_path: Path) -> None:
    predictor = Predictor(make_model(tuple(f"class {k}" for k in range(300))), device="cpu")
    source = film(tmp_path / "clip.avi", EVEN[:2], size=(33, 47), codec="ffv1")
    predict_video(predictor, source, tmp_path / "a", ["mask", "overlay"])
    masks = masks_of(tmp_path / "a_mask.mkv")
    assert masks[0].dtype == np.uint16
    for mask, frame in zip(masks, pixels_of(source), strict=True):
        assert (mask == predictor(frame).mask).all()
    assert pixels_of(tmp_path / "a_overlay.mp4")[0].shape == (34, 48, 3)


def test_heads_and_options(tmp_path: Path) -> None:
    model = lively(stride=8, head="things", heads={"materials": Labels(("wood", "stone"))})
    predictor = Predictor(model, device="cpu")
    predictor.set_options(PredictOptions(min_confidence=0.7))
    source = film(tmp_path / "clip.mkv", EVEN[:2], size=(160, 224))
    table = predict_video(predictor, source, tmp_path / "a", ["mask", "color"])
    expected = predictor(pixels_of(source)[0])
    assert (masks_of(tmp_path / "a_mask.mkv")[0] == expected.mask).all()
    materials = expected.heads["materials"].mask
    assert (masks_of(tmp_path / "a_materials_mask.mkv")[0] == materials).all()
    assert {0, 1, 255} == {*np.unique(materials)}
    assert "unsure" in table["heads"]["materials"]
    assert (tmp_path / "a_materials_legend.png").is_file()


def test_sound_that_mp4_does_not_support_is_kept(predictor: Predictor, tmp_path: Path) -> None:
    source = film(tmp_path / "clip.mkv", sound="tta")
    table = predict_video(predictor, source, tmp_path / "a", ["overlay"])
    assert table["files"][0] == str(tmp_path / "a_overlay.mkv")
    packets, expected = sounds(tmp_path / "a_overlay.mkv"), sounds(source)
    assert [data for data, _ in packets] == [data for data, _ in expected]


@pytest.mark.parametrize(
    ("name", "options", "frames"),
    [
        ("clip.mkv", {}, "{frames} frames could be read"),
        # The index is before the frames, as in an incomplete download.
        ("clip.mp4", {"movflags": "+faststart"}, "{frames} frames of 40 could be read"),
    ],
)
def test_the_undamaged_part_is_kept(
    predictor: Predictor, tmp_path: Path, name: str, options: dict[str, str], frames: str
) -> None:
    source = cut(film(tmp_path / name, tuple(range(0, 40 * 512, 512)), **options), 0.6)
    table = predict_video(predictor, source, tmp_path / "a", ["mask"])
    assert 5 < table["frames"] < 40
    assert len(masks_of(tmp_path / "a_mask.mkv")) == table["frames"]
    assert table["damaged"].startswith(f"{source}: ")
    assert table["damaged"].endswith("; " + frames.format(frames=table["frames"]))


def refused(predictor: Any, source: Path, **options: Any) -> FullconvError:
    with pytest.raises(FullconvError) as caught:
        predict_video(predictor, source, source.with_name("a"), **options)
    assert not [p for p in source.parent.iterdir() if p.name.startswith((".a", "a_"))]
    return caught.value


def test_files_without_a_video(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    tone(tmp_path / "tone.mkv")
    messages = {
        "gone.mp4": "no video {path}: there is no such file.",
        "text.mp4": "{path} cannot be read as a video: Invalid data found when processing input.",
        "tone.mkv": "{path} has no frames; expected a video.",
    }
    for name, message in messages.items():
        assert refused(predictor, tmp_path / name).message == message.format(path=tmp_path / name)


def test_unavailable_outputs_and_models(
    predictor: Predictor, make_model: MakeModel, tmp_path: Path
) -> None:
    source = film(tmp_path / "clip.mkv", EVEN[:2])
    assert refused(predictor, source, outputs=["polygons"]).message == (
        f"{source} is a video or is read in windows, and polygons is not available for these; "
        "expected mask, color, overlay, json."
    )
    depth = ExtraInput("depth", 1, (2000.0,), (700.0,))
    model = replace(make_model(), extra_inputs=(depth,), fusion="early")
    error = refused(Predictor(model, device="cpu"), source)
    assert "the model takes depth with each image, which" in error.message
    (tmp_path / "file").touch()
    with pytest.raises(UnwrittenError, match=r"could not be written to .*a_mask\.mkv: File exists"):
        predict_video(predictor, source, tmp_path / "file" / "a", ["mask"])


def test_time_stamps_that_mp4_does_not_support(predictor: Predictor, tmp_path: Path) -> None:
    source = film(tmp_path / "clip.mkv", (0, 512, 12800 * 86400 * 30))  # a month in between
    error = refused(predictor, source, outputs=["overlay"])
    assert not isinstance(error, UnwrittenError)  # the other videos can be written
    message = f"{source} has time stamps or sound that a .mp4 file cannot contain: "
    assert error.message.startswith(message)
    assert error.hint == f"ffmpeg -i {source} repaired.mp4"


class Bright:
    """A model that calls a pixel light if its green is above 127. It is interrupted at a frame."""

    extra_inputs = ()
    options = PredictOptions()

    def __init__(self, last: int = -1) -> None:
        self.left = last

    def segment(self, image: np.ndarray) -> Segmentation:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        ids = (image[..., 1] > 127).astype(np.uint8)
        return Segmentation(ids, Labels(("dark", "light")), image)


def predict_all(segmenter: Any, source: Path, stem: Path) -> dict[str, Any]:
    return predict_video(segmenter, source, stem, STREAM_OUTPUTS)


def test_nothing_is_left_after_an_interruption(tmp_path: Path) -> None:
    source = film(tmp_path / "clip.mp4", sound="aac")
    with pytest.raises(KeyboardInterrupt):
        predict_all(Bright(5), source, tmp_path / "out/a")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk."""
    resource = pytest.importorskip("resource", reason="limits are of POSIX")
    source = film(tmp_path / "clip.mp4", sound="aac")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, before[1]))
    try:
        with pytest.raises(UnwrittenError, match=r"written to .*: File too large") as caught:
            predict_all(Bright(), source, tmp_path / "out/a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.hint.startswith("--out ANOTHER_FOLDER")
    assert list((tmp_path / "out").iterdir()) == []


def test_frames_are_not_kept_in_memory(tmp_path: Path) -> None:
    frames: list[weakref.ref[np.ndarray]] = []

    class Watching(Bright):
        def segment(self, image: np.ndarray) -> Segmentation:
            frames.append(weakref.ref(image))
            assert sum(frame() is not None for frame in frames) <= 3
            return super().segment(image)

    source = film(tmp_path / "clip.mp4", tuple(range(0, 40 * 512, 512)), sound="aac")
    predict_all(Watching(), source, tmp_path / "a")
    assert len(frames) == 40


def test_results_are_no_inputs(tmp_path: Path) -> None:
    """They are recognized by the mark inside: clip_mask.mkv of another program is a video."""
    own = film(tmp_path / "clip_mask.mkv", EVEN[:2])
    source = film(tmp_path / "film.mkv", EVEN[:2])
    table = predict_all(Bright(), source, tmp_path / "film")
    results = [Path(path) for path in table["files"] if not path.endswith(".json")]
    assert len(results) == 4
    assert all(map(is_own_output, results))
    skipped: list[Path] = []
    assert find_inputs([tmp_path], skipped) == [(own, Path(own.stem)), (source, Path("film"))]
    assert sorted(skipped) == sorted(results)
    for name in ("film_overlay.mp4", "film_overlay.mkv", "film_legend.png"):
        images = [(source, Path("film")), (tmp_path / name, Path(name).with_suffix(""))]
        with pytest.raises(FullconvError, match=f"the overlay of .* would overwrite .*{name}"):
            refuse_overwriting_inputs(images, tmp_path, ["overlay"])
        refuse_overwriting_inputs(images, tmp_path, ["json"])
