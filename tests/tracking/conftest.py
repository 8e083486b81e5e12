"""What several test files have in common."""

from __future__ import annotations

from pathlib import Path

import pytest

from .helper_mlflow import Search


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the tests' one database lies: to make one takes seconds."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def search(folder: Path, request: pytest.FixtureRequest) -> Search:
    return Search(f"sqlite:///{folder / 'mlflow.db'}", request.node.name, folder / "mlartifacts")
