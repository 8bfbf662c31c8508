"""How many cores there are: a container may have fewer than its machine."""

import math
import os
from pathlib import Path

CGROUP_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # cgroup v2: "<quota or max> <period>", in microseconds


def available_cores() -> int:
    """Return how many cores this process may use, at least one; a fraction of a core counts as one."""
    # Only Linux has a CPU affinity.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = map(int, CGROUP_CPU_MAX.read_text(encoding="ascii").split())
    except (OSError, ValueError):  # no limit
        return cores
    return min(cores, math.ceil(quota / period))
