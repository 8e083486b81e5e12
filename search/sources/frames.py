"""Data from tables: pandas frames and Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from paretrim.errors import DataError, nearest
from paretrim.evaluators.splits import Splits
from paretrim.search.sources.arrays import from_arrays
from paretrim.search.sources.cut import CALIBRATION, TEST, TRAIN, VALIDATION, Shares

Table = pd.DataFrame | str | Path
Array = np.ndarray[Any, Any]


def from_frame(
    frame: Table,
    label: str | None,
    *,
    inputs: Sequence[str] | Mapping[str, str | Sequence[str]] | None = None,
    group: str | None = None,
    calibration: Table | None = None,
    validation: Table | None = None,
    test: Table | None = None,
    shares: Shares = Shares(),  # noqa: B008 - it is frozen
    named: bool = True,
) -> Splits:
    """Return splits of a table.

    Numbers become 32-bit floats. Words, and pandas' categories, become their positions among all values of the column in
    their order (that of the categories, where the column has them): whole numbers where an input is of such columns alone,
    as an embedding takes them, else floats. Missing values are refused: what to put in their place is for you to say.

    Args:
        frame: A frame, or the path of a Parquet file.
        label: Column with what is learned: words or whole numbers for classes, numbers with fractions for others. None where
            there is none: the uncompressed model's answers are learned then.
        inputs: Columns that make up the one input, shape ``(N, columns)``; by default all but the label and the group. A mapping
            of names to columns, for a model that takes several inputs by name; of a single column that is not in a list, the
            input is of shape ``(N,)``.
        group: Column that says which samples belong together; no group is in two splits.
        calibration: Table of its own; by default drawn from the training samples.
        validation: Table of its own; by default cut from `frame`.
        test: As `validation`.
        shares: How much is cut, and with which seed.
        named: Whether names of the classes come along, where the label is of words. Off for a model with one output for two
            classes.

    Raises:
        DataError: A column is missing, has missing values, or is of another type; all that is wrong is told at once.
    """
    given = {TRAIN: frame, CALIBRATION: calibration, VALIDATION: validation, TEST: test}
    tables = {name: _read(table) for name, table in given.items() if table is not None}
    wanted = _wanted(inputs, tables[TRAIN], label, group)
    columns = list(dict.fromkeys(each for part in wanted.values() for each in _listed(part)))
    columns += [] if label is None else [label]
    _check(tables, columns, group, least=1 if label is None else 2)
    words = _categories(tables, columns)
    sheet = _Sheet(wanted, label, words, isinstance(inputs, Mapping))
    pairs = {name: sheet.pair(table) for name, table in tables.items()}
    return from_arrays(
        *pairs[TRAIN],
        calibration=pairs.get(CALIBRATION),
        validation=pairs.get(VALIDATION),
        test=pairs.get(TEST),
        groups=None if group is None else tables[TRAIN][group].tolist(),
        shares=shares,
        names=[str(each) for each in words[label]] if named and label in words else None,
    )


@dataclass(frozen=True)
class _Sheet:
    """How tables become arrays.

    Attributes:
        wanted: Columns of each input.
        label: Column of the label.
        words: Values of each column that is no number, in their order.
        by_name: Whether inputs are given by name.
    """

    wanted: Mapping[str, str | Sequence[str]]
    label: str | None
    words: Mapping[str, Sequence[Any]]
    by_name: bool

    def pair(self, table: pd.DataFrame) -> tuple[Any, Array | None]:
        """Return inputs and labels."""
        parts = {name: self._input(table, columns) for name, columns in self.wanted.items()}
        labels = None if self.label is None else self._column(table, self.label)
        return (parts if self.by_name else next(iter(parts.values()))), labels

    def _input(self, table: pd.DataFrame, columns: str | Sequence[str]) -> Array:
        dtype = np.int64 if all(each in self.words for each in _listed(columns)) else np.float32
        if isinstance(columns, str):
            return self._column(table, columns).astype(dtype)
        return np.stack([self._column(table, each).astype(dtype) for each in columns], axis=1)

    def _column(self, table: pd.DataFrame, name: str) -> Array:
        if name in self.words:
            places = {value: place for place, value in enumerate(self.words[name])}
            return np.array([places[value] for value in table[name].tolist()], dtype=np.int64)
        numbers = table[name].to_numpy()
        return numbers.astype(
            np.int64 if pd.api.types.is_integer_dtype(table[name].dtype) or _is_bool(table[name]) else np.float32
        )


def _read(table: Table) -> pd.DataFrame:
    if isinstance(table, pd.DataFrame):
        return table
    try:
        return pd.read_parquet(table)
    except (OSError, ValueError) as error:
        raise DataError(f"'{table}' cannot be read as a Parquet file: {error}; or give a pandas frame") from error


def _wanted(
    inputs: Sequence[str] | Mapping[str, str | Sequence[str]] | None,
    table: pd.DataFrame,
    label: str | None,
    group: str | None,
) -> dict[str, str | Sequence[str]]:
    if isinstance(inputs, Mapping):
        return dict(inputs)
    if isinstance(inputs, str):
        raise DataError(f"inputs is the word '{inputs}'; give a list of columns, or a mapping of names to columns")
    return {"input": [str(c) for c in table.columns if c not in (label, group)] if inputs is None else list(inputs)}


def _listed(columns: str | Sequence[str]) -> list[str]:
    return [columns] if isinstance(columns, str) else list(columns)


def _check(tables: Mapping[str, pd.DataFrame], columns: Sequence[str], group: str | None, least: int) -> None:
    wrong = [
        f"{name}: {problem}"
        for name, table in tables.items()
        for problem in _problems(table, [*columns, *([group] if group and name == TRAIN else [])])
    ]
    if len(columns) < least:
        wrong.append("no column is left for the inputs")
    if wrong:
        raise DataError("the table cannot be learned from:\n" + "\n".join(f"  - {line}" for line in wrong))


def _problems(table: pd.DataFrame, columns: Sequence[str]) -> Iterator[str]:
    there = [str(column) for column in table.columns]
    for column in columns:
        if column not in there:
            yield f"there is no column '{column}'; there are {', '.join(there)}{nearest(column, there)}"
            continue
        gaps = int(table[column].isna().sum())
        if gaps:
            yield f"{gaps} of {len(table)} values of '{column}' are missing; fill them in, or drop those rows"
        elif not (_is_number(table[column]) or _is_words(table[column])):
            yield f"'{column}' is of type {table[column].dtype}; make numbers or words of it, or leave it out of inputs"


def _is_bool(column: pd.Series[Any]) -> bool:
    return bool(pd.api.types.is_bool_dtype(column.dtype))


def _is_number(column: pd.Series[Any]) -> bool:
    return bool(pd.api.types.is_numeric_dtype(column.dtype)) and not pd.api.types.is_complex_dtype(column.dtype)


def _is_words(column: pd.Series[Any]) -> bool:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return True
    kind = pd.api.types.infer_dtype(column, skipna=True)
    return kind == "string"


def _categories(tables: Mapping[str, pd.DataFrame], columns: Sequence[str]) -> dict[str, list[Any]]:
    """Return the values of each column of words in any table, in their order."""
    found: dict[str, list[Any]] = {}
    for column in columns:
        parts = [table[column] for table in tables.values()]
        if not any(_is_words(part) for part in parts):
            continue
        dtype = parts[0].dtype
        kept = list(dtype.categories) if isinstance(dtype, pd.CategoricalDtype) else []
        others = {value for part in parts for value in part.unique().tolist()} - set(kept)
        found[column] = [*kept, *sorted(others, key=str)]
    return found
