"""Metrics, as a Prometheus client parses them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from fullconv.deploy.serve.metrics import Metrics


def test_all_metrics() -> None:
    metrics = Metrics()
    for status in ("200", "200", "503"):
        metrics.requests.labels(status).inc()
    metrics.pixels.inc(12_345_678_901)
    metrics.batches.observe(2)
    metrics.queue_length.set_function(lambda: 7)
    families = list(text_string_to_metric_families(metrics.text()))
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }
    assert samples["fullconv_requests_total", "200"] == 2
    assert samples["fullconv_requests_total", "503"] == 1
    assert samples["fullconv_queue_length",] == 7
    assert samples["fullconv_pixels_total",] == 12_345_678_901
    assert samples["fullconv_batch_size_bucket", "1.0"] == 0
    assert samples["fullconv_batch_size_bucket", "2.0"] == 1
    assert samples["fullconv_request_seconds_count",] == 0
    assert {family.name: family.type for family in families} == {
        "fullconv_requests": "counter",
        "fullconv_queue_length": "gauge",
        "fullconv_pixels": "counter",
        "fullconv_batch_size": "histogram",
        "fullconv_request_seconds": "histogram",
    }
