"""Videos drawn here: what is written has the frames, the time stamps and the sound of the source,
and the labels that the model gives its frames."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fullconv.cli import run
from fullconv.data.channels import Input
from fullconv.data.drawn import scene
from fullconv.errors import FullconvError
from fullconv.labels import Labels
from fullconv.model import Model
from fullconv.options import Options
from fullconv.predict import Predictor
from fullconv.video import is_video, predict_video

av = pytest.importorskip("av")

MakeModel = Callable[..., Model]
EVEN = tuple(range(0, 8 * 512, 512))  # time stamps of a steady clip, in units of 1 / 12800
UNEVEN = (0, 512, 1024, 4096, 4300, 9000, 9512, 20000)


def film(
    path: Path,
    stamps: tuple[int, ...] = EVEN,
    *,
    size: tuple[int, int] = (48, 64),
    sound: str = "",
    turned: int = 0,
    codec: str = "libx264",
    classes: int = 4,
) -> Path:
    """Drawn streets, 25 frames a second where they are even; a sine tone."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=25, options={"crf": "1"} if "264" in codec else {})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p" if codec == "libx264" else "bgr0"
        stream.codec_context.time_base = Fraction(1, 12800)
        if turned:
            stream.set_display_rotation(turned)
        heard = file.add_stream(sound, rate=16000) if sound else None
        if heard is not None:
            heard.layout = "mono"
        for number, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(drawing(number, size), format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 12800)
            file.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        file.mux(stream.encode(None))
        if heard is not None:
            tone = np.sin(np.arange(1024 * 6) / 16000 * 440 * 2 * np.pi).astype(np.float32)
            for start in range(0, len(tone), 1024):
                part = tone[None, start : start + 1024]
                made = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
                made.sample_rate, made.pts = 16000, start
                file.mux(heard.encode(made))
            file.mux(heard.encode(None))
    return path


def drawing(number: int, size: tuple[int, int]) -> np.ndarray:
    return scene(number, size=size)[0]


def shown(path: Path) -> list[Any]:
    with av.open(str(path)) as file:
        return list(file.decode(video=0))


def pixels_of(path: Path) -> list[np.ndarray]:
    return [frame.to_ndarray(format="rgb24") for frame in shown(path)]


def times(path: Path) -> list[Fraction]:
    return [frame.pts * frame.time_base for frame in shown(path)]


def sounds(path: Path) -> list[tuple[bytes, Fraction]]:
    with av.open(str(path)) as file:
        packets = [p for p in file.demux(audio=0) if p.size]
        return [(bytes(p), p.pts * p.time_base) for p in packets]


@pytest.fixture
def predictor(make_model: MakeModel) -> Predictor:
    return Predictor(make_model(("sky", "road", "tree")), device="cpu")


def masks_of(path: Path) -> list[np.ndarray]:
    return [frame.to_ndarray() for frame in shown(path)]


@pytest.mark.parametrize("stamps", [EVEN, UNEVEN], ids=["even", "uneven"])
def test_every_frame_its_labels_its_time_and_the_sound(
    predictor: Predictor, tmp_path: Path, stamps: tuple[int, ...]
) -> None:
    source = film(tmp_path / "clip.mp4", stamps, sound="aac")
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
    # Lossy, and still the picture that it is.
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


def test_labels_are_repeated_between(predictor: Predictor, tmp_path: Path) -> None:
    source = film(tmp_path / "clip.mkv")
    facts = predict_video(predictor, source, tmp_path / "a", ["mask"], every=3)
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


def test_heads_and_options(make_model: MakeModel, tmp_path: Path) -> None:
    made = make_model(("sky", "road", "tree", "wood", "stone"))
    labels, wood = Labels(made.labels.names[:3]), Labels(("wood", "stone"))
    model = Model(made.network, labels, made.card, head="things", heads={"materials": wood})
    predictor = Predictor(model, device="cpu")
    predictor.use(Options(unsure=0.999, min_area=5))
    source = film(tmp_path / "clip.mkv", EVEN[:2])
    facts = predict_video(predictor, source, tmp_path / "a", ["mask", "color"])
    wanted = predictor(pixels_of(source)[0])
    assert (masks_of(tmp_path / "a_mask.mkv")[0] == wanted.mask).all()
    heads = wanted.heads["materials"]
    assert (masks_of(tmp_path / "a_materials_mask.mkv")[0] == heads.mask).all()
    assert (heads.mask == 255).any()
    assert "unsure" in facts["heads"]["materials"]
    assert (tmp_path / "a_materials_legend.png").is_file()


def test_sound_that_mp4_does_not_hold_is_kept_in_matroska(
    predictor: Predictor, tmp_path: Path
) -> None:
    source = film(tmp_path / "clip.mkv", sound="tta")
    facts = predict_video(predictor, source, tmp_path / "a")
    assert facts["files"][0] == str(tmp_path / "a_overlay.mkv")
    heard, wanted = sounds(tmp_path / "a_overlay.mkv"), sounds(source)
    assert [one for one, _ in heard] == [of for of, _ in wanted]


def test_what_was_read_of_a_damaged_one_is_kept(predictor: Predictor, tmp_path: Path) -> None:
    source = film(tmp_path / "clip.mkv", tuple(range(0, 40 * 512, 512)))
    whole = source.read_bytes()
    source.write_bytes(whole[: int(len(whole) * 0.6)])
    facts = predict_video(predictor, source, tmp_path / "a", ["mask"])
    assert 5 < facts["frames"] < 40
    assert len(masks_of(tmp_path / "a_mask.mkv")) == facts["frames"]
    assert facts["damaged"].startswith(f"{source}: ")
    assert facts["damaged"].endswith(f"; {facts['frames']} frames could be read")
    # With its index before its frames, as in a download that was broken off.
    source = tmp_path / "clip.mp4"
    with av.open(str(source), "w", options={"movflags": "+faststart"}) as file:
        stream = file.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for number in range(40):
            made = av.VideoFrame.from_ndarray(drawing(number, (48, 64)), format="rgb24")
            file.mux(stream.encode(made))
        file.mux(stream.encode(None))
    whole = source.read_bytes()
    source.write_bytes(whole[: int(len(whole) * 0.6)])
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
    assert error.message == f"{tmp_path / 'tone.mkv'} shows no frame; expected a video."


def test_what_makes_no_sense(
    make_model: MakeModel, predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = film(tmp_path / "clip.mkv", EVEN[:2])
    assert refused(predictor, source, outputs=["polygons"]).message == (
        "of a video there is no polygons; there are overlay, color, mask, json."
    )
    assert "every 0 frames; expected 1 or more" in refused(predictor, source, every=0).message
    (tmp_path / "file").touch()
    with pytest.raises(FullconvError, match=r"could not be written to .*a_mask\.mkv: File exists"):
        predict_video(predictor, source, tmp_path / "file" / "a", ["mask"])
    monkeypatch.setitem(sys.modules, "av", None)
    error = refused(predictor, source)
    assert error.message == "videos are read with PyAV, which is not installed."
    assert error.hint == 'pip install "fullconv[video]"'


def test_a_model_that_takes_more(make_model: MakeModel, tmp_path: Path) -> None:
    depth = Input("depth", 1, (2000.0,), (700.0,))
    model = replace(make_model(), inputs=(depth,), fusion="early")
    error = refused(Predictor(model, device="cpu"), film(tmp_path / "clip.mkv", EVEN[:2]))
    assert "the model takes depth beside each picture, which" in error.message


def test_as_a_command(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = [film(tmp_path / name, EVEN[:4]) for name in ("clip.mp4", "clip.mkv")]
    (tmp_path / "bad.webm").write_text("no video")
    named = [str(path) for path in (*clips, tmp_path / "bad.webm")]
    out = tmp_path / "out"
    argv = ["predict", str(model_folder), *named, "--out", str(out), "--every", "2"]
    assert run([*argv, "--json"]) == 1
    printed = capsys.readouterr()
    facts = json.loads(printed.out)
    assert [video["labelled"] for video in facts["videos"]] == [2, 2]
    assert len(facts["failed"]) == 1
    assert "1 of 3 videos could not be read" in printed.err
    names = ("clip", "clip_mkv")
    assert sorted(path.name for path in out.iterdir()) == sorted(
        f"{name}_{end}" for name in names for end in ("overlay.mp4", "legend.png")
    )
    picture = tmp_path / "a.png"
    assert run(["predict", str(model_folder), named[0], str(picture)]) == 1
    assert f"{picture} is no video, and others that were named are" in capsys.readouterr().err
    assert run(["predict", str(model_folder), named[0], "--save", "coco"]) == 1
    assert "of a video there is no coco" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.mp4", "b.MOV", "c.mkv", "d.avi", "e.webm", "f.m4v"])
def test_by_the_suffix(name: str) -> None:
    assert is_video(Path(name))
    assert not is_video(Path(name).with_suffix(".png"))
