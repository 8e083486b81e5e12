"""What a model file stores, and what a runtime makes of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a model file.

    Attributes:
        name: As the file calls it; most begin with the path of the layer.
        dtype: Type of an element as stored, such as ``float16`` or ``int8``.
        shape: Elements along each dimension; empty for a scalar.
        bytes: Bytes of its elements in the unpacked file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True)
class Weights:
    """The constants of a model.

    Attributes:
        tensors: All that the unpacked file stores.
        held_bytes: Bytes of the constants that the runtime computes with once the file is loaded: more than are stored
            where it widens half floats, fewer where it drops what it folded. What kernels pack for themselves on top
            is not in it; the memory of the process is measured for that.
    """

    tensors: tuple[StoredTensor, ...]
    held_bytes: int

    @property
    def stored_bytes(self) -> int:
        """Bytes of the tensors in the unpacked file."""
        return sum(tensor.bytes for tensor in self.tensors)
