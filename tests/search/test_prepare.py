"""What is checked before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from paretrim.errors import UsageError
from paretrim.search import prepare
from paretrim.search.job import Job


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine can run it")
@pytest.mark.parametrize(
    "targets", [{"target": {"runtime": "torch-compile-cuda"}}, {"also": [{"runtime": "torch-compile-cuda"}]}]
)
def test_a_runtime_that_cannot_run_here_is_refused_before_the_model_is_loaded(
    targets: dict[str, object], tmp_path: Path
) -> None:
    job = Job(model="nowhere:model", data="nowhere:data", folder=tmp_path, **targets)
    with pytest.raises(UsageError, match=r"'torch-compile-cuda' cannot run on this machine: .*CUDA"):
        prepare.load(job)
