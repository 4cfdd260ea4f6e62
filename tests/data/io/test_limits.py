from __future__ import annotations

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.data.io import limits
from fullconv.data.io.limits import (
    allow_large_images,
    decode_budget,
    no_warnings,
    read_content,
    refuse_large,
)


def test_more_pixels_than_pillow_opens_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_large((1000, 1000), "mask", "a.npy")
    with pytest.raises(FullconvError, match=r"60000 x 60000 pixels .*3600 million") as caught:
        refuse_large((60_000, 60_000), "mask", "a.npy")
    assert "MAX_IMAGE_PIXELS" in caught.value.hint
    refuse_large((6_000, 7_000), "mask", "a.jp2", share=1 / 2)
    with pytest.raises(FullconvError, match="at most 45 million are read"):
        refuse_large((7_000, 7_000), "mask", "a.jp2", share=1 / 2)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    refuse_large((60_000, 60_000), "mask", "a.npy")


def test_any_size_is_read_for_a_while() -> None:
    before = Image.MAX_IMAGE_PIXELS
    with allow_large_images():
        refuse_large((60_000, 60_000), "mask", "a.npy")
    assert before == Image.MAX_IMAGE_PIXELS is not None


def test_files_are_read_up_to_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"12345")
    assert read_content(path) == b"12345"
    monkeypatch.setattr(limits, "_MAX_BYTES", 4)
    with pytest.raises(FullconvError, match=r"mask .*a\.png has 0\.0 GB; files up to"):
        read_content(path, "mask")
    with pytest.raises(FullconvError, match=r"no image .*none\.png: there is no such file"):
        read_content(tmp_path / "none.png")


def test_warnings_are_silenced_inside_only(recwarn: pytest.WarningsRecorder) -> None:
    with no_warnings:
        with no_warnings:
            warnings.warn("inside", stacklevel=1)
        warnings.warn("still inside", stacklevel=1)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="outside"):
        warnings.warn("outside", stacklevel=1)


def test_threads_take_turns_if_they_decode_much_at_once() -> None:
    limit, inside, peak = limits._DECODED_AT_ONCE, 0, 0
    lock = threading.Lock()

    def work(pixels: int) -> None:
        nonlocal inside, peak
        with decode_budget.reserve(pixels):
            with lock:
                inside += pixels
                peak = max(peak, inside)
            threading.Event().wait(0.005)
            with lock:
                inside -= pixels

    sizes = [limit // 3 + 1] * 8 + [2 * limit]  # the largest one is decoded alone
    with ThreadPoolExecutor(len(sizes)) as pool:
        list(pool.map(work, sizes, timeout=30))
    assert inside == 0
    assert peak == 2 * limit


def test_room_is_given_back_after_an_error() -> None:
    for _ in range(3):
        with pytest.raises(ValueError, match="no"), decode_budget.reserve(limits._DECODED_AT_ONCE):
            raise ValueError("no")
