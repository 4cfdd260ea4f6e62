"""Write videos for tests, and read what is in a video."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fullconv.data.synthetic.scenes import scene

EVEN = tuple(range(0, 8 * 512, 512))  # time stamps of a steady clip, in units of 1 / 12800
UNEVEN = (0, 512, 1024, 4096, 4300, 9000, 9512, 20000)


def film(
    path: Path,
    stamps: tuple[int, ...] = EVEN,
    *,
    size: tuple[int, int] = (48, 64),
    sound: str = "",
    sound_first: bool = False,
    turned: int = 0,
    codec: str = "libx264",
    **options: str,
) -> Path:
    """Write scenes of 25 frames a second and a sine tone."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options) as file:
        track = file.add_stream(sound, rate=16000) if sound_first else None
        stream = file.add_stream(codec, rate=25, options={"crf": "1"} if "264" in codec else {})
        stream.height, stream.width = size
        stream.pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, 12800)
        if codec.startswith("mpeg"):
            stream.codec_context.time_base = Fraction(1, 25)
        if turned:
            stream.set_display_rotation(turned)
        if sound and track is None:
            track = file.add_stream(sound, rate=16000)
        if track is not None:
            track.layout = "mono"
        for number, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(drawing(number % 40, size), format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 12800)
            file.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        file.mux(stream.encode(None))
        if track is not None:
            _sing(file, track)
    return path


def _sing(file: Any, track: Any) -> None:
    import av

    tone = np.sin(np.arange(1024 * 6) / 16000 * 440 * 2 * np.pi).astype(np.float32)
    for start in range(0, len(tone), 1024):
        part = tone[None, start : start + 1024]
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, start
        file.mux(track.encode(frame))
    file.mux(track.encode(None))


def tone(path: Path) -> Path:
    import av

    with av.open(str(path), "w") as file:
        track = file.add_stream("aac", rate=16000)
        track.layout = "mono"
        _sing(file, track)
    return path


def cut(path: Path, share: float) -> Path:
    """Keep the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


@lru_cache
def drawing(number: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    return scene(number, size=size)[0]


def shown(path: Path) -> list[Any]:
    import av

    with av.open(str(path)) as file:
        return list(file.decode(video=0))


def pixels_of(path: Path) -> list[np.ndarray]:
    return [frame.to_ndarray(format="rgb24") for frame in shown(path)]


def masks_of(path: Path) -> list[np.ndarray]:
    return [frame.to_ndarray() for frame in shown(path)]


def times(path: Path) -> list[Fraction]:
    """Return the times of the frames in seconds."""
    return [frame.pts * frame.time_base for frame in shown(path)]


def sounds(path: Path) -> list[tuple[bytes, Fraction]]:
    """Return the stored packets of sound and their times in seconds."""
    import av

    with av.open(str(path)) as file:
        packets = [p for p in file.demux(audio=0) if p.size]
        return [(bytes(p), p.pts * p.time_base) for p in packets]
