"""What holds for all tests, and for the processes that they start."""

import os

# Two threads that wait for each other on a busy machine take ten times as long as one, for networks as small as these.
os.environ.setdefault("OMP_NUM_THREADS", "1")
