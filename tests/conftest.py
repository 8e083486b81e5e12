"""For all tests: one thread, the same examples at every run, and one process for what shares a search."""

from __future__ import annotations

import os

import pytest
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

# Searches that many tests look at: with several processes, those tests go to one of them, or each would search anew.
SHARED = ("several", "finished")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests together that share a search, and otherwise those of a file, for `--dist loadgroup`."""
    for item in items:
        used = getattr(item, "fixturenames", ())
        shared = next((name for name in SHARED if name in used), item.path.stem)
        item.add_marker(pytest.mark.xdist_group(shared))
