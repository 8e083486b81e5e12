"""Why a trial's process is gone, read from what Ray says of it, which has no codes for that."""

from __future__ import annotations

from paretrim.errors import ClusterError
from paretrim.search.room import why_in

# Of an actor whose node died, was declared dead, or cannot be reached.
_MACHINE = ("its node has died", "is unavailable: ", "Owner's node has crashed")
_CREATION = "raised in its creation task"
_MOST_LINES = 30


def machine_lost(why: str) -> bool:
    """Tell whether it went with its machine."""
    return not never_began(why) and any(words in why for words in _MACHINE)


def never_began(why: str) -> bool:
    """Tell whether it failed before it could take its first trial."""
    return _CREATION in why


def unfit(why: str) -> bool:
    """Tell whether its machine cannot make trials: it lacks what all of a cluster need, or has no room."""
    return never_began(why) and (ClusterError.__name__ in why or bool(why_in(why)))


def last_line(text: str) -> str:
    """Return the last line of a cause, which tells most."""
    return text.strip().rpartition("\n")[2]


def cause(why: str) -> str:
    """Return the cause of a trial's failure in words."""
    if never_began(why):
        lines = why.strip().splitlines()[-_MOST_LINES:]
        told = "\n".join(lines)
        return f"the process that makes trials could not begin: {lines[-1]}\n{told}"
    return "its process died: killed by the system, out of memory, or a crash in native code"
