from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from films import UNEVEN, cut, film, pixels_of, sounds, times, tone

from fullconv.core.errors import FullconvError
from fullconv.data.io.video import VIDEO_SUFFIXES, VideoReader, is_video, video_software_tag

pytest.importorskip("av")
LONG = tuple(range(0, 40 * 512, 512))


def ignore(packet: Any) -> None:
    pass


def test_videos_are_recognized_by_the_suffix() -> None:
    assert all(is_video(Path(f"a{s}")) and is_video(Path(f"a{s.upper()}")) for s in VIDEO_SUFFIXES)
    assert not is_video(Path("a.png"))


def test_frames_and_sound_are_read_as_stored(tmp_path: Path) -> None:
    source = film(tmp_path / "12:30.mp4", UNEVEN, sound="aac")
    packets: list[bytes] = []
    with VideoReader.open(source) as video:
        frames = list(video.frames(lambda packet: packets.append(bytes(packet))))
        assert video.announced_frames == video.count == 8
        assert video.size == (48, 64)
        assert [frame.pts * video.time_base for frame in frames] == times(source)
        facts = {"height": 48, "width": 64, "frames": 8, "seconds": 20000 / 12800}
        assert video.to_dict() == {**facts, "damaged": None}
    assert all((a.pixels == b).all() for a, b in zip(frames, pixels_of(source), strict=True))
    assert packets == [content for content, _ in sounds(source)]


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "mpeg4"), ("a.mpg", "mpeg2video")])
def test_older_formats(tmp_path: Path, name: str, codec: str) -> None:
    with VideoReader.open(film(tmp_path / name, codec=codec)) as video:
        stamps = [frame.pts * video.time_base for frame in video.frames(ignore)]
        assert video.damaged == ""
    assert len(stamps) == 8
    assert np.diff(stamps) == pytest.approx(1 / 25, abs=1e-3)


def test_a_trimmed_video_is_not_damaged(tmp_path: Path) -> None:
    # MP4 that begins before its time 0: players leave out the earlier frames.
    source = film(tmp_path / "a.mp4", tuple(stamp - 10 * 512 for stamp in LONG))
    with VideoReader.open(source) as video:
        assert len(list(video.frames(ignore))) == len(pixels_of(source))
        assert video.damaged == ""


@pytest.mark.parametrize(
    ("name", "options"), [("a.mkv", {}), ("a.mp4", {"movflags": "+faststart"})]
)
def test_a_truncated_video(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    source = cut(film(tmp_path / name, LONG, **options), 0.6)
    with VideoReader.open(source) as video:
        count = len(list(video.frames(ignore)))
        damaged = video.to_dict()["damaged"]
    assert 5 < count < 40
    total = " of 40" if name == "a.mp4" else ""
    assert damaged.startswith(f"{source}: ")
    assert damaged.endswith(f"; {count} frames{total} could be read")


def test_a_video_with_a_hole_is_read_to_its_end(tmp_path: Path) -> None:
    source = film(tmp_path / "a.mkv", LONG)
    content = bytearray(source.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    source.write_bytes(content)
    with VideoReader.open(source) as video:
        stamps = [frame.pts for frame in video.frames(ignore)]
        assert video.damaged != ""
    assert len(stamps) > 5
    assert (np.diff(stamps) > 0).all()


def test_sound_with_an_earlier_time_is_left_out(tmp_path: Path) -> None:
    # One number in the file is larger by 98 ms, so that the next packet is too early.
    source = film(tmp_path / "a.mkv", sound="aac")
    stored = sounds(source)
    content, track = source.read_bytes(), b"\x82"
    right, wrong = (track + number.to_bytes(2, "big") for number in (192, 290))
    assert content.count(right) == 1
    source.write_bytes(content.replace(right, wrong))
    packets: list[bytes] = []
    with VideoReader.open(source) as video:
        list(video.frames(lambda packet: packets.append(bytes(packet))))
        damaged = f"{source}: its sound is damaged; 8 frames could be read"
        assert video.to_dict()["damaged"] == damaged
    assert packets == [packet for packet, time in stored if time * 1000 != 192]


@pytest.mark.parametrize(
    ("old", "new"), [(b"Lavf", b"L\xe4vf"), (b"A_AAC", b"A_XYZ")], ids=["metadata", "sound"]
)
def test_unknown_metadata_and_sound_are_left_out(tmp_path: Path, old: bytes, new: bytes) -> None:
    source = film(tmp_path / "a.mkv", sound="aac")
    source.write_bytes(source.read_bytes().replace(old, new))
    assert video_software_tag(source) == ""
    with VideoReader.open(source) as video:
        assert len(video.sounds) == (old == b"Lavf")
        assert len(list(video.frames(ignore))) == 8


def refused(source: Path) -> FullconvError:
    with pytest.raises(FullconvError) as caught, VideoReader.open(source):
        pass
    return caught.value


def test_other_files_are_refused(tmp_path: Path) -> None:
    gone, bad = tmp_path / "gone.mp4", tmp_path / "bad.mp4"
    assert refused(gone).message == f"no video {gone}: there is no such file."
    reason = "Invalid data found when processing input."
    for content in (b"", b"no video", b"\0" * 5000):
        bad.write_bytes(content)
        assert refused(bad).message == f"{bad} cannot be read as a video: {reason}"
        assert refused(bad).hint == "copy or download it again"
        assert video_software_tag(bad) == ""
    only_sound = tone(tmp_path / "tone.mkv")
    assert refused(only_sound).message == f"{only_sound} has no frames; expected a video."


def test_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = film(tmp_path / "clip.mkv")
    monkeypatch.setitem(sys.modules, "av", None)
    error = refused(source)
    assert error.message == f"{source} is a video. Reading videos requires PyAV."
    assert error.hint == "pip install av"
    assert video_software_tag(source) == ""
