"""Reading drawn videos: every frame, upright, with its time; what is broken, and what is none."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from films import UNEVEN, cut, film, pixels_of, sounds, times, tone

from fullconv.core.errors import FullconvError
from fullconv.data.io.video import VIDEO_SUFFIXES, VideoReader, is_video, video_software_tag

pytest.importorskip("av")
LONG = tuple(range(0, 40 * 512, 512))


@pytest.mark.parametrize("suffix", sorted(VIDEO_SUFFIXES))
def test_by_the_suffix(suffix: str) -> None:
    assert is_video(Path(f"a{suffix}"))
    assert is_video(Path(f"a{suffix.upper()}"))
    assert not is_video(Path("a.png"))


def test_frames_are_those_that_are_stored_and_the_sound_comes_between(tmp_path: Path) -> None:
    source = film(tmp_path / "12:30.mp4", UNEVEN, sound="aac")
    heard: list[bytes] = []
    with VideoReader.open(source) as opened:
        found = list(opened.frames(lambda packet: heard.append(bytes(packet))))
        assert opened.announced_frames == opened.count == 8
        assert opened.size == (48, 64)
        assert [frame.pts * opened.time_base for frame in found] == times(source)
        assert opened.to_dict() == {
            "height": 48, "width": 64, "frames": 8, "seconds": 20000 / 12800, "damaged": None,
        }  # fmt: skip
    assert all((a.pixels == b).all() for a, b in zip(found, pixels_of(source), strict=True))
    assert heard == [of for of, _ in sounds(source)]


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "mpeg4"), ("a.mpg", "mpeg2video")])
def test_older_formats(tmp_path: Path, name: str, codec: str) -> None:
    source = film(tmp_path / name, codec=codec)
    with VideoReader.open(source) as opened:
        found = list(opened.frames(lambda packet: None))
        assert opened.damaged == ""
    assert len(found) == 8
    assert np.diff([frame.pts * opened.time_base for frame in found]) == pytest.approx(
        1 / 25, abs=1e-3
    )


def test_one_that_was_trimmed_is_not_damaged(tmp_path: Path) -> None:
    """MP4 that begins before its time 0: players leave the frames out that are earlier."""
    source = film(tmp_path / "a.mp4", tuple(stamp - 10 * 512 for stamp in LONG))
    with VideoReader.open(source) as opened:
        count = len(list(opened.frames(lambda packet: None)))
        assert opened.damaged == ""
    assert count == len(pixels_of(source))


@pytest.mark.parametrize(
    ("name", "options"), [("a.mkv", {}), ("a.mp4", {"movflags": "+faststart"})]
)
def test_one_that_was_cut_off(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    source = cut(film(tmp_path / name, LONG, **options), 0.6)
    with VideoReader.open(source) as opened:
        found = list(opened.frames(lambda packet: None))
        damaged = opened.to_dict()["damaged"]
    assert 5 < len(found) < 40
    of = " of 40" if name == "a.mp4" else ""
    assert damaged.startswith(f"{source}: ")
    assert damaged.endswith(f"; {len(found)} frames{of} could be read")


def test_one_with_a_hole(tmp_path: Path) -> None:
    """What is behind the hole is read too, and time goes on."""
    source = film(tmp_path / "a.mkv", LONG)
    whole = bytearray(source.read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 2000] = bytes(2000)
    source.write_bytes(whole)
    with VideoReader.open(source) as opened:
        found = [frame.pts for frame in opened.frames(lambda packet: None)]
        assert opened.damaged != ""
    assert len(found) > 5
    assert (np.diff(found) > 0).all()


def test_sound_that_goes_back_is_left_out(tmp_path: Path) -> None:
    """A single number of the file is larger by 98 ms; so the packet behind it is too early."""
    source = film(tmp_path / "a.mkv", sound="aac")
    before = sounds(source)
    whole = source.read_bytes()
    track, wrong = b"\x82", (290).to_bytes(2, "big")
    assert whole.count(track + (192).to_bytes(2, "big")) == 1
    source.write_bytes(whole.replace(track + (192).to_bytes(2, "big"), track + wrong))
    heard: list[bytes] = []
    with VideoReader.open(source) as opened:
        list(opened.frames(lambda packet: heard.append(bytes(packet))))
        assert (
            opened.to_dict()["damaged"] == f"{source}: its sound is damaged; 8 frames could be read"
        )
    assert heard == [of for of, at in before if at * 1000 != 192]


def test_metadata_of_another_encoding(tmp_path: Path) -> None:
    source = film(tmp_path / "a.mkv")
    whole = source.read_bytes()
    source.write_bytes(whole.replace(b"Lavf", b"L\xe4vf"))
    assert video_software_tag(source) == ""
    with VideoReader.open(source) as opened:
        assert len(list(opened.frames(lambda packet: None))) == 8


def test_sound_of_no_known_kind_is_left_out(tmp_path: Path) -> None:
    source = film(tmp_path / "a.mkv", sound="aac")
    source.write_bytes(source.read_bytes().replace(b"A_AAC", b"A_XYZ"))
    with VideoReader.open(source) as opened:
        assert opened.sounds == []
        assert len(list(opened.frames(lambda packet: None))) == 8


def refused(source: Path) -> FullconvError:
    with pytest.raises(FullconvError) as caught, VideoReader.open(source):
        pass
    return caught.value


def test_what_is_no_video(tmp_path: Path) -> None:
    gone = tmp_path / "gone.mp4"
    assert refused(gone).message == f"no video {gone}: there is no such file."
    said = "Invalid data found when processing input."
    for content in (b"", b"no video", b"\0" * 5000):
        bad = tmp_path / "bad.mp4"
        bad.write_bytes(content)
        assert refused(bad).message == f"{bad} cannot be read as a video: {said}"
        assert refused(bad).hint == "copy or download it again"
        assert video_software_tag(bad) == ""
    only = tone(tmp_path / "tone.mkv")
    assert refused(only).message == f"{only} has no frames; expected a video."


def test_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = film(tmp_path / "clip.mkv")
    monkeypatch.setitem(sys.modules, "av", None)
    error = refused(source)
    assert error.message == f"{source} is a video. Reading videos requires PyAV."
    assert error.hint == "pip install av"
    assert video_software_tag(source) == ""
