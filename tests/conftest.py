"""For all tests: one thread, the same examples at every run, and one process for all that share a Ray."""

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


@pytest.hookimpl(tryfirst=True)  # before the groups are read
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a module in one process, and all modules that share a Ray; these come first, since they take longest."""
    sharing = {item.path for item in items if "one_ray" in getattr(item, "fixturenames", ())}
    for item in items:
        item.add_marker(pytest.mark.xdist_group("ray" if item.path in sharing else str(item.path)))
    items.sort(key=lambda item: item.path not in sharing)
