"""How many cores there are to work with: a container may have fewer than its machine."""

import math
import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of Linux's cgroups (v2): CPU time, or "max", and the time it is for


def available_cores() -> int:
    """Cores that this process may use, at least one; a part of a core counts as one."""
    # Only Linux tells which of a machine's cores are one's own.
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        time, period = map(int, QUOTA.read_text(encoding="ascii").split())
    except (OSError, ValueError):  # no limit
        return own
    return min(own, math.ceil(time / period))
