from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fullconv.core import hardware as memory

CODE = """
import re
from pathlib import Path
from fullconv.core.hardware import use_huge_pages

def huge():
    text = Path("/proc/self/smaps_rollup").read_text()
    return int(re.search(r"AnonHugePages:\\s+(\\d+)", text)[1])

assert use_huge_pages() and use_huge_pages()
before = huge()
block = bytearray(64 * 2**20)
print(huge() - before)
"""


def in_a_process_of_its_own(code: str, *words: str) -> str:
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_large_blocks_lie_in_large_pages() -> None:
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not setting.is_file() or "[never]" in setting.read_text():
        pytest.skip("this system has no transparent huge pages")
    assert int(in_a_process_of_its_own(CODE)) >= 32 * 1024  # of 64 MiB, in KiB


def test_elsewhere_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    memory.use_huge_pages.cache_clear()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory.use_huge_pages() is False
    monkeypatch.setattr(sys, "platform", "linux")
    memory.use_huge_pages.cache_clear()

    def another(_: object) -> object:
        raise OSError("no such library")

    monkeypatch.setattr(memory.ctypes, "CDLL", another)
    assert memory.use_huge_pages() is False
    memory.use_huge_pages.cache_clear()


GIVEN_BACK = """
import re, sys, threading
from pathlib import Path
from fullconv.core.hardware import release_memory, use_huge_pages

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def work():
    blocks = [bytearray(100_000) for _ in range(1500)]
    kept.append(blocks.pop())

kept = []
if "pages" in sys.argv:
    use_huge_pages()
thread = threading.Thread(target=work)
thread.start()
thread.join()
before = resident()
release_memory(force="too" in sys.argv)
print(before - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_a_thread_freed_is_given_back() -> None:
    kib = int(in_a_process_of_its_own(GIVEN_BACK))
    assert kib > 100_000  # of 150 MB


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nothing_is_given_back_where_it_is_kept_on_purpose() -> None:
    assert int(in_a_process_of_its_own(GIVEN_BACK, "pages")) < 10_000


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_is_kept_on_purpose_is_given_back_if_that_is_meant() -> None:
    assert int(in_a_process_of_its_own(GIVEN_BACK, "pages", "too")) > 100_000
