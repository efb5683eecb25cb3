"""The examples of the OpenAPI document: one tenant, one counter, one story."""

from typing import Any

TENANT, COUNTER, KEY = "acme", "visits", "01JD3Z9Q6V6J5N0X2B7RTWKQ8M"
CURSOR = "dmlzaXRz"
TOKEN = f"{TENANT}/counter/{COUNTER}@7"
CORRELATION = "0193a5c1-7c1e-7d3a-9c53-0f6a3c2b1d4e"

COUNTER_EXAMPLE: dict[str, Any] = {"counter_id": COUNTER, "value": 42, "version": 7}
PAGE_EXAMPLE: dict[str, Any] = {"items": [COUNTER_EXAMPLE], "next_cursor": CURSOR}
HISTORY_EXAMPLE: dict[str, Any] = {
    "items": [
        {
            "version": 7,
            "type": "counter.incremented.v1",
            "recorded_at": "2026-11-22T17:04:05.123456Z",
            "data": {"counter_id": COUNTER, "by": 5, "value": 42},
        }
    ],
    "next_after": None,
}

TOTALS_EXAMPLE: dict[str, Any] = {"counters": 3, "value_sum": 57, "events": 12}
ACTIVITY_EXAMPLE: dict[str, Any] = {
    "items": [
        {
            "offset": 4711,
            "counter_id": COUNTER,
            "type": "counter.incremented.v1",
            "recorded_at": "2026-11-22T17:04:05.123456Z",
        }
    ],
    "next_before": None,
}
