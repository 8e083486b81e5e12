"""Searches over models whose weights are mostly those of an LSTM, or of an embedding."""

from __future__ import annotations

from pathlib import Path

import pytest

from paretrim.search.api import search

from .conftest import tiny_job


@pytest.mark.slow
@pytest.mark.parametrize(("model", "data"), [("row_reader", "rows"), ("token_counter", "texts")])
def test_the_front_has_a_point_of_a_quarter_of_the_size_that_scores_alike(
    model: str, data: str, one_ray: None, tmp_path: Path
) -> None:
    job = tiny_job(
        name=data,
        model=f"sequences:{model}",
        data=f"sequences:{data}",
        space={
            "pruning": {},
            "quantization": {"weight_bits": [4]},
            "recovery": {"epochs": 2, "learning_rate": [0.01, 0.02]},
            "distillation": {},
        },
        budget={"trials": 5, "parallel": 2},
    )
    result = search(job, store=tmp_path)
    assert not [record.cause for record in result.records if record.state == "failed"]
    baseline = result.records[0].metrics
    front = result.front
    small = front[front["size_bytes"] <= 0.25 * baseline["size_bytes"]]
    assert small["validation_accuracy"].max() >= baseline["accuracy"] - 0.02
