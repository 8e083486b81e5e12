"""Jobs, and what is wrong with them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from paretrim.errors import JobError
from paretrim.search.job import Job


def a_job(**given: Any) -> Job:
    return Job(**{"model": "mine:model", "data": "mine:data", **given})


def again(job: Job) -> Job:
    """Return the job after a way through JSON, as the study keeps it."""
    return Job(**json.loads(json.dumps(job.model_dump(mode="json"))))


def mistakes(**given: Any) -> dict[str, str]:
    """Return the message of each mistake by its field."""
    with pytest.raises(JobError) as caught:
        a_job(**given)
    return {".".join(map(str, problem.location)): problem.message for problem in caught.value.problems}
