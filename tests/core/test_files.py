"""Files are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from fullconv.core.files import atomic_path, atomic_write, cache_dir


def test_a_file_is_replaced_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new/folder/a.txt"
    atomic_write(path, "straße")
    assert path.read_bytes() == "straße".encode()
    with atomic_path(path) as temporary:
        temporary.write_text("unfinished")
        assert temporary.suffix == ".txt"
        assert path.read_text(encoding="utf-8") == "straße"
    assert path.read_text() == "unfinished"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    atomic_write(path, b"old")
    with pytest.raises(TypeError), atomic_path(path) as temporary:
        temporary.write_bytes(b"new" + None)  # type: ignore[operator]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OSError, match=r"a\.bin"):
        atomic_write(path / "below a file", b"")


def test_cache_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "fullconv"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache/fullconv"


def test_names_of_any_length_and_encoding(tmp_path: Path) -> None:
    path = tmp_path / f"{'x' * 240}.png"
    atomic_write(path, "stra\udcdfe")  # a file name that is no UTF-8, as Python reads it
    assert path.read_bytes() == rb"stra\udcdfe"
