"""Datasets of the datasets library from local files; skipped where it is not installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from paretrim.data import from_datasets
from paretrim.errors import DataError, MissingExtraError

missing = importlib.util.find_spec("datasets") is None
with_datasets = pytest.mark.skipif(missing, reason="datasets is not installed")
with_transformers = pytest.mark.skipif(
    missing or importlib.util.find_spec("transformers") is None, reason="transformers or datasets is not installed"
)


def rows(count: int = 40) -> dict[str, list[Any]]:
    rng = np.random.default_rng(count)
    return {
        "pixels": rng.normal(size=(count, 4)).tolist(),
        "age": list(range(count)),
        "text": [f"word{i % 7} and word{i % 3} number{i}" for i in range(count)],
        "farm": [i // 4 for i in range(count)],
        "label": [["no", "yes"][i % 2] for i in range(count)],
    }


def test_a_missing_package_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'paretrim\[datasets\]'"):
        from_datasets(tmp_path, "pixels")


@with_datasets
@pytest.mark.parametrize("ending", ["parquet", "json", "csv"])
def test_a_file_is_cut_into_splits(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"data.{ending}"
    table = pd.DataFrame(rows())
    writers = {"parquet": table.to_parquet, "csv": table.to_csv}
    writers.get(ending, lambda p: table.to_json(p, orient="records", lines=True))(path)  # type: ignore[operator]
    splits = from_datasets(path, "age")
    assert splits.counts() == {"train": 24, "calibration": 24, "validation": 8, "test": 8}
    assert splits.labels == ("no", "yes")
    for batch in splits.search.train.batches(8):
        assert torch.equal(batch.inputs.only % 2, batch.labels)


@with_datasets
def test_a_saved_dataset_keeps_its_splits_and_its_names(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {"x": datasets.Sequence(datasets.Value("float32")), "label": datasets.ClassLabel(names=["b", "a"])}
    )
    made = {
        name: datasets.Dataset.from_dict(
            {"x": [[float(i + s)] * 3 for i in range(n)], "label": [0, 1] * (n // 2)}, features
        )
        for name, n, s in (("train", 20, 0), ("validation", 6, 100), ("test", 4, 200))
    }
    datasets.DatasetDict(made).save_to_disk(tmp_path / "saved")
    splits = from_datasets(tmp_path / "saved", "x")
    assert splits.counts() == {"train": 20, "calibration": 20, "validation": 6, "test": 4}
    assert splits.labels == ("b", "a")
    assert splits.search.validation.first(1).inputs.only.tolist() == [[100.0, 100.0, 100.0]]


@with_datasets
def test_columns_become_inputs_by_position_or_by_name(tmp_path: Path) -> None:
    pd.DataFrame(rows()).to_parquet(tmp_path / "data.parquet")
    by_place = from_datasets(tmp_path / "data.parquet", ("pixels", "age")).search.train.first(3).inputs
    assert by_place.names == ()
    assert [tuple(part.shape) for part in by_place.parts] == [(3, 4), (3,)]
    by_name = from_datasets(tmp_path / "data.parquet", {"a": "age", "x": "pixels"}, group="farm").search.train.first(3)
    assert by_name.inputs.names == ("a", "x")
    assert by_name.inputs.parts[1].dtype == torch.float32
    assert not from_datasets(tmp_path / "data.parquet", "age", None).search.train.labelled


@with_transformers
def test_a_tokenizers_folder_makes_inputs_of_texts(tmp_path: Path) -> None:
    import transformers

    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "and", "word1", "word2"])
    )
    transformers.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "tokenizer")
    pd.DataFrame(rows()).to_parquet(tmp_path / "data.parquet")
    splits = from_datasets(tmp_path / "data.parquet", tokenizer=tmp_path / "tokenizer", length=9)
    inputs = splits.search.train.first(5).inputs
    assert set(inputs.names) >= {"input_ids", "attention_mask"}
    assert all(part.shape == (5, 9) for part in inputs.parts)
    pairs = from_datasets(tmp_path / "data.parquet", tokenizer=tmp_path / "tokenizer", text=("text", "text"), length=12)
    assert pairs.search.train.first(1).inputs.parts[0].shape == (1, 12)
    with pytest.raises(DataError, match="there is no tokenizer in"):
        from_datasets(tmp_path / "data.parquet", tokenizer=tmp_path)


@with_datasets
def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    table = pd.DataFrame(rows())
    table.to_parquet(tmp_path / "data.parquet")
    with pytest.raises(DataError, match="there is nothing at"):
        from_datasets(tmp_path / "none", "age")
    with pytest.raises(DataError, match=r"ends with '\.npy'"):
        (tmp_path / "x.npy").touch()
        from_datasets(tmp_path / "x.npy", "age")
    with pytest.raises(DataError, match=r"has no column 'ages'.*did you mean 'age'"):
        from_datasets(tmp_path / "data.parquet", "ages")
    with pytest.raises(DataError, match="give either inputs"):
        from_datasets(tmp_path / "data.parquet")
    with pytest.raises(DataError, match="a value of the column 'text' is a str"):
        from_datasets(tmp_path / "data.parquet", "text")
    table.loc[3, "label"] = None
    table.to_parquet(tmp_path / "gaps.parquet")
    with pytest.raises(DataError, match="1 of 40 samples of train have no label"):
        from_datasets(tmp_path / "gaps.parquet", "age")
