"""What is counted, as a reader of the text format finds it."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fullconv.deploy.serve.metrics import Histogram, Metrics

LINE = re.compile(r"([a-z_]+)(?:\{([a-z]+)=\"([^\"]*)\"\})? (\S+)")


def parsed(text: str) -> dict[tuple[str, str], float]:
    """(name, label) -> value; every line must be one that the format knows."""
    found = {}
    for line in text.splitlines():
        if not line.startswith(("# HELP ", "# TYPE ")):
            match = LINE.fullmatch(line)
            assert match, line
            found[match[1], match[3] or ""] = float(match[4])
    return found


@given(st.lists(st.floats(0, 100)))
def test_buckets_count_all_that_is_not_more(values: list[float]) -> None:
    histogram = Histogram((0.5, 1, 10))
    for value in values:
        histogram.add(value)
    found = parsed("\n".join(histogram.lines("x", "what")))
    for bound in (0.5, 1, 10, np.inf):
        counted = found["x_bucket", "+Inf" if bound == np.inf else f"{bound:g}"]
        assert counted == np.count_nonzero(np.array(values) <= bound)
    assert found["x_count", ""] == len(values)
    assert np.isclose(found["x_sum", ""], sum(values))


def test_all_of_it() -> None:
    metrics = Metrics()
    metrics.requests.update([200, 200, 503])
    metrics.pixels += 12_345_678_901
    metrics.batches.add(2)
    text = metrics.text(7)
    assert text.endswith("\n")
    found = parsed(text)
    assert found["fullconv_requests_total", "200"] == 2
    assert found["fullconv_requests_total", "503"] == 1
    assert found["fullconv_queue_length", ""] == 7
    assert found["fullconv_pixels_total", ""] == 12_345_678_901
    assert found["fullconv_batch_size_bucket", "1"] == 0
    assert found["fullconv_batch_size_bucket", "2"] == 1
    assert found["fullconv_request_seconds_count", ""] == 0
    typed = re.findall(r"# TYPE (\S+) (\S+)", text)
    assert {name for name, _ in typed} == {
        re.sub("_(bucket|sum|count)$", "", name) for name, _ in found
    }
