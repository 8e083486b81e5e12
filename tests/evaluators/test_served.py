"""Artifacts that answer from a process of their own, which may crash, hang and chatter."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from paretrim.errors import ArtifactError
from paretrim.evaluators import served as serving
from paretrim.evaluators.evaluator import Specimen
from paretrim.evaluators.served import served
from paretrim.evaluators.target import Array, Session, TargetAddress, TargetSettings
from paretrim.evaluators.testing import ONNX, random_inputs

pytestmark = pytest.mark.usefixtures("helpers")
NOWHERE = Path("no-file")
TYPES = [np.float32, np.float64, np.float16, np.int64, np.int32, np.uint8, np.bool_, np.complex64]


def helper(name: str) -> TargetAddress:
    """Return the address of one of the helper targets."""
    return TargetAddress(f"helper_targets:{name}", TargetSettings("helper"))


def load(address: TargetAddress, model: Path = NOWHERE, limit_s: float = 60.0) -> None:
    """Open a model in a process of its own, and close it."""
    with served(address, model, limit_s):
        pass


def gone(process: int) -> bool:
    """Tell whether a process has ended and been waited for."""
    return not Path(f"/proc/{process}").exists()


@pytest.fixture(scope="module")
def echo(helpers: None) -> Iterator[Session]:
    with served(helper("Echo"), NOWHERE) as session:
        yield session


class TestAnswers:
    def test_they_are_those_of_a_session_in_this_process(self, small_onnx: Specimen) -> None:
        here = ONNX.build().open(small_onnx.model)
        with served(ONNX, small_onnx.model) as there:
            for seed, size in enumerate((1, 5, 64, 3)):
                batch = random_inputs(size, seed=seed)
                assert np.array_equal(there(batch), here(batch))

    @given(arrays.arrays(st.sampled_from(TYPES), arrays.array_shapes(max_dims=4, min_side=0, max_side=5)))
    def test_what_goes_in_comes_out_to_the_bit(self, echo: Session, batch: Array) -> None:
        answer = echo(batch)
        assert (answer.dtype, answer.shape) == (batch.dtype, batch.shape)
        assert answer.tobytes() == batch.tobytes()

    def test_nan_and_infinities_pass_unharmed(self, echo: Session) -> None:
        batch = np.array([[np.nan, np.inf, -np.inf, -0.0, 5e-324]])
        assert echo(batch).tobytes() == batch.tobytes()

    @pytest.mark.parametrize("layout", ["columns", "slice", "swapped"])
    def test_the_layout_in_memory_does_not_matter(self, echo: Session, layout: str) -> None:
        whole = np.arange(24, dtype=np.float32).reshape(4, 6)
        batch = {"columns": np.asfortranarray(whole), "slice": whole[::2, 1::2], "swapped": whole.astype(">f4")}[layout]
        assert np.array_equal(echo(batch), batch)

    def test_a_batch_larger_than_any_pipe_passes(self, echo: Session) -> None:
        batch = np.random.default_rng(0).standard_normal((2, 3, 1000, 1000)).astype(np.float32)
        assert np.array_equal(echo(batch), batch)

    @pytest.mark.parametrize("size", [0, 1, 2])
    def test_an_answer_can_be_kept(self, echo: Session, size: int) -> None:
        first = echo(np.full((size, 2), 1.0))
        echo(np.full((size, 2), 2.0))
        assert np.array_equal(first, np.full((size, 2), 1.0))

    def test_what_a_runtime_prints_does_not_come_between(self) -> None:
        with served(helper("Printing"), NOWHERE, limit_s=30.0) as session:
            for size in (1, 2, 3):
                batch = random_inputs(size)
                assert np.array_equal(session(batch), batch)

    def test_two_are_served_side_by_side(self) -> None:
        with served(helper("Telling"), NOWHERE) as one, served(helper("Telling"), NOWHERE) as other:
            processes = {int(session(np.zeros(1))[0]) for session in (one, other, one)}
        assert len(processes) == 2
        assert os.getpid() not in processes

    def test_the_process_does_not_carry_what_it_does_not_need(self) -> None:
        with served(helper("Telling"), NOWHERE) as session:
            assert session(np.zeros(1))[1] == 0


class TestEnds:
    def test_the_process_ends_with_the_context(self) -> None:
        with served(helper("Telling"), NOWHERE) as session:
            process = int(session(np.zeros(1))[0])
            assert not gone(process)
        assert gone(process)

    def test_an_error_of_ours_ends_it_too_and_is_not_changed(self) -> None:
        with pytest.raises(ZeroDivisionError), served(helper("Telling"), NOWHERE) as session:
            process = int(session(np.zeros(1))[0])
            _ = 1 / 0
        assert gone(process)

    def test_no_pipe_stays_open(self) -> None:
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(2):
            load(helper("Echo"))
        assert len(list(Path("/proc/self/fd").iterdir())) == before


class TestFailures:
    @pytest.mark.parametrize("content", [b"this is no model", b""])
    def test_a_damaged_file_is_told_in_the_words_of_the_runtime(self, content: bytes, tmp_path: Path) -> None:
        damaged = tmp_path / "damaged.onnx"
        damaged.write_bytes(content)
        told = r"process ended with code 1 at loading: .*ArtifactError: ONNX Runtime does not load the artifact: \[ONNX"
        with pytest.raises(ArtifactError, match=told):
            load(ONNX, damaged)

    def test_a_model_that_the_target_refuses_is_told_in_its_words(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
        with pytest.raises(ArtifactError, match=r"loading: .*no-file is not to its taste"):
            load(helper("Refusing"))

    def test_a_target_that_does_not_exist_is_told(self) -> None:
        with pytest.raises(ArtifactError, match=r"loading: AttributeError: .*'Nobody'"):
            load(helper("Nobody"))

    def test_a_process_that_somebody_kills_is_told(self) -> None:
        with served(helper("Telling"), NOWHERE) as session:
            process = int(session(np.zeros(1))[0])
            os.kill(process, signal.SIGKILL)
            for _ in range(2):
                with pytest.raises(ArtifactError, match=r"was killed by SIGKILL at a batch of shape \(3, 6\)"):
                    session(random_inputs(3))
        assert gone(process)

    @pytest.mark.parametrize(
        ("mood", "told"),
        [
            (1, "ended with code 1 at a batch of shape .*: the runtime is out of luck"),
            (2, "was killed by SIGSEGV at a batch of shape"),
            (4, "ended with code 7 at a batch of shape"),
            (5, "ended with code 1 at a batch of shape .*: ValueError: Object arrays"),
        ],
    )
    def test_a_process_that_fails_on_a_batch_is_told(self, mood: int, told: str) -> None:
        with served(helper("Moody"), NOWHERE) as session:
            assert session(np.zeros((2, 1)))[0] == 0
            with pytest.raises(ArtifactError, match=told):
                session(np.full((2, 1), mood))

    def test_a_process_that_dies_before_it_has_read_a_large_batch_is_told(self) -> None:
        with served(helper("Telling"), NOWHERE) as session:
            os.kill(int(session(np.zeros(1))[0]), signal.SIGKILL)
            with pytest.raises(ArtifactError, match="was killed by SIGKILL"):
                session(np.zeros((1000, 1000)))

    def test_a_batch_that_hangs_is_stopped(self) -> None:
        load(helper("Moody"))
        told = r"took more than 3 s for a batch of shape \(1, 1\) and was stopped"
        with served(helper("Moody"), NOWHERE, limit_s=3.0) as session, pytest.raises(ArtifactError, match=told):
            session(np.full((1, 1), 3))

    def test_a_model_that_loads_for_ever_is_stopped(self) -> None:
        with pytest.raises(ArtifactError, match="took more than 1 s for loading and was stopped"):
            load(helper("Sleeping"), limit_s=1.0)

    @pytest.mark.parametrize("words", ["'no array at all'", "-n ''"])
    def test_a_process_that_ends_with_nonsense_is_told(self, replace: Callable[[str], None], words: str) -> None:
        replace(f"echo {words}; echo 'so be it' >&2")
        with pytest.raises(ArtifactError, match="ended with code 0 at loading: so be it"):
            load(ONNX)

    def test_a_process_that_answers_nonsense_and_lives_on_is_ended(
        self, replace: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(serving, "_ENDING_S", 0.2)
        replace(f"echo $$ > {tmp_path}/pid; echo 'no array at all'; exec sleep 60")
        with pytest.raises(
            ArtifactError, match="do not understand each other at loading: the magic string is not correct"
        ):
            load(ONNX)
        assert gone(int((tmp_path / "pid").read_text()))

    def test_a_batch_that_cannot_be_sent_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(serving, "_ENDING_S", 0.2)
        with served(helper("Echo"), NOWHERE) as session, pytest.raises(ArtifactError, match="Object arrays"):
            session(np.array([None]))
