"""For all tests: models this small are many times slower on several threads, above all on a busy machine."""

from __future__ import annotations

import os

import torch

torch.set_num_threads(1)
# For the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
