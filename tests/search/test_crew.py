from __future__ import annotations

import threading
import time
from pathlib import Path

from paretrim.search.crew import Crew


def waited(crew: Crew) -> float:
    since = time.monotonic()
    crew.wait()
    return time.monotonic() - since


def test_the_first_waits_for_the_last_once(tmp_path: Path) -> None:
    crew = Crew(tmp_path, "run", 2)
    threading.Timer(0.3, (tmp_path / "run.other.worker").touch).start()
    assert 0.2 < waited(crew) < 5
    (tmp_path / "run.other.worker").unlink()
    assert waited(crew) < 0.1, "it waits once only"


def test_workers_of_another_run_do_not_count_and_patience_ends(tmp_path: Path) -> None:
    (tmp_path / "earlier.other.worker").touch()
    assert waited(Crew(tmp_path, "run", 2, patience_s=0.3)) > 0.2
    assert waited(Crew(tmp_path, "run", 1)) < 0.1
