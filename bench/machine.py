"""Whether the machine was ours alone: who used how much of its processors (Linux)."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class CpuTicks:
    """Processor time since boot: of everybody, and of this process and all that it started."""

    capacity: int
    idle: int
    ours: int

    @classmethod
    def now(cls) -> Self:
        """Read the counters."""
        every = [int(n) for n in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return cls(sum(every), every[3] + every[4], _of_tree(os.getpid()))


def foreign_share(before: CpuTicks, after: CpuTicks) -> float:
    """Return which part of all processor time went to processes that are none of this run's."""
    capacity = after.capacity - before.capacity
    busy = capacity - (after.idle - before.idle)
    return max(0.0, (busy - (after.ours - before.ours)) / capacity) if capacity else 0.0


def _of_tree(root: int) -> int:
    """Return the time of a process, its descendants, and those of them that ended."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        parents[int(folder.name)] = int(fields[1])
        ticks[int(folder.name)] = sum(int(n) for n in fields[11:15])

    def is_ours(pid: int) -> bool:
        while pid not in {root, 0}:
            pid = parents.get(pid, 0)
        return pid == root

    return sum(time for pid, time in ticks.items() if is_ours(pid))
