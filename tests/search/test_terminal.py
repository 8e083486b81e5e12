from __future__ import annotations

import io
import re
from collections.abc import Callable

import pytest
from rich.console import Console

from paretrim.search.monitor import Monitor, Outline, Silence
from paretrim.search.progress import Progress
from paretrim.search.terminal import LiveScreen, PlainLines, monitor_for
from paretrim.tracking.testing import OBJECTIVES, sample_record

TRACEBACK = "Traceback (most recent call last):\n  File 'mine.py', line 3\nValueError: no such file\n"
RECORDS = [
    sample_record(0),
    sample_record(3, latency_ms=0.25, size_bytes=50_000.0, memory_bytes=1_000_000.0),
    sample_record(4, state="stopped", cause="behind the others"),
    sample_record(5, state="failed", cause=TRACEBACK),
]


def an_outline(trials: int = 10, minutes: float | None = None) -> Outline:
    return Outline("digits-1", "accuracy", OBJECTIVES, (), trials, minutes)


def a_terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=140, height=40, color_system=None)


def a_pipe() -> Console:
    return Console(file=io.StringIO(), width=60)


def written(console: Console) -> str:
    """Return what went to the terminal, without the sequences that move the cursor."""
    assert isinstance(console.file, io.StringIO)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())


def screened(act: Callable[[LiveScreen], None]) -> str:
    """Return what a live screen shows in the course of some events."""
    console = a_terminal()
    with LiveScreen(console) as screen:
        act(screen)
    return written(console)


def printed(act: Callable[[PlainLines], None]) -> list[str]:
    """Return the lines that are printed into a pipe in the course of some events."""
    console = a_pipe()
    with PlainLines(console) as lines:
        act(lines)
    return written(console).splitlines()


def a_search(monitor: Monitor) -> None:
    monitor.begin(an_outline(), [])
    for record in RECORDS:
        monitor.started(record.number)
        monitor.trained(record.number)
        monitor.finished(record)


def test_a_terminal_gets_a_live_screen_and_a_pipe_gets_lines() -> None:
    assert isinstance(monitor_for(a_terminal()), LiveScreen)
    assert isinstance(monitor_for(a_pipe()), PlainLines)


def test_plain_lines_are_one_for_each_trial_that_ends() -> None:
    head, *lines = printed(a_search)
    assert head == "digits-1: 10 trials, 0 of them done"
    assert [line.split(")")[0] for line in lines] == [
        "trial 0 (baseline", "trial 3 (search", "trial 4 (search", "trial 5 (search",
    ]  # fmt: skip


def test_a_plain_line_has_the_objectives_of_a_complete_trial() -> None:
    line = printed(a_search)[2]
    assert "accuracy 0.9; latency 0.250 ms; size 50.0 kB; memory 1.00 MB; " in line


def test_a_plain_line_has_the_cause_of_one_that_did_not_complete() -> None:
    lines = printed(a_search)
    assert "trial 4 (search) stopped: behind the others; " in lines[3]
    assert "trial 5 (search) failed: ValueError: no such file; " in lines[4]


def test_a_plain_line_counts_trials_and_shows_the_course() -> None:
    line = printed(a_search)[-1]
    assert "2/10 finished, 0 running, 1 stopped early, 1 failed" in line
    assert re.search(r"hypervolume 0\.\d{4}; 0:00 passed, about 0:00 left$", line)


def test_plain_lines_show_any_text_as_it_is() -> None:
    text = "no [bold]markup[/bold], [/tmp/x] and [Errno 2]"
    assert printed(lambda lines: lines.say(text)) == [text]


def test_plain_lines_of_a_search_that_goes_on_say_how_much_was_done() -> None:
    assert printed(lambda lines: lines.begin(an_outline(), RECORDS)) == ["digits-1: 10 trials, 4 of them done"]


def test_a_live_screen_shows_that_a_search_is_starting() -> None:
    assert "starting" in screened(lambda screen: None)


def test_a_live_screen_shows_counts_and_the_front() -> None:
    shown = screened(a_search)
    assert "2/10 finished, 0 running, 1 stopped early, 1 failed" in shown
    assert "hypervolume 0." in shown
    assert "0.250 ms (0.25)" in shown


def test_a_live_screen_counts_what_runs() -> None:
    def act(screen: LiveScreen) -> None:
        screen.begin(an_outline(), [])
        for number in (0, 1):
            screen.started(number)

    assert "0/10 finished, 2 running" in screened(act)


def test_a_live_screen_keeps_a_line_for_a_failure() -> None:
    assert "trial 5 failed: ValueError: no such file" in screened(a_search)


def test_a_live_screen_says_so_when_no_cause_is_known() -> None:
    def act(screen: LiveScreen) -> None:
        screen.begin(an_outline(), [])
        screen.finished(sample_record(5, state="failed"))

    assert "trial 5 failed: no cause was recorded" in screened(act)


@pytest.mark.parametrize("text", ["scoring the front", "cannot log at [/tmp/x]: refused", "two [bold] words"])
def test_a_live_screen_shows_any_text_as_it_is(text: str) -> None:
    assert text in screened(lambda screen: screen.say(text))


def test_silence_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    silence = Silence()
    a_search(silence)
    silence.say("something")
    assert capsys.readouterr() == ("", "")


def test_the_time_left_is_unknown_before_a_trial_ended() -> None:
    progress = Progress()
    assert progress.left() is None
    progress.begin(an_outline(), RECORDS)
    assert progress.left() is None


def test_the_time_left_follows_from_the_pace_of_this_run() -> None:
    progress = Progress()
    progress.begin(an_outline(trials=4), RECORDS[:2])
    progress.finished(RECORDS[2])
    left, elapsed = progress.left(), progress.elapsed()
    assert left is not None
    assert 0 < left <= elapsed


def test_no_time_is_left_when_the_budget_is_used() -> None:
    progress = Progress()
    progress.begin(an_outline(trials=1), [])
    progress.finished(RECORDS[0])
    assert progress.left() == 0


def test_the_time_left_is_no_longer_than_the_minutes() -> None:
    progress = Progress()
    progress.begin(an_outline(trials=1_000_000, minutes=0.001), [])
    progress.finished(RECORDS[0])
    left = progress.left()
    assert left is not None
    assert left <= 0.06


def test_progress_measures_what_was_done_before() -> None:
    progress = Progress()
    progress.begin(an_outline(), RECORDS)
    assert progress.report is not None
    assert progress.hypervolume > 0
    assert [progress.count(state) for state in ("complete", "stopped", "failed")] == [2, 1, 1]
