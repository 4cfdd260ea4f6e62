from __future__ import annotations

import multiprocessing
import pickle

import numpy as np
import pytest

from fullconv.core.errors import FullconvError
from fullconv.data.loading.decoded_cache import DecodedCache


def pair(seed: int, size: tuple[int, int] = (7, 5)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*size, 3), np.uint8), rng.integers(0, 200, size, np.uint8)


def same(
    found: tuple[np.ndarray, np.ndarray] | None, wanted: tuple[np.ndarray, np.ndarray]
) -> bool:
    return found is not None and all(map(np.array_equal, found, wanted))


def test_what_was_put_comes_back() -> None:
    cache = DecodedCache(4, 10_000)
    pairs = [pair(0), pair(1, (1, 1)), pair(2, (9, 31))]
    assert cache.get(0) is None
    for number, (image, mask) in enumerate(pairs):
        cache.put(number, image, mask)
    for number, wanted in enumerate(pairs):
        assert same(cache.get(number), wanted)
    assert cache.get(3) is None


def test_ids_beyond_a_byte() -> None:
    image, mask = pair(0)
    cache = DecodedCache(1, 10_000)
    cache.put(0, image, mask.astype(np.int64) + 300)
    found = cache.get(0)
    assert found is not None
    assert found[1].dtype == np.int32
    assert np.array_equal(found[1], mask.astype(int) + 300)


def test_what_does_not_fit_is_not_kept() -> None:
    cache = DecodedCache(3, 440)  # one pair takes 216 bytes
    for number in range(3):
        cache.put(number, *pair(number))
    assert [cache.get(number) is not None for number in range(3)] == [True, True, False]
    cache.put(0, *pair(7))  # the first stays
    assert same(cache.get(0), pair(0))


def test_no_budget_keeps_nothing() -> None:
    for cache in (DecodedCache(3, 0), DecodedCache(0, 100)):
        cache.put(0, *pair(0))
        assert cache.get(0) is None


def test_more_than_the_machine_has() -> None:
    with pytest.raises(FullconvError, match=r"there are no .* GiB of memory to keep") as caught:
        DecodedCache(1, 2**62)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("--cache 0.2")


def test_a_process_that_starts_anew_has_one_that_keeps_nothing() -> None:
    cache = DecodedCache(3, 10_000)
    cache.put(0, *pair(0))
    assert pickle.loads(pickle.dumps(cache)).get(0) is None


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system"
)
def test_forked_processes_share_it() -> None:
    count = 40
    cache = DecodedCache(count, count * 216)
    context = multiprocessing.get_context("fork")

    def fill(first: int) -> None:
        for number in [*range(first, count), *range(first)]:  # both put the same ones
            if cache.get(number) is None:
                cache.put(number, *pair(number))

    processes = [context.Process(target=fill, args=(first,)) for first in (0, 20)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    kept = [number for number in range(count) if cache.get(number) is not None]
    assert len(kept) == count  # none took its room twice
    assert all(same(cache.get(number), pair(number)) for number in kept)
