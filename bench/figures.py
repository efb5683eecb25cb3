"""From samples to the figures that are printed, kept and compared."""

import os
from collections.abc import Mapping

from bench.contenders import World
from bench.machine import CpuTicks, foreign_share
from bench.measure import rss_mb

Figures = dict[str, float]

LOWER_IS_BETTER = {"commands.half_load.p99_ratio"}
FALL_MAX = 0.25
"""By how much a ratio may be worse than its baseline."""


def figures_of(world: World) -> Figures:
    """Return all figures that this run has samples for, by name."""
    medians = {name: world.median(name) for name in world.samples}
    out: Figures = {}
    for name, m in medians.items():
        load, _, contender = name.rpartition(".")
        if contender in {"bare", "half_load", "http_constant"} or contender.startswith("libsql"):
            continue
        out[f"commands.{load}.{contender}_per_s"] = m.per_s
        if contender.startswith("ours"):
            out[f"commands.{load}.{contender}_p50_ms"] = m.p50_ms
            out[f"commands.{load}.{contender}_p99_ms"] = m.p99_ms
    ours, hot = medians["many.32.ours"], medians["hot.32.ours"]
    reference = medians["many.32.pgbench"].per_s
    bare, half = medians["hot.1.bare"], medians["many.32.half_load"]
    constant, http = medians["many.32.http_constant"].per_s, medians["many.32.ours_http"].per_s
    grouped = medians["many.32.libsql_grouped"].per_s
    single = medians["many.32.libsql_single"].per_s
    out |= {
        "commands.many.ratio_to_pgbench": ours.per_s / reference,
        "commands.hot.ratio_to_pgbench": hot.per_s / reference,
        "commands.many.ratio_to_eventsourcing": ours.per_s / medians["many.32.eventsourcing"].per_s,
        "commands.many.ratio_to_eventsourcing_tuned": ours.per_s
        / medians["many.32.eventsourcing_tuned"].per_s,
        "commands.nats.ratio_to_in_process": medians["many.32.ours_nats"].per_s / ours.per_s,
        "commands.half_load.per_s": half.per_s,
        "commands.half_load.p50_ms": half.p50_ms,
        "commands.half_load.p99_ms": half.p99_ms,
        "commands.half_load.p99_ratio": half.p99_ms / bare.p50_ms,
        "bare.p50_ms": bare.p50_ms,
        "bare.p99_ms": bare.p99_ms,
        "http.constant_per_s": constant,
        "http.ratio_to_constant": http / constant,
        "libsql.grouped_per_s": grouped,
        "libsql.single_per_s": single,
        "libsql.ratio_to_single": grouped / single,
        "machine.foreign_cpu_share": foreign_share(world.cpu_start, CpuTicks.now()),
        "memory.start_mb": world.fleet_rss_start_mb,
        "memory.growth_mb": rss_mb(world.fleet.pid) - world.fleet_rss_start_mb,
        "memory.bench_process_growth_mb": rss_mb(os.getpid()) - world.ours_rss_start_mb,
    }
    return out


def ratios(figures: Mapping[str, float]) -> Figures:
    """Return the figures that another machine can be held to."""
    return {name: value for name, value in figures.items() if "ratio" in name}


def change(name: str, now: float, before: float) -> float:
    """Return how much better (positive) or worse a ratio is, as a fraction of what it was."""
    return before / now - 1 if name in LOWER_IS_BETTER else now / before - 1


def has_fallen(name: str, now: float, before: float) -> bool:
    """Return whether a ratio is worse than its baseline by more than is allowed."""
    return change(name, now, before) < -FALL_MAX
