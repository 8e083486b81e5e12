"""Tables: numbers and words as inputs and labels, and all that is wrong with them at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from paretrim.data import Shares, from_frame
from paretrim.errors import DataError


def flowers(count: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "long": rng.normal(size=count),
            "petals": rng.integers(3, 7, count),
            "tall": rng.integers(0, 2, count).astype(bool),
            "color": rng.choice(["red", "blue", "white"], count),
            "garden": rng.integers(0, 12, count),
            "kind": rng.choice(["rose", "daisy"], count),
        }
    )


def test_numbers_and_words_become_one_input_and_the_label_classes_with_names() -> None:
    table = flowers()
    splits = from_frame(table, "kind", group="garden")
    batch = splits.search.train.first(100)
    assert batch.inputs.only.shape[1:] == (4,)
    assert batch.inputs.only.dtype == torch.float32
    assert splits.labels == ("daisy", "rose")
    rows = {round(row["long"], 5): row for row in table.to_dict("records")}
    for values, label in zip(batch.inputs.only.tolist(), batch.labels.tolist(), strict=True):
        row = rows[round(values[0], 5)]
        assert values[1:] == [row["petals"], float(row["tall"]), ["blue", "red", "white"].index(row["color"])]
        assert label == ["daisy", "rose"].index(row["kind"])


def test_no_group_is_in_two_splits() -> None:
    table = flowers()
    splits = from_frame(table, "kind", group="garden")
    garden = {round(row["long"], 5): row["garden"] for row in table.to_dict("records")}
    parts = (splits.search.train, splits.search.validation, splits.test.unseal())
    held = [{garden[round(x, 5)] for x in part.first(100).inputs.only[:, 0].tolist()} for part in parts]
    assert all(held)
    assert not held[0] & held[1]
    assert not (held[0] | held[1]) & held[2]


def test_inputs_by_name_are_codes_where_they_are_words_alone() -> None:
    splits = from_frame(flowers(), "kind", inputs={"numbers": ["long", "petals"], "color": "color"})
    inputs = splits.search.train.first(4).inputs
    assert inputs.names == ("numbers", "color")
    assert [tuple(part.shape) for part in inputs.parts] == [(4, 2), (4,)]
    assert [part.dtype for part in inputs.parts] == [torch.float32, torch.int64]


def test_codes_are_the_same_in_all_tables(tmp_path: Path) -> None:
    train, test = flowers(), flowers(20)
    test["long"] += 100
    train, test = train[train.color != "blue"], test[test.color == "blue"]
    train.to_parquet(tmp_path / "train.parquet")
    test.to_parquet(tmp_path / "test.parquet")
    columns = {"color": "color", "long": "long"}
    splits = from_frame(tmp_path / "train.parquet", "kind", inputs=columns, test=tmp_path / "test.parquet")
    assert set(splits.test.unseal().first(20).inputs.parts[0].tolist()) == {0}
    assert set(splits.search.train.first(60).inputs.parts[0].tolist()) == {1, 2}
    assert splits.counts()["test"] == len(test)


def test_the_order_of_pandas_own_categories_is_kept() -> None:
    table = flowers()
    table["kind"] = pd.Categorical(table.kind, categories=["rose", "daisy", "tulip"])
    assert from_frame(table, "kind", inputs=["long"]).labels == ("rose", "daisy", "tulip")


def test_labels_are_classes_or_numbers_or_none() -> None:
    table = flowers()
    assert from_frame(table, "petals", inputs=["long"]).search.train.first(2).labels.dtype == torch.int64
    assert from_frame(table, "long", inputs=["petals", "garden"]).search.train.first(2).labels.dtype == torch.float32
    assert not from_frame(table, None, inputs=["long"]).search.train.labelled
    unnamed = from_frame(table, "kind", inputs=["long"], named=False, shares=Shares(seed=3))
    assert unnamed.labels is None


def test_all_that_is_wrong_is_told_at_once() -> None:
    table = flowers()
    table.loc[3, "long"] = None
    table["day"] = pd.Timestamp("2026-01-01")
    with pytest.raises(DataError) as error:
        from_frame(table, "kinds", inputs=["long", "day", "petal"], group="farm")
    said = str(error.value)
    assert "train: 1 of 60 values of 'long' are missing; fill them in" in said
    assert "train: 'day' is of type datetime64" in said
    assert "there is no column 'petal'; there are long, petals" in said
    assert "did you mean 'petals'?" in said
    assert "there is no column 'kinds'" in said
    assert "there is no column 'farm'" in said


def test_missing_words_are_missing_values_too() -> None:
    table = flowers()
    table.loc[3, "color"] = None
    with pytest.raises(DataError, match="1 of 60 values of 'color' are missing"):
        from_frame(table, "kind")


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.parquet").write_text("nonsense")
    with pytest.raises(DataError, match="cannot be read as a Parquet file"):
        from_frame(tmp_path / "data.parquet", "kind")
    with pytest.raises(DataError, match="inputs is the word 'long'"):
        from_frame(flowers(), "kind", inputs="long")
    with pytest.raises(DataError, match="no column is left for the inputs"):
        from_frame(flowers()[["kind"]], "kind")
