from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fullconv import memory

CODE = """
import re
from pathlib import Path
from fullconv.memory import use_large_pages

def huge():
    text = Path("/proc/self/smaps_rollup").read_text()
    return int(re.search(r"AnonHugePages:\\s+(\\d+)", text)[1])

assert use_large_pages() and use_large_pages()
before = huge()
block = bytearray(64 * 2**20)
print(huge() - before)
"""


def in_a_process_of_its_own(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_large_blocks_lie_in_large_pages() -> None:
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not setting.is_file() or "[never]" in setting.read_text():
        pytest.skip("this system has no transparent huge pages")
    assert int(in_a_process_of_its_own(CODE)) >= 32 * 1024  # of 64 MiB, in KiB


def test_elsewhere_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    memory.use_large_pages.cache_clear()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory.use_large_pages() is False
    monkeypatch.setattr(sys, "platform", "linux")
    memory.use_large_pages.cache_clear()

    def another(_: object) -> object:
        raise OSError("no such library")

    monkeypatch.setattr(memory.ctypes, "CDLL", another)
    assert memory.use_large_pages() is False
    memory.use_large_pages.cache_clear()


def test_what_is_available_is_read() -> None:
    if not re.match("linux", sys.platform):
        pytest.skip("Linux only")
    assert memory._available() > 2**20
