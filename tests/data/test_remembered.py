from __future__ import annotations

import os
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from fullconv.data.remembered import Remembered, cache_folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "fullconv"


def test_what_was_put_is_there_the_next_time(folder: Path) -> None:
    with Remembered() as known:
        known.put("a", {"b": [1, 2.5, "é", None]})
        assert known.get("c") is None
    with Remembered() as known:
        assert known.get("a") == {"b": [1, 2.5, "é", None]}
        known.put("a", 7)
    with Remembered() as known:
        assert known.get("a") == 7
    assert cache_folder() == folder


def test_without_a_folder_of_ones_own_it_lies_below_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "fullconv"


@pytest.mark.parametrize("trouble", ["damaged", "file in the way", "read-only"])
def test_trouble_costs_nothing_but_time(folder: Path, trouble: str) -> None:
    if trouble == "damaged":
        folder.mkdir()
        (folder / "scans.sqlite").write_bytes(b"no database" * 1000)
    elif trouble == "file in the way":
        folder.write_text("")
    else:
        folder.mkdir()
        (folder / "scans.sqlite").mkdir()
    for _ in range(2):
        with Remembered() as known:
            assert known.get("a") is None
            known.put("a", 1)


def test_many_threads_and_two_at_once(folder: Path) -> None:
    def work(known: Remembered, start: int) -> None:
        for key in range(start, start + 50):
            known.put(str(key), key)
            assert known.get(f"no {key}") is None

    with Remembered() as one, Remembered() as other:
        threads = [
            threading.Thread(target=work, args=(known, 50 * k))
            for k, known in enumerate((one, other, one, other))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with Remembered() as known:
        assert [known.get(str(key)) for key in range(200)] == list(range(200))


def test_the_oldest_are_forgotten(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fullconv.data.remembered._MOST", 3)
    for key in "abcde":
        with Remembered() as known:
            known.put(key, key)
    with Remembered() as known:
        assert [known.get(key) for key in "abcde"] == [None, None, "c", "d", "e"]
    assert os.listdir(folder) == ["scans.sqlite"]


def test_a_locked_file_is_waited_for_once(folder: Path) -> None:
    with Remembered() as known:
        known.put("a", 1)
    other = sqlite3.connect(folder / "scans.sqlite")
    other.execute("BEGIN EXCLUSIVE")
    try:
        with Remembered() as known:
            started = time.monotonic()
            assert [known.get("a") for _ in range(20)] == [None] * 20
            assert time.monotonic() - started < 5  # 20 waits of half a second would be 10
            known.put("b", 2)
    finally:
        other.rollback()
        other.close()
    with Remembered() as known:
        assert known.get("a") == 1


def test_much_that_is_new_is_written_before_the_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fullconv.data.remembered._HELD", 1000)
    with Remembered() as known:
        for key in range(10):
            known.put(str(key), "x" * 300)
        assert known.get("0") == "x" * 300
        assert known.get("9") is None  # not yet
    with Remembered() as known:
        assert known.get("9") == "x" * 300
