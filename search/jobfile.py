"""Reading a job from a YAML file, with the line of every mistake."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from paretrim.errors import JobError, Problem, UsageError
from paretrim.search.job import Job
from paretrim.search.mistakes import Location

EXAMPLE = Path(__file__).resolve().parent / "example" / "job.yaml"


def load(path: Path) -> Job:
    """Read and check a job file.

    Raises:
        UsageError: There is no such file.
        JobError: Lists all mistakes, each with its line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"cannot read the job file '{path}': {reason}; `paretrim init DIR` writes one to start from"
        ) from None
    document, lines, repeated = _parse(text, path)
    document.setdefault("folder", str(path.resolve().parent))
    if isinstance(document["folder"], str):
        document["folder"] = str(path.resolve().parent / document["folder"])
    try:
        job = Job(**document)
    except JobError as error:
        found = [*repeated, *(replace(problem, line=_line(problem.location, lines)) for problem in error.problems)]
        raise JobError(sorted(found, key=lambda problem: problem.line or 0), str(path)) from None
    if repeated:
        raise JobError(repeated, str(path))
    return job


def _line(location: Location, lines: dict[Location, int]) -> int | None:
    """Return the line of a location, or of the nearest one around it."""
    return next((lines[location[:end]] for end in range(len(location), 0, -1) if location[:end] in lines), None)


def _parse(text: str, path: Path) -> tuple[dict[str, Any], dict[Location, int], list[Problem]]:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = f"is not YAML: {getattr(error, 'problem', None) or error}"
        raise JobError([Problem((), what, mark.line + 1 if mark else None)], str(path)) from None
    if not isinstance(document, dict):
        kind = "empty" if document is None else f"a {type(document).__name__}"
        raise JobError([Problem((), f"it is {kind}; a mapping with at least 'model' and 'data' is needed")], str(path))
    if not all(isinstance(key, str) for key in document):
        raise JobError([Problem((), "it has keys that are not words")], str(path))
    lines: dict[Location, int] = {}
    repeated: list[Problem] = []
    try:
        _walk(node, (), lines, repeated)
    except RecursionError:
        raise JobError([Problem((), "it has an alias (*) that refers to itself; write it out")], str(path)) from None
    return document, lines, repeated


def _walk(node: Any, location: Location, lines: dict[Location, int], repeated: list[Problem]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*location, key.value)
            line = key.start_mark.line + 1
            if here in lines:
                repeated.append(Problem(here, f"stands twice, first in line {lines[here]}; keep one", line))
            lines[here] = line
            _walk(value, here, lines, repeated)
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            lines[(*location, position)] = value.start_mark.line + 1
            _walk(value, (*location, position), lines, repeated)
