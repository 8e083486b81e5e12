"""Runs this bundle's model with onnxruntime and numpy alone.

python predict.py inputs.npy outputs.npy    runs the model on raw inputs of shape (N, ...)
python predict.py --check                   checks the files, and the recorded outputs on the recorded samples

From Python: `from predict import load, named, prepared`; `load()(prepared(raw))` are the outputs.
"""

import hashlib
import json
import lzma
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# ONNX Runtime reports its use to its makers; that is for the owner of this machine to choose.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime

HERE = Path(__file__).resolve().parent


def manifest(folder: Path = HERE) -> dict[str, Any]:
    """Return what the bundle says of itself."""
    found: dict[str, Any] = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    return found


def load(folder: Path = HERE) -> Callable[[np.ndarray], np.ndarray]:
    """Return the model as a function from an array of inputs, as `prepared` makes them, to an array of outputs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    # The packed file is what ships; model.onnx is the same file unpacked, for tools that want it so.
    model = unpacked((folder / "model.onnx.xz").read_bytes(), manifest(folder)["model"]["bytes"])
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda inputs: session.run(None, {name: inputs})[0]


def unpacked(packed: bytes, size: int) -> bytes:
    """Return what a packed file holds, but not more than it should, however large it would grow."""
    decompressor = lzma.LZMADecompressor(format=lzma.FORMAT_XZ)
    found = decompressor.decompress(packed, max_length=size + 1)
    if len(found) != size or not decompressor.eof or decompressor.unused_data:
        sys.exit(f"model.onnx.xz does not hold the {size} bytes that were recorded")
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
    told = manifest(folder)
    packed = (folder / told["packed"]["file"]).read_bytes()
    plain = (folder / told["model"]["file"]).read_bytes()
    for part, data in (("packed", packed), ("model", plain)):
        if len(data) != told[part]["bytes"]:
            sys.exit(f"{told[part]['file']} has {len(data)} bytes, {told[part]['bytes']} were recorded")
        if hashlib.sha256(data).hexdigest() != told[part]["sha256"]:
            sys.exit(f"{told[part]['file']} does not have the recorded SHA-256")
        print(f"{told[part]['file']}: {len(data)} bytes, SHA-256 {told[part]['sha256'][:16]}... as recorded")
    if unpacked(packed, len(plain)) != plain:
        sys.exit("model.onnx is not what model.onnx.xz holds")
    compare(folder)
    for line in (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        if hashlib.sha256((folder / Path(name).name).read_bytes()).hexdigest() != digest:
            sys.exit(f"{name} does not have the SHA-256 of SHA256SUMS")


def compare(folder: Path) -> None:
    """Compare outputs on the recorded samples with those recorded."""
    samples = np.load(folder / "samples.npz", allow_pickle=False)
    outputs, recorded = load(folder)(samples["inputs"]), samples["outputs"]
    if not np.isfinite(recorded).all():
        sys.exit("the recorded outputs are not finite, so everything would agree with them")
    if outputs.shape != recorded.shape:
        sys.exit(f"the outputs have shape {outputs.shape}, {recorded.shape} was recorded")
    # Another processor may round an integer product to the neighbouring step of an 8-bit scale.
    reach = float(np.abs(recorded).max()) or 1.0
    worst = float(np.abs(outputs - recorded).max())
    if not worst <= 0.02 * reach:
        sys.exit(f"the outputs differ from the recorded ones by up to {worst:.4g}, where the largest is {reach:.4g}")
    print(f"outputs on {len(recorded)} samples: within {worst:.3g} of those recorded")


def main() -> None:
    """Run the model on a file, or check the bundle."""
    if sys.argv[1:2] == ["--check"] and len(sys.argv) <= 3:
        check(*map(Path, sys.argv[2:]))
    elif len(sys.argv) == 3:
        outputs = load()(prepared(np.load(sys.argv[1], allow_pickle=False)))
        np.save(sys.argv[2], outputs)
        print(*named(outputs)[:20])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
