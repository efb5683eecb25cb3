"""What Prometheus learns about HTTP. Labels are bounded: route templates, methods, statuses."""

import functools

from prometheus_client import Counter, Histogram

NO_ROUTE = "(none)"
DURATION_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0)
"""What an objective promises has to be one of them: between two, nobody knows."""


class HttpMetrics:
    """Counts requests and measures how long they took."""

    def __init__(self) -> None:
        self._requests = Counter(
            "flotilla_http_requests", "HTTP requests answered.", ["route", "method", "status"]
        )
        self._durations_s = Histogram(
            "flotilla_http_request_duration_seconds",
            "From the request's head to the last byte of its answer handed to the server.",
            ["route", "method", "status"],
            buckets=DURATION_BUCKETS_S,
        )
        # Looking a child up by its labels costs more than counting; the labels are few.
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def observe(self, route: str, method: str, status: int, duration_s: float) -> None:
        """Note one answered request."""
        key = (route, method, status)
        if (children := self._children.get(key)) is None:
            labels = (route, method, str(status))
            children = (self._requests.labels(*labels), self._durations_s.labels(*labels))
            self._children[key] = children
        children[0].inc()
        children[1].observe(duration_s)


@functools.cache
def http_metrics() -> HttpMetrics:
    """Return the metrics of this process: the default registry takes each name only once."""
    return HttpMetrics()
