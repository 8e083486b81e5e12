"""What a command of paretrim's answers on a cluster, in a form that is found among all that Ray prints.

``python -m paretrim.search.service.answer front digits-1 --json`` runs the command beside the store and prints one line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

ADDRESS = "PARETRIM_ADDRESS"
_MARK = "paretrim-answer "


@dataclass(frozen=True)
class Answer:
    """What a command answered.

    Attributes:
        code: Its exit code.
        output: What it printed.
        error: What it printed as an error.
    """

    code: int
    output: str
    error: str


def read(printed: str) -> Answer | None:
    """Return the answer in what was printed, or None when there is none."""
    found = [line for line in printed.splitlines() if line.startswith(_MARK)]
    return Answer(**json.loads(found[-1].removeprefix(_MARK))) if found else None


def main(arguments: Sequence[str]) -> int:
    """Run a command and print its answer."""
    # Here, and not on a cluster that the environment may name as well.
    here = {name: value for name, value in os.environ.items() if name != ADDRESS}
    command = [sys.executable, "-m", "paretrim", *arguments]
    done = subprocess.run(command, env=here, capture_output=True, text=True, check=False)
    sys.stdout.write(f"{_MARK}{json.dumps(asdict(Answer(done.returncode, done.stdout, done.stderr)))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
