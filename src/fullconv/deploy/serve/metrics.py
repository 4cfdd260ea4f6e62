"""Metrics: what a server counts, in the text format of Prometheus."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence


class Histogram:
    """Counts by upper bounds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self._counts, self._sum = [0] * (len(bounds) + 1), 0.0
        self._lock = threading.Lock()

    def add(self, value: float) -> None:
        """One more."""
        with self._lock:
            self._counts[bisect_left(self.bounds, value)] += 1
            self._sum += value

    def lines(self, name: str, what: str) -> list[str]:
        """In the text format: each bucket counts those below, too."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        found, below = [f"# HELP {name} {what}", f"# TYPE {name} histogram"], 0
        for bound, count in zip((*(f"{b:g}" for b in self.bounds), "+Inf"), counts, strict=True):
            below += count
            found.append(f'{name}_bucket{{le="{bound}"}} {below}')
        return [*found, f"{name}_sum {total:.9g}", f"{name}_count {below}"]


class Metrics:
    """Of one server."""

    def __init__(self) -> None:
        self.requests: Counter[int] = Counter()
        self.batches = Histogram((1, 2, 4, 8))
        self.seconds = Histogram((0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60))
        self.pixels = 0

    def text(self, waiting: int) -> str:
        """All, with the queue's length."""
        lines = [
            "# HELP fullconv_requests_total Requests to /predict by status.",
            "# TYPE fullconv_requests_total counter",
            *(
                f'fullconv_requests_total{{status="{status}"}} {count}'
                for status, count in sorted(self.requests.items())
            ),
            "# HELP fullconv_queue_length Images that wait.",
            "# TYPE fullconv_queue_length gauge",
            f"fullconv_queue_length {waiting}",
            "# HELP fullconv_pixels_total Pixels that were labelled.",
            "# TYPE fullconv_pixels_total counter",
            f"fullconv_pixels_total {self.pixels}",
            *self.batches.lines("fullconv_batch_size", "Images that ran at once."),
            *self.seconds.lines("fullconv_request_seconds", "Seconds of requests to /predict."),
        ]
        return "\n".join(lines) + "\n"
