"""An artifact: the file that ships.

What ships is the model packed with xz, because weights below 8 bits are stored one to a byte (the form in which the
runtime is fast) and packing takes the unused bits away. Python's standard library unpacks it.
"""

from __future__ import annotations

import hashlib
import lzma
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from paretrim.errors import ArtifactError

Filter = dict[str, int]

# Literal-context and alignment settings worth trying: byte-sized codes, mixed files, and 4-byte floats.
_LAYOUTS: tuple[Filter, ...] = (
    {"lc": 0, "lp": 0, "pb": 0},
    {"lc": 3, "lp": 0, "pb": 2},
    {"lc": 0, "lp": 2, "pb": 2},
)
# Weights hardly repeat, but their bytes have few values: a match finder that gives up at once leaves those to the entropy coder.
# Of floats and 4- and 8-bit codes, dense, with 2 of 4 and with 9 of 10 zeros, the file is within 2% of preset 6's or smaller,
# 1.5 to 5 times as fast; the worst seen are floats that were widened from 4 bits (4% larger).
_NO_MATCHES: Filter = {"preset": 6, "mode": lzma.MODE_NORMAL, "mf": lzma.MF_BT2, "nice_len": 273, "depth": 1}
# The extreme preset costs over a second a megabyte: only small files get it.
_ALL_MATCHES: Filter = {"preset": 9 | lzma.PRESET_EXTREME}
_LARGE = 2 << 20
_SLICES, _SLICE = 4, 256 << 10


@dataclass(frozen=True)
class Artifact:
    """A shipped file and what it holds.

    Attributes:
        path: The packed file, such as ``*.onnx.xz``.
        sha256: Hash of the packed file: the artifact's identity.
        size_bytes: Bytes of the packed file.
        model_sha256: Hash of the model file inside.
        model_bytes: Bytes of the model file inside.
    """

    path: Path
    sha256: str
    size_bytes: int
    model_sha256: str
    model_bytes: int

    @property
    def suffix(self) -> str:
        """How the name of the model file inside ends, such as ``.onnx``."""
        return Path(self.path.stem).suffix

    @contextmanager
    def unpacked(self) -> Iterator[Path]:
        """Yield the model file, unpacked to a temporary folder.

        Raises:
            ArtifactError: The file is missing, damaged, or not the one that was recorded.
        """
        with TemporaryDirectory(prefix="paretrim-") as folder:
            path = Path(folder) / f"model{self.suffix}"
            path.write_bytes(self.read())
            yield path

    def read(self) -> bytes:
        """Return the bytes of the model file, checked against its hash.

        Raises:
            ArtifactError: The file is missing, damaged, or not the one that was recorded.
        """
        try:
            # No more than it should be, however large it would grow.
            unpacking = lzma.LZMADecompressor(format=lzma.FORMAT_XZ)
            model = unpacking.decompress(self.path.read_bytes(), max_length=self.model_bytes + 1)
        except (OSError, lzma.LZMAError) as error:
            raise ArtifactError(f"cannot read the artifact {self.path}: {error}") from error
        if (not unpacking.eof and len(model) <= self.model_bytes) or unpacking.unused_data:
            raise ArtifactError(f"cannot read the artifact {self.path}: it is cut off, or goes on after its end")
        if _sha256(model) != self.model_sha256:
            raise ArtifactError(
                f"{self.path} holds another model than the one recorded (expected SHA-256 {self.model_sha256}, "
                f"found {_sha256(model)}); restore the file or run the search again"
            )
        return model


def pack(model: bytes, folder: Path, suffix: str = ".onnx") -> Artifact:
    """Pack a model file into a folder, named by its hash, and return the artifact.

    The file appears whole or not at all, also when the process is killed.

    Args:
        model: The bytes of the model file.
        folder: Where to keep it; made when it is missing.
        suffix: How the name of such a model file ends, such as ``.onnx`` or ``.pt2``.
    """
    packed = _smallest(model)
    digest = _sha256(packed)
    path = folder / f"{digest}{suffix}.xz"
    if not path.exists() or _sha256(path.read_bytes()) != digest:
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_bytes(packed)
        partial.replace(path)
    else:
        path.touch()  # who tidies up sees that it was wanted just now
    return Artifact(path, digest, len(packed), _sha256(model), len(model))


def _smallest(model: bytes) -> bytes:
    if len(model) <= _LARGE:
        return min((_compress(model, way) for each in (_NO_MATCHES, _ALL_MATCHES) for way in _ways(each)), key=len)
    sample = _sample(model)
    return _compress(model, min(_ways(_NO_MATCHES), key=lambda way: len(_compress(sample, way))))


def _ways(search: Filter) -> Iterator[Filter]:
    return ({**search, **layout} for layout in _LAYOUTS)


def _sample(model: bytes) -> bytes:
    """Return pieces from all over a large file, which tell how to pack it."""
    starts = ((len(model) - _SLICE) * i // (_SLICES - 1) for i in range(_SLICES))
    # Numbers of up to 8 bytes stay aligned.
    return b"".join(model[start & ~7 : (start & ~7) + _SLICE] for start in starts)


def _compress(model: bytes, way: Filter) -> bytes:
    # A dictionary no larger than the file keeps the memory of unpacking small.
    size = max(4096, min(len(model), 8 << 20))
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": size, **way}]
    return lzma.compress(model, format=lzma.FORMAT_XZ, filters=filters)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
