"""OpenVINO's own two files, a graph in XML and its constants, which lie in one archive."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from paretrim.errors import ArtifactError
from paretrim.evaluators.openvino_target import OpenVinoCpu, node_bytes, openvino
from paretrim.evaluators.signature import Signature
from paretrim.evaluators.target import LoweringRequest
from paretrim.evaluators.weights import StoredTensor, Weights

if TYPE_CHECKING:
    import torch

    from paretrim.evaluators.artifact import Artifact

SUFFIX = ".tar"
_PARTS = ("model.xml", "model.bin")


class OpenVinoIr(OpenVinoCpu):
    """Runs OpenVINO's own files with its CPU plugin: whoever receives one needs no reader of ONNX."""

    def lower(self, model: torch.nn.Module, request: LoweringRequest, folder: Path) -> Artifact:
        """Export, quantize, convert, pack.

        Raises:
            LoweringError: The exporter or the quantizer cannot take this model.
        """
        from paretrim.evaluators.artifact import pack

        with TemporaryDirectory(prefix="paretrim-") as scratch:
            graph = super().lower(model, request, Path(scratch)).read()
            return pack(_converted(graph, Path(scratch)), folder, SUFFIX)

    def weigh(self, path: Path) -> Weights:
        """Return the archive's constants, and the bytes of those in the graph that OpenVINO makes of it.

        Raises:
            ArtifactError: The runtime does not load it.
        """
        held = self.held(path)
        nodes = self.read(openvino().Core(), path).get_ordered_ops()
        return Weights(tuple(_stored(node) for node in nodes if node.get_type_name() == "Constant"), held)

    def empty(self, inputs: Signature, path: Path) -> None:
        """Write a model that returns its inputs."""
        super().empty(inputs, path)
        with TemporaryDirectory(prefix="paretrim-") as scratch:
            path.write_bytes(_converted(path.read_bytes(), Path(scratch)))

    def read(self, core: Any, path: Path) -> Any:
        """Return the graph of an archive.

        Raises:
            ArtifactError: It is none.
        """
        try:
            with tarfile.open(path) as archive:
                parts = [_part(archive, name) for name in _PARTS]
        except (OSError, tarfile.TarError, KeyError) as error:
            raise ArtifactError(f"the artifact is no archive of {' and '.join(_PARTS)}: {error}") from error
        return core.read_model(*parts)


def _converted(graph: bytes, scratch: Path) -> bytes:
    """Return an ONNX file as an archive of OpenVINO's files."""
    ov = openvino()
    # OpenVINO would halve 32-bit floats by itself, and the model would not be the one that was asked for.
    ov.save_model(ov.Core().read_model(graph), str(scratch / _PARTS[0]), compress_to_fp16=False)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in _PARTS:
            data = (scratch / name).read_bytes()
            # Without times and owners, so that equal models make equal files.
            told = tarfile.TarInfo(name)
            told.size = len(data)
            archive.addfile(told, io.BytesIO(data))
    return buffer.getvalue()


def _part(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(f"{name} is no file")
    return file.read()


def _stored(node: Any) -> StoredTensor:
    shape = tuple(node.get_output_shape(0))
    return StoredTensor(
        node.get_friendly_name(), node.get_output_element_type(0).get_type_name(), shape, node_bytes(node)
    )
