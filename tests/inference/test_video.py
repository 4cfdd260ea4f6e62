"""Videos drawn here: what is written has the frames, the time stamps and the sound of the source,
and the labels that the model gives its frames."""

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
from films import EVEN, UNEVEN, cut, film, masks_of, pixels_of, shown, sounds, times
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
def test_every_frame_its_labels_its_time_and_the_sound(
    predictor: Predictor, tmp_path: Path, stamps: tuple[int, ...]
) -> None:
    source = film(tmp_path / "clip.mp4", stamps, sound="aac", sound_first=stamps is UNEVEN)
    kinds = ["overlay", "color", "mask", "json"]
    facts = predict_video(predictor, source, tmp_path / "out/clip", kinds)
    names = [f"clip_{end}" for end in ("overlay.mp4", "color.mp4", "mask.mkv", "legend.png")]
    files = [tmp_path / "out" / name for name in (*names, "clip.json")]
    assert facts["files"] == [str(path) for path in files]
    assert sorted((tmp_path / "out").iterdir()) == sorted(files)
    overlay, color, mask = files[:3]
    wanted = [predictor(frame) for frame in pixels_of(source)]
    found = masks_of(mask)
    assert len(found) == len(wanted) == 8
    assert all((one == of.mask).all() for one, of in zip(found, wanted, strict=True))
    assert len({of.mask.tobytes() for of in wanted}) > 3
    for path in (overlay, color):
        assert times(path) == times(source)
        assert sounds(path) == sounds(source)
        (stream,) = av.open(str(path)).streams.video
        assert stream.codec_context.name == "h264"
        if stamps is EVEN:
            assert stream.average_rate == 25
    assert max(abs(a - b) for a, b in zip(times(mask), times(source), strict=True)) <= 0.0005
    # Lossy, and still the image that it is.
    for path, drawn in (
        (overlay, [np.asarray(of.overlay(legend=False)) for of in wanted]),
        (color, [np.asarray(of.color()) for of in wanted]),
    ):
        for one, of in zip(pixels_of(path), drawn, strict=True):
            assert abs(one.astype(float) - of).mean() < 12
    means = {name: np.mean([of.area[name] for of in wanted]) for name in predictor.labels.names}
    assert facts["area"] == {k: pytest.approx(v) for k, v in means.items() if v}
    assert {key: facts[key] for key in ("height", "width", "frames", "labelled", "damaged")} == {
        "height": 48, "width": 64, "frames": 8, "labelled": 8, "damaged": None,
    }  # fmt: skip
    assert facts["seconds"] == pytest.approx(stamps[-1] / 12800)
    written = json.loads(files[-1].read_text())
    assert written == {key: value for key, value in facts.items() if key != "files"}


def test_areas_alone_of_a_video_with_sound(predictor: Predictor, tmp_path: Path) -> None:
    """Nobody writes the sound."""
    source = film(tmp_path / "clip.mp4", EVEN, sound="aac", sound_first=True)
    facts = predict_video(predictor, source, tmp_path / "out/clip", ["json"])
    assert facts["files"] == [str(tmp_path / "out/clip.json")]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["clip.json"]
    both = predict_video(predictor, source, tmp_path / "both/clip", ["mask", "json"])
    assert {**facts, "files": both["files"]} == both


def test_the_legend_of_an_overlay_shows_what_is_not_painted(
    make_model: MakeModel, tmp_path: Path
) -> None:
    labels = Labels(("background", "road", "tree"))
    predictor = Predictor(make_model(labels.names), device="cpu")
    source = film(tmp_path / "clip.mp4", EVEN[:2])
    for kinds, over in ((["overlay"], True), (["overlay", "color"], False)):
        predict_video(predictor, source, tmp_path / "a", kinds)
        with Image.open(tmp_path / "a_legend.png") as image:
            assert np.array_equal(np.asarray(image), legend(labels, over_image=over))


def test_labels_are_repeated_between(predictor: Predictor, tmp_path: Path) -> None:
    source = film(tmp_path / "clip.mkv")
    predictor.set_options(PredictOptions(frame_step=3))
    facts = predict_video(predictor, source, tmp_path / "a", ["mask"])
    assert (facts["frames"], facts["labelled"]) == (8, 3)
    wanted = [predictor(frame).mask for frame in pixels_of(source)]
    for number, found in enumerate(masks_of(tmp_path / "a_mask.mkv")):
        assert (found == wanted[number // 3 * 3]).all()


@pytest.mark.parametrize("turned", [90, -90, 180])
def test_a_video_that_was_filmed_upright(predictor: Predictor, tmp_path: Path, turned: int) -> None:
    """As ffmpeg has it: a rotation of so many degrees against the clock, to be done by players."""
    source = film(tmp_path / "clip.mp4", turned=turned)
    facts = predict_video(predictor, source, tmp_path / "a", ["mask", "overlay"])
    size = (64, 48) if abs(turned) == 90 else (48, 64)
    assert (facts["height"], facts["width"]) == size
    frames = shown(tmp_path / "a_overlay.mp4")
    assert {frame.rotation for frame in frames} == {0}
    assert (frames[0].height, frames[0].width) == size
    for stored, found in zip(pixels_of(source), masks_of(tmp_path / "a_mask.mkv"), strict=True):
        upright = {
            90: stored.transpose(1, 0, 2)[::-1],
            -90: stored[::-1].transpose(1, 0, 2),
            180: stored[::-1, ::-1],
        }[turned]
        assert (found == predictor(np.ascontiguousarray(upright)).mask).all()


def test_odd_sides_and_more_than_255_classes(make_model: MakeModel, tmp_path: Path) -> None:
    predictor = Predictor(make_model(tuple(f"class {k}" for k in range(300))), device="cpu")
    source = film(tmp_path / "clip.avi", EVEN[:2], size=(33, 47), codec="ffv1")
    predict_video(predictor, source, tmp_path / "a", ["mask", "overlay"])
    wanted = [predictor(frame).mask for frame in pixels_of(source)]
    found = [frame.to_ndarray() for frame in shown(tmp_path / "a_mask.mkv")]
    assert found[0].dtype == np.uint16
    assert all((one == of).all() for one, of in zip(found, wanted, strict=True))
    assert pixels_of(tmp_path / "a_overlay.mp4")[0].shape == (34, 48, 3)


def test_heads_and_options(tmp_path: Path) -> None:
    model = lively(stride=8, head="things", heads={"materials": Labels(("wood", "stone"))})
    predictor = Predictor(model, device="cpu")
    predictor.set_options(PredictOptions(min_confidence=0.7))
    source = film(tmp_path / "clip.mkv", EVEN[:2], size=(160, 224))
    facts = predict_video(predictor, source, tmp_path / "a", ["mask", "color"])
    wanted = predictor(pixels_of(source)[0])
    assert (masks_of(tmp_path / "a_mask.mkv")[0] == wanted.mask).all()
    heads = wanted.heads["materials"]
    assert (masks_of(tmp_path / "a_materials_mask.mkv")[0] == heads.mask).all()
    assert {0, 1, 255} == {*np.unique(heads.mask)}
    assert "unsure" in facts["heads"]["materials"]
    assert (tmp_path / "a_materials_legend.png").is_file()


def test_sound_that_mp4_does_not_hold_is_kept_in_matroska(
    predictor: Predictor, tmp_path: Path
) -> None:
    source = film(tmp_path / "clip.mkv", sound="tta")
    facts = predict_video(predictor, source, tmp_path / "a", ["overlay"])
    assert facts["files"][0] == str(tmp_path / "a_overlay.mkv")
    heard, wanted = sounds(tmp_path / "a_overlay.mkv"), sounds(source)
    assert [one for one, _ in heard] == [of for of, _ in wanted]


def test_what_was_read_of_a_damaged_one_is_kept(predictor: Predictor, tmp_path: Path) -> None:
    source = cut(film(tmp_path / "clip.mkv", tuple(range(0, 40 * 512, 512))), 0.6)
    facts = predict_video(predictor, source, tmp_path / "a", ["mask"])
    assert 5 < facts["frames"] < 40
    assert len(masks_of(tmp_path / "a_mask.mkv")) == facts["frames"]
    assert facts["damaged"].startswith(f"{source}: ")
    assert facts["damaged"].endswith(f"; {facts['frames']} frames could be read")
    # With its index before its frames, as in a download that was broken off.
    source = film(tmp_path / "clip.mp4", tuple(range(0, 40 * 512, 512)), movflags="+faststart")
    cut(source, 0.6)
    facts = predict_video(predictor, source, tmp_path / "b", ["mask"])
    assert 5 < facts["frames"] < 40
    assert facts["damaged"].endswith(f"; {facts['frames']} frames of 40 could be read")


def refused(predictor: Any, source: Path, **options: Any) -> FullconvError:
    with pytest.raises(FullconvError) as caught:
        predict_video(predictor, source, source.with_name("a"), **options)
    assert not [p for p in source.parent.iterdir() if p.name.startswith((".a", "a_"))]
    return caught.value


def test_what_is_no_video(predictor: Predictor, tmp_path: Path) -> None:
    error = refused(predictor, tmp_path / "gone.mp4")
    assert error.message == f"no video {tmp_path / 'gone.mp4'}: there is no such file."
    (tmp_path / "text.mp4").write_text("no video")
    error = refused(predictor, tmp_path / "text.mp4")
    assert error.message == (
        f"{tmp_path / 'text.mp4'} cannot be read as a video: Invalid data found when processing "
        "input."
    )
    with av.open(str(tmp_path / "tone.mkv"), "w") as file:
        heard = file.add_stream("aac", rate=16000)
        heard.layout = "mono"
        silence = np.zeros((1, 1024), np.float32)
        made = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        made.sample_rate = 16000
        file.mux(heard.encode(made))
        file.mux(heard.encode(None))
    error = refused(predictor, tmp_path / "tone.mkv")
    assert error.message == f"{tmp_path / 'tone.mkv'} has no frames; expected a video."


def test_what_makes_no_sense(predictor: Predictor, tmp_path: Path) -> None:
    source = film(tmp_path / "clip.mkv", EVEN[:2])
    assert refused(predictor, source, outputs=["polygons"]).message == (
        f"{source} is a video or is read in windows, and polygons is not available for these; "
        "expected mask, "
        "color, overlay, json."
    )
    (tmp_path / "file").touch()
    with pytest.raises(UnwrittenError, match=r"could not be written to .*a_mask\.mkv: File exists"):
        predict_video(predictor, source, tmp_path / "file" / "a", ["mask"])


def test_a_model_that_takes_more(make_model: MakeModel, tmp_path: Path) -> None:
    depth = ExtraInput("depth", 1, (2000.0,), (700.0,))
    model = replace(make_model(), extra_inputs=(depth,), fusion="early")
    error = refused(Predictor(model, device="cpu"), film(tmp_path / "clip.mkv", EVEN[:2]))
    assert "the model takes depth with each image, which" in error.message


def test_times_that_mp4_does_not_hold(predictor: Predictor, tmp_path: Path) -> None:
    """A month between two frames; it costs this video, and not those behind it."""
    source = film(tmp_path / "clip.mkv", (0, 512, 12800 * 86400 * 30))
    error = refused(predictor, source, outputs=["overlay"])
    assert not isinstance(error, UnwrittenError)
    assert error.message.startswith(
        f"{source} has time stamps or sound that a .mp4 file cannot contain: "
    )
    assert error.hint == f"ffmpeg -i {source} repaired.mp4"


class Bright:
    """Calls a pixel light where its green is; a model of which one knows what it says. It is
    interrupted at a frame."""

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


def test_nothing_is_left_of_one_that_was_interrupted(tmp_path: Path) -> None:
    source = film(tmp_path / "clip.mp4", sound="aac")
    with pytest.raises(KeyboardInterrupt):
        predict_video(Bright(5), source, tmp_path / "out/a", STREAM_OUTPUTS)  # type: ignore[arg-type]
    assert list((tmp_path / "out").iterdir()) == []


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """Played by a limit on the size of files."""
    resource = pytest.importorskip("resource", reason="limits are of POSIX")
    source = film(tmp_path / "clip.mp4", sound="aac")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, before[1]))
    try:
        with pytest.raises(
            UnwrittenError, match=r"could not be written to .*: File too large"
        ) as e:
            predict_video(Bright(), source, tmp_path / "out/a", STREAM_OUTPUTS)  # type: ignore[arg-type]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert e.value.hint.startswith("--out ANOTHER_FOLDER")
    assert list((tmp_path / "out").iterdir()) == []


def test_frames_are_not_kept(tmp_path: Path) -> None:
    frames: list[weakref.ref[np.ndarray]] = []

    class Watching(Bright):
        def segment(self, image: np.ndarray) -> Segmentation:
            frames.append(weakref.ref(image))
            assert sum(frame() is not None for frame in frames) <= 3
            return super().segment(image)

    source = film(tmp_path / "clip.mp4", tuple(range(0, 40 * 512, 512)), sound="aac")
    predict_video(Watching(), source, tmp_path / "a", STREAM_OUTPUTS)  # type: ignore[arg-type]
    assert len(frames) == 40


def test_results_are_no_videos_to_label(tmp_path: Path) -> None:
    """By the mark inside: what others call clip_mask.mkv stays a video."""
    own = film(tmp_path / "clip_mask.mkv", EVEN[:2])
    source = film(tmp_path / "film.mkv", EVEN[:2])
    facts = predict_video(Bright(), source, tmp_path / "film", STREAM_OUTPUTS)  # type: ignore[arg-type]
    results = [Path(path) for path in facts["files"] if not path.endswith(".json")]
    assert len(results) == 4
    assert all(map(is_own_output, results))
    left_out: list[Path] = []
    assert find_inputs([tmp_path], left_out) == [(own, Path(own.stem)), (source, Path("film"))]
    assert sorted(left_out) == sorted(results)
    for name in ("film_overlay.mp4", "film_overlay.mkv", "film_legend.png"):
        found = [(source, Path("film")), (tmp_path / name, Path(name).with_suffix(""))]
        with pytest.raises(FullconvError, match=f"the overlay of .* would overwrite .*{name}"):
            refuse_overwriting_inputs(found, tmp_path, ["overlay"])
        refuse_overwriting_inputs(found, tmp_path, ["json"])
