"""For all tests: one thread, and the same examples at every run."""

from __future__ import annotations

import os

import torch
from hypothesis import settings

# Models this small are many times slower on several threads, above all on a busy machine.
torch.set_num_threads(1)
# For the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples at every run, so that a change is judged by what it did; `--hypothesis-profile=hunt` looks for new ones.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.register_profile("hunt", deadline=None)
settings.load_profile("steady")
