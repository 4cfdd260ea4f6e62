"""Metrics of a server, for Prometheus."""

from __future__ import annotations

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

prometheus_client.disable_created_metrics()


class Metrics:
    """The metrics of one server."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(
            "fullconv_requests", "Requests to /predict by status.", ["status"], registry=registry
        )
        self.queue_length = Gauge("fullconv_queue_length", "Waiting images.", registry=registry)
        self.pixels = Counter("fullconv_pixels", "Segmented pixels.", registry=registry)
        self.batches = Histogram(
            "fullconv_batch_size", "Images per batch.", buckets=(1, 2, 4, 8), registry=registry
        )
        self.seconds = Histogram(
            "fullconv_request_seconds",
            "Seconds per request to /predict.",
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60),
            registry=registry,
        )

    def text(self) -> str:
        """Return all metrics in the text format of Prometheus."""
        return prometheus_client.generate_latest(self.registry).decode()
