"""Data of the datasets library, from local files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from paretrim.errors import DataError, nearest
from paretrim.evaluators.splits import Splits
from paretrim.search.sources.cut import TRAIN, Shares, classes_of, share_out, usual_splits
from paretrim.search.sources.extra import extra

Source = str | Path | Mapping[str, Any]
Columns = str | tuple[str, ...] | Mapping[str, str]
Read = Callable[[Mapping[str, Any]], Any]
_NO_LABEL = torch.zeros(0)
_FILES = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv", ".arrow": "arrow"}


def from_datasets(
    source: Source,
    inputs: Columns | None = None,
    label: str | None = "label",
    *,
    tokenizer: str | Path | None = None,
    text: str | tuple[str, str] = "text",
    length: int = 128,
    group: str | None = None,
    shares: Shares = Shares(),  # noqa: B008 - it is frozen
    named: bool = True,
) -> Splits:
    """Return splits of a dataset of the Hugging Face datasets library, from local files; the network is never asked.

    Args:
        source: A folder that ``save_to_disk`` wrote; a Parquet, JSON, CSV or Arrow file; or a mapping of ``train``,
            ``validation`` and ``test`` to such files. Splits that it has are taken, the others cut from ``train``.
        inputs: A column, for a model of one input; a tuple of columns, for one that takes several by position; a mapping of the
            model's names to columns, for one that takes them by name. Columns hold numbers or lists of one length. Not with a
            tokenizer.
        label: Column with what is learned; words become their positions in alphabetical order. None where
            there is none: the uncompressed model's answers are learned then.
        tokenizer: Folder of a tokenizer of transformers, as ``save_pretrained`` writes it, by which a text becomes the inputs
            ``input_ids``, ``attention_mask``, ... of that model, by name.
        text: Column with the text, or two columns for pairs of texts.
        length: Tokens of each sample; longer texts are cut, shorter ones padded.
        group: Column that says which samples belong together; no group is in two splits.
        shares: How much is cut where splits are missing, and with which seed.
        named: Whether names of the classes come along, where the dataset has them or the label is of words. Off for a model with
            one output for two classes.

    Raises:
        MissingExtraError: The extra ``datasets``, or ``transformers`` for a tokenizer, is not installed.
        DataError: The files cannot be read, a column is missing, or samples have no label.
    """
    tables = _tables(source)
    train = tables[TRAIN]
    if (inputs is None) == (tokenizer is None):
        raise DataError(
            f"give either inputs, of the columns {', '.join(train.column_names)}, or a tokenizer and the text's column"
        )
    wanted = _listed(inputs) if inputs is not None else [text] if isinstance(text, str) else list(text)
    for name, table in tables.items():
        _check_columns(name, table.column_names, [*wanted, *filter(None, (label, group if name == TRAIN else None))])
    read = _reader(inputs) if inputs is not None else _Tokens(_tokenizer(tokenizer), tuple(wanted), length)
    classes = None if label is None else _classes(tables, label)
    pieces = {
        name: _Rows(table, read, None if label is None else _numbers(table, label, classes, name))
        for name, table in tables.items()
    }
    whole = pieces.pop(TRAIN)
    return share_out(
        whole,
        pieces,
        shares,
        classes=None if whole.labels is None else classes_of(whole.labels),
        groups=None if group is None else [str(each) for each in train[group]],
        names=classes if named else None,
    )


class _Rows(Dataset[Any]):
    """Rows of a table as samples; each is read when it is asked for."""

    def __init__(self, table: Any, read: Read, labels: np.ndarray[Any, Any] | None) -> None:
        self._table, self._read, self.labels = table, read, labels

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, position: int) -> tuple[Any, torch.Tensor]:
        label = _NO_LABEL if self.labels is None else torch.as_tensor(self.labels[position])
        return self._read(self._table[position]), label


@dataclass(frozen=True)
class _Picked:
    """Picks columns of a row, by position or by name."""

    columns: Columns

    def __call__(self, row: Mapping[str, Any]) -> Any:
        if isinstance(self.columns, str):
            return _tensor(row[self.columns], self.columns)
        if isinstance(self.columns, Mapping):
            return {name: _tensor(row[column], column) for name, column in self.columns.items()}
        return tuple(_tensor(row[column], column) for column in self.columns)


@dataclass(frozen=True)
class _Tokens:
    """Makes tokens of a row's texts."""

    tokenizer: Any
    columns: tuple[str, ...]
    length: int

    def __call__(self, row: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        made = self.tokenizer(
            *(row[column] for column in self.columns), padding="max_length", truncation=True, max_length=self.length
        )
        return {name: torch.tensor(made[name]) for name in self.tokenizer.model_input_names if name in made}


def _reader(inputs: Columns) -> Read:
    return _Picked(dict(inputs) if isinstance(inputs, Mapping) else inputs)


def _listed(inputs: Columns) -> list[str]:
    if isinstance(inputs, str):
        return [inputs]
    return list(inputs.values() if isinstance(inputs, Mapping) else inputs)


def _tensor(value: Any, column: str) -> torch.Tensor:
    try:
        found = torch.as_tensor(np.asarray(value))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"a value of the column '{column}' is a {type(value).__name__}; numbers, or lists of numbers of one length, are "
            "needed (for texts give a tokenizer, for images see paretrim.data.from_images)"
        ) from error
    return found.float() if found.dtype == torch.float64 else found


def _tables(source: Source) -> dict[str, Any]:
    library = extra("datasets")
    if isinstance(source, str | Path):
        name = str(source)
        if not Path(source).exists():
            raise DataError(
                f"there is nothing at '{name}'; paths are taken from {Path.cwd()}, or use Path(__file__).parent"
            )
        found = library.load_from_disk(name) if Path(source).is_dir() else _file(library, Path(source))
    else:
        found, name = {split: _file(library, Path(file)) for split, file in source.items()}, "the source"
    if not isinstance(found, Mapping):
        return {TRAIN: found}
    return {split: found[there] for split, there in usual_splits(found, name).items()}


def _file(library: Any, path: Path) -> Any:
    kind = _FILES.get(path.suffix.lower())
    if kind is None:
        raise DataError(f"'{path}' ends with '{path.suffix}'; data is read from {', '.join(_FILES)}")
    try:
        return library.load_dataset(kind, data_files=str(path), split="train")
    except (OSError, ValueError, library.exceptions.DatasetGenerationError) as error:
        raise DataError(f"'{path}' cannot be read: {error}") from error


def _tokenizer(folder: str | Path | None) -> Any:
    library = extra("transformers")
    try:
        return library.AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"there is no tokenizer in '{folder}': {next(iter(str(error).splitlines()), '')}; give a folder that "
            "tokenizer.save_pretrained(...) wrote"
        ) from error


def _check_columns(split: str, there: Sequence[str], wanted: Sequence[str]) -> None:
    for column in wanted:
        if column not in there:
            raise DataError(f"{split} has no column '{column}'; it has {', '.join(there)}{nearest(column, there)}")


def _classes(tables: Mapping[str, Any], label: str) -> list[str] | None:
    """Return the names of the classes: the dataset's own, or the words that the label is of."""
    names = getattr(tables[TRAIN].features[label], "names", None)
    if names:
        return [str(name) for name in names]
    words = {value for table in tables.values() for value in table[label] if isinstance(value, str)}
    return sorted(words) or None


def _numbers(table: Any, label: str, classes: Sequence[str] | None, split: str) -> np.ndarray[Any, Any]:
    """Return a table's labels as numbers.

    Raises:
        DataError: Some are missing, as in tests whose labels are kept secret.
    """
    values = list(table[label])
    missing = sum(value is None or (classes is not None and value == -1) for value in values)
    if missing:
        raise DataError(f"{missing} of {len(values)} samples of {split} have no label; leave them out")
    if classes is not None:
        return np.array([classes.index(value) if isinstance(value, str) else value for value in values], dtype=np.int64)
    found = np.asarray(values)
    return found.astype(np.float32) if found.dtype.kind == "f" else found
