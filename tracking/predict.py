"""Runs this bundle's model with numpy and one runtime: onnxruntime for model.onnx, openvino for model.tar, torch for model.pt2.

python predict.py inputs.npy outputs.npy    runs the model on raw inputs of shape (N, ...); for a model of several inputs on
                                            inputs.npz, with an array for each under its name in bundle.json
python predict.py --check                   checks the files, and the recorded outputs on the recorded samples
python predict.py --files                   checks the files alone

From Python: `from predict import load, named, prepared`; `load()(prepared(raw))` are the outputs, and of a model of several
inputs `load()(first, second)`, in the order of bundle.json.
"""

import hashlib
import io
import json
import lzma
import os
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

# ONNX Runtime reports its use to its makers; that is for the owner of this machine to choose.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np

Model = Callable[..., np.ndarray]
HERE = Path(__file__).resolve().parent


def manifest(folder: Path = HERE) -> dict[str, Any]:
    """Return what the bundle says of itself."""
    found: dict[str, Any] = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    return found


def load(folder: Path = HERE) -> Model:
    """Return the model as a function from arrays of its inputs, as `prepared` makes them, to an array of outputs."""
    told = manifest(folder)
    # The packed file is what ships; the other one is the same unpacked, for tools that want it so.
    packed = folder / told["packed"]["file"]
    model = unpacked(packed.read_bytes(), told["model"]["bytes"], packed.name)
    return OPENERS[Path(told["model"]["file"]).suffix](model, [each["name"] for each in told["inputs"]])


def onnx(model: bytes, names: list[str]) -> Model:
    """Open an ONNX file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda *inputs: session.run(None, dict(zip(names, inputs, strict=True)))[0]


def openvino(model: bytes, names: list[str]) -> Model:
    """Open OpenVINO's two files, which lie in an archive."""
    import openvino as ov

    with tarfile.open(fileobj=io.BytesIO(model)) as archive:
        graph, constants = (archive.extractfile(name).read() for name in ("model.xml", "model.bin"))  # type: ignore[union-attr]
    core = ov.Core()
    options = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(graph, constants), "CPU", options)
    return lambda *inputs: compiled(dict(zip(names, inputs, strict=True)))[0]


def pt2(model: bytes, names: list[str]) -> Model:
    """Open an exported program of PyTorch's. PyTorch may unpickle parts of it: only do so where you know who made it."""
    import torch

    exported = torch.export.load(io.BytesIO(model))
    program, by_name = exported.module(), bool(exported.example_inputs[1])

    def run(*inputs: np.ndarray) -> np.ndarray:
        given = [torch.from_numpy(each) for each in inputs]
        with torch.inference_mode():
            outputs: np.ndarray = (
                program(**dict(zip(names, given, strict=True))) if by_name else program(*given)
            ).numpy()
        return outputs

    return run


def weights(model: bytes, names: list[str]) -> Model:  # noqa: ARG001
    """Tell that weights alone are no model."""
    sys.exit("this bundle holds weights for a network of your own; fit.py puts them into it")


OPENERS = {".onnx": onnx, ".tar": openvino, ".pt2": pt2, ".safetensors": weights}


def unpacked(packed: bytes, size: int, name: str) -> bytes:
    """Return what a packed file holds, but not more than it should, however large it would grow."""
    decompressor = lzma.LZMADecompressor(format=lzma.FORMAT_XZ)
    found = decompressor.decompress(packed, max_length=size + 1)
    if len(found) != size or not decompressor.eof or decompressor.unused_data:
        sys.exit(f"{name} does not hold the {size} bytes that were recorded")
    return found


def prepared(raw: np.ndarray, folder: Path = HERE) -> np.ndarray:
    """Return raw inputs as the model takes them; unchanged where the bundle says nothing of that."""
    told = manifest(folder).get("preprocessing")
    if told is None:
        return raw
    inputs = np.moveaxis(raw, -1, 1) if told["channels_last"] else raw
    inputs = inputs.reshape(len(inputs), *told["shape"]) if told["shape"] else inputs
    inputs = inputs.astype(np.float32) * np.float32(told["scale"])
    channels = (1, -1, *(1,) * (inputs.ndim - 2))
    if told["mean"]:
        inputs = inputs - np.array(told["mean"], np.float32).reshape(channels)
    if told["std"]:
        inputs = inputs / np.array(told["std"], np.float32).reshape(channels)
    return np.ascontiguousarray(inputs, np.float32)


def named(outputs: np.ndarray, folder: Path = HERE) -> list[str]:
    """Return the name of the class that each output is greatest for; empty where the bundle names none."""
    labels = manifest(folder).get("labels") or []
    return [labels[position] for position in outputs.argmax(axis=-1)] if labels else []


def check(folder: Path = HERE) -> None:
    """Compare hashes, sizes and outputs with what was recorded."""
    check_model(folder)
    compare(folder)
    check_sums(folder)


def check_files(folder: Path = HERE) -> None:
    """Compare hashes and sizes with what was recorded; the model is not opened."""
    check_model(folder)
    check_sums(folder)


def check_model(folder: Path) -> None:
    """Compare hashes and sizes of the model with what was recorded."""
    told = manifest(folder)
    packed = (folder / told["packed"]["file"]).read_bytes()
    plain = (folder / told["model"]["file"]).read_bytes()
    for part, data in (("packed", packed), ("model", plain)):
        if len(data) != told[part]["bytes"]:
            sys.exit(f"{told[part]['file']} has {len(data)} bytes, {told[part]['bytes']} were recorded")
        if hashlib.sha256(data).hexdigest() != told[part]["sha256"]:
            sys.exit(f"{told[part]['file']} does not have the recorded SHA-256")
        print(f"{told[part]['file']}: {len(data)} bytes, SHA-256 {told[part]['sha256'][:16]}... as recorded")
    if unpacked(packed, len(plain), told["packed"]["file"]) != plain:
        sys.exit(f"{told['model']['file']} is not what {told['packed']['file']} holds")


def check_sums(folder: Path) -> None:
    """Compare the hashes of all files with those listed."""
    for line in (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        if hashlib.sha256((folder / Path(name).name).read_bytes()).hexdigest() != digest:
            sys.exit(f"{name} does not have the SHA-256 of SHA256SUMS")


def compare(folder: Path) -> None:
    """Compare outputs on the recorded samples with those recorded."""
    samples = np.load(folder / "samples.npz", allow_pickle=False)
    inputs = [samples[name] for name in samples.files if name.partition(".")[0] == "inputs"]
    outputs, recorded = load(folder)(*inputs), samples["outputs"]
    if not np.isfinite(recorded).all():
        sys.exit("the recorded outputs are not finite, so everything would agree with them")
    if outputs.shape != recorded.shape:
        sys.exit(f"the outputs have shape {outputs.shape}, {recorded.shape} was recorded")
    # Another processor may round an integer product to the neighbouring step of an 8-bit scale.
    reach = float(np.abs(recorded).max()) or 1.0
    worst = float(np.abs(outputs - recorded).max())
    if not worst <= 0.02 * reach:
        sys.exit(
            f"the outputs differ from the recorded ones by up to {worst:.4g}, where the largest is {reach:.4g}; on x86 "
            "processors without VNNI the 8-bit sums of a model that was made elsewhere overflow, unless ONNX Runtime's "
            "session option session.x64quantprecision is 1"
        )
    print(f"outputs on {len(recorded)} samples: within {worst:.3g} of those recorded")


def given(path: str) -> list[np.ndarray]:
    """Return the inputs that a file holds, as the model takes them."""
    found, names = np.load(path, allow_pickle=False), [each["name"] for each in manifest()["inputs"]]
    if len(names) == 1:
        return [prepared(found)]
    missing = [name for name in names if not hasattr(found, "files") or name not in found.files]
    if missing:
        sys.exit(
            f"the model takes {', '.join(names)}: {path} must be an .npz file with these, and {', '.join(missing)} is not in it"
        )
    return [found[name] for name in names]


def main() -> None:
    """Run the model on a file, or check the bundle."""
    checks = {"--check": check, "--files": check_files}
    if len(sys.argv) in (2, 3) and sys.argv[1] in checks:
        checks[sys.argv[1]](*map(Path, sys.argv[2:]))
    elif len(sys.argv) == 3:
        outputs = load()(*given(sys.argv[1]))
        np.save(sys.argv[2], outputs)
        print(*named(outputs)[:20])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
