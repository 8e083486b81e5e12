"""Runs this bundle's model with onnxruntime and numpy alone.

python run.py inputs.npy outputs.npy    runs the model on an array of shape (N, ...)
python run.py --check                   checks the files, and the recorded outputs on the recorded samples
"""

import hashlib
import json
import lzma
import os
import sys
from collections.abc import Callable
from pathlib import Path

# ONNX Runtime reports its use to its makers; that is for the owner of this machine to choose.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime

HERE = Path(__file__).resolve().parent


def load() -> Callable[[np.ndarray], np.ndarray]:
    """Return the model as a function from an array of inputs to an array of outputs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    # The packed file is what ships; model.onnx is the same file unpacked, for tools that want it so.
    model = lzma.decompress((HERE / "model.onnx.xz").read_bytes())
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda inputs: session.run(None, {name: inputs})[0]


def check() -> None:
    """Compare hashes, sizes and outputs with what was recorded."""
    manifest = json.loads((HERE / "bundle.json").read_text())
    packed = (HERE / manifest["packed"]["file"]).read_bytes()
    plain = (HERE / manifest["model"]["file"]).read_bytes()
    for part, data in (("packed", packed), ("model", plain)):
        if len(data) != manifest[part]["bytes"]:
            sys.exit(f"{manifest[part]['file']} has {len(data)} bytes, {manifest[part]['bytes']} were recorded")
        if hashlib.sha256(data).hexdigest() != manifest[part]["sha256"]:
            sys.exit(f"{manifest[part]['file']} does not have the recorded SHA-256")
        print(f"{manifest[part]['file']}: {len(data)} bytes, SHA-256 {manifest[part]['sha256'][:16]}... as recorded")
    if lzma.decompress(packed) != plain:
        sys.exit("model.onnx is not what model.onnx.xz holds")
    samples = np.load(HERE / "samples.npz", allow_pickle=False)
    outputs, recorded = load()(samples["inputs"]), samples["outputs"]
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
    if sys.argv[1:] == ["--check"]:
        check()
    elif len(sys.argv) == 3:
        np.save(sys.argv[2], load()(np.load(sys.argv[1], allow_pickle=False)))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
