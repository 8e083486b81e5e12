"""Writing the files that a user starts from: the bundled example itself, or a template for their own model and data."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

from paretrim.errors import OutputExistsError, UsageError, nearest
from paretrim.search.jobfile import EXAMPLE

TEMPLATES = Path(__file__).with_name("templates")
DEFAULT = "example"
_JOB, _MODULE = "job.yaml", "net.py"


def write(folder: Path, template: str = DEFAULT) -> list[Path]:
    """Copy a job file and its module into a folder, and return what was written.

    Args:
        folder: To write into.
        template: One of `templates`.

    Raises:
        UsageError: There is no such template; says which there are.
        OutputExistsError: One of the files exists; nothing was written.
    """
    sources = _sources(template)
    targets = {folder / name: source for name, source in sources.items()}
    taken = [str(path) for path in targets if path.exists()]
    if taken or (folder.exists() and not folder.is_dir()):
        raise OutputExistsError(f"{' and '.join(taken) or folder} exists; name another folder, or move it away first")
    folder.mkdir(parents=True, exist_ok=True)
    for path, source in targets.items():
        shutil.copyfile(source, path)
    return list(targets)


def templates() -> dict[str, str]:
    """Return what each template is for, by its name."""
    found = {path.stem: _first_line(path) for path in sorted(TEMPLATES.glob("*.py"))}
    return {DEFAULT: "The bundled example: a small network and scikit-learn's digits, which works as it is.", **found}


def _sources(template: str) -> dict[str, Path]:
    """Return what is copied, by the names that it gets."""
    known = templates()
    if template not in known:
        width = max(map(len, known))
        listed = "\n".join(f"  {name:<{width}}  {line}" for name, line in known.items())
        raise UsageError(f"there is no template '{template}'{nearest(template, list(known))}; there are\n{listed}")
    if template == DEFAULT:
        return {EXAMPLE.name: EXAMPLE, "digits.py": EXAMPLE.with_name("digits.py")}
    return {_JOB: TEMPLATES / _JOB, _MODULE: TEMPLATES / f"{template}.py"}


def _first_line(module: Path) -> str:
    return (ast.get_docstring(ast.parse(module.read_text())) or "").partition("\n")[0]
