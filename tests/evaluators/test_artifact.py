"""The file that ships: packed, checked, and never half written."""

from __future__ import annotations

import hashlib
import lzma
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paretrim.errors import ArtifactError
from paretrim.evaluators.artifact import Artifact, pack

MODEL = np.random.default_rng(0).integers(0, 256, 20_000, dtype=np.uint8).tobytes()

# A writer that the system kills when its file reaches half of what it should be.
WRITER = """
import resource, signal, sys
from pathlib import Path
from paretrim.evaluators.artifact import pack
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
pack(sys.stdin.buffer.read(), Path(sys.argv[1]))
"""


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return pack(MODEL, tmp_path / "artifacts")


class TestPacking:
    @settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(model=st.one_of(st.binary(max_size=3000), st.binary(min_size=1, max_size=8).map(lambda b: b * 1000)))
    def test_what_is_packed_is_read_back(self, model: bytes, tmp_path: Path) -> None:
        packed = pack(model, tmp_path)
        assert packed.read() == model
        assert packed.model_bytes == len(model)
        assert packed.model_sha256 == hashlib.sha256(model).hexdigest()

    def test_the_standard_library_unpacks_it(self, artifact: Artifact) -> None:
        assert lzma.decompress(artifact.path.read_bytes()) == MODEL
        with lzma.open(artifact.path) as file:
            assert file.read() == MODEL

    def test_the_file_is_named_by_its_hash_and_told_in_full(self, artifact: Artifact) -> None:
        content = artifact.path.read_bytes()
        assert artifact.sha256 == hashlib.sha256(content).hexdigest()
        assert artifact.path.name == f"{artifact.sha256}.onnx.xz"
        assert artifact.size_bytes == len(content)

    @pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
    def test_the_kind_of_model_stands_in_both_names(self, suffix: str, tmp_path: Path) -> None:
        packed = pack(MODEL, tmp_path, suffix)
        assert packed.path.name == f"{packed.sha256}{suffix}.xz"
        assert packed.suffix == suffix
        with packed.unpacked() as path:
            assert path.suffix == suffix

    def test_the_same_model_gives_the_same_file(self, artifact: Artifact) -> None:
        assert pack(MODEL, artifact.path.parent) == artifact
        assert len(list(artifact.path.parent.iterdir())) == 1

    def test_codes_of_few_values_take_few_bits(self, tmp_path: Path) -> None:
        codes = np.random.default_rng(0).integers(-7, 8, 50_000).astype(np.int8)
        assert pack(codes.tobytes(), tmp_path).size_bytes < 0.52 * len(codes)


class TestUnpacking:
    def test_the_model_lies_in_a_folder_that_goes_away(self, artifact: Artifact) -> None:
        with artifact.unpacked() as path:
            assert path.read_bytes() == MODEL
        assert not path.exists()
        assert not path.parent.exists()

    @pytest.mark.parametrize("position", [0, 20, 10_000, -20, -1])
    def test_a_changed_byte_raises_artifact_error(self, artifact: Artifact, position: int) -> None:
        content = bytearray(artifact.path.read_bytes())
        content[position] ^= 0xFF
        artifact.path.write_bytes(content)
        with pytest.raises(ArtifactError, match=f"cannot read the artifact {artifact.path}"):
            artifact.read()

    @pytest.mark.parametrize("length", [0, 1, 12, 10_000])
    def test_a_file_cut_short_raises_artifact_error(self, artifact: Artifact, length: int) -> None:
        artifact.path.write_bytes(artifact.path.read_bytes()[:length])
        with pytest.raises(ArtifactError, match="cannot read the artifact"):
            artifact.read()

    def test_a_missing_file_raises_artifact_error(self, artifact: Artifact) -> None:
        artifact.path.unlink()
        with pytest.raises(ArtifactError, match="No such file"), artifact.unpacked():
            pytest.fail("a missing file was unpacked")

    def test_another_model_than_recorded_raises_artifact_error(self, artifact: Artifact, tmp_path: Path) -> None:
        other = pack(b"another model", tmp_path / "other")
        other.path.replace(artifact.path)
        with pytest.raises(ArtifactError, match="holds another model than the one recorded") as caught:
            artifact.read()
        assert artifact.model_sha256 in str(caught.value)
        assert other.model_sha256 in str(caught.value)

    def test_a_wrong_record_raises_artifact_error(self, artifact: Artifact) -> None:
        with pytest.raises(ArtifactError, match="restore the file or run the search again"):
            replace(artifact, model_sha256="0" * 64).read()

    def test_packing_the_model_again_repairs_a_damaged_file(self, artifact: Artifact) -> None:
        artifact.path.write_bytes(b"damaged")
        assert pack(MODEL, artifact.path.parent).read() == MODEL


class TestKilledWriter:
    def test_no_half_file_takes_the_final_name(self, tmp_path: Path) -> None:
        command = [sys.executable, "-c", WRITER, str(tmp_path)]
        done = subprocess.run(command, input=MODEL, capture_output=True, check=False)
        assert done.returncode == -signal.SIGXFSZ, done.stderr.decode()
        assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]

    def test_the_next_writer_is_not_disturbed(self, tmp_path: Path) -> None:
        subprocess.run([sys.executable, "-c", WRITER, str(tmp_path)], input=MODEL, capture_output=True, check=False)
        assert pack(MODEL, tmp_path).read() == MODEL
