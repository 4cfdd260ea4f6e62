"""The cache of decoded files: contents, budget, and processes."""

import multiprocessing
import pickle

import numpy as np
import pytest

from fullconv.core.errors import FullconvError
from fullconv.data.loading.decoded_cache import DecodedCache

PAIR_BYTES = 216  # of an image of 7 x 5 pixels and its mask


def pair(seed, size=(7, 5)):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*size, 3), np.uint8), rng.integers(0, 200, size, np.uint8)


def equal(arrays, expected):
    return arrays is not None and all(map(np.array_equal, arrays, expected))


def test_stored_arrays_come_back():
    cache = DecodedCache(4, 10_000)
    pairs = [pair(0), pair(1, (1, 1)), pair(2, (9, 31))]
    assert cache.get(0) is None
    for index, arrays in enumerate(pairs):
        cache.put(index, *arrays)
    assert all(equal(cache.get(index), arrays) for index, arrays in enumerate(pairs))
    image, mask = pair(0)
    cache.put(3, image, mask.astype(np.int64) + 300)
    arrays = cache.get(3)
    assert arrays is not None
    assert arrays[1].dtype == np.int32
    assert np.array_equal(arrays[1], mask.astype(int) + 300)


def test_the_budget_is_kept():
    cache = DecodedCache(3, 2 * PAIR_BYTES + 8)
    for index in range(3):
        cache.put(index, *pair(index))
    assert [cache.get(index) is not None for index in range(3)] == [True, True, False]
    cache.put(0, *pair(7))  # does not replace the first one
    assert equal(cache.get(0), pair(0))
    for empty in (DecodedCache(3, 0), DecodedCache(0, 100)):
        empty.put(0, *pair(0))
        assert empty.get(0) is None


def test_more_memory_than_there_is():
    with pytest.raises(FullconvError, match=r"not enough memory for a cache of .* GiB") as caught:
        DecodedCache(1, 2**62)
    assert caught.value.hint.startswith("--cache 0.2")


def test_a_spawned_process_gets_a_cache_that_keeps_nothing():
    cache = DecodedCache(3, 10_000)
    cache.put(0, *pair(0))
    assert pickle.loads(pickle.dumps(cache)).get(0) is None


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system"
)
def test_forked_processes_share_the_cache():
    count = 40
    cache = DecodedCache(count, count * PAIR_BYTES)
    context = multiprocessing.get_context("fork")

    def fill(first):
        for index in [*range(first, count), *range(first)]:  # both processes store the same pairs
            if cache.get(index) is None:
                cache.put(index, *pair(index))

    processes = [context.Process(target=fill, args=(first,)) for first in (0, 20)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    # All of them fit only if none was stored twice.
    assert all(equal(cache.get(index), pair(index)) for index in range(count))
