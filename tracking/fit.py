"""Puts this bundle's weights into a network of your own, in torch.

python fit.py --check MODULE:FUNCTION    checks the recorded outputs, with the network that your function returns

From Python: `from fit import fitted`; `fitted(my_network())` is the compressed network, in evaluation mode.
"""

import json
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

HERE = Path(__file__).resolve().parent
SCALE = ".scale"


def fitted(network: nn.Module, folder: Path = HERE) -> nn.Module:
    """Return your uncompressed network with the bundle's weights, its layers made as narrow as these are."""
    return fit(network, widened(load_file(folder / "model.safetensors")))


def widened(held: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return weights as 32-bit floats: codes times their scales, and half floats widened."""
    found = {}
    for name, tensor in held.items():
        if name + SCALE in held:
            found[name] = tensor.float() * held[name + SCALE]
        elif not name.endswith(SCALE) or name.removesuffix(SCALE) not in held:
            found[name] = tensor.float() if tensor.dtype == torch.float16 else tensor
    return found


def fit(network: nn.Module, weights: dict[str, torch.Tensor]) -> nn.Module:
    """Put weights into a network in the place of its own, whatever their shapes."""
    own = network.state_dict().keys()
    if own != weights.keys():
        odd = sorted(own ^ weights.keys())
        raise ValueError(f"the weights are of another network: {', '.join(odd[:5])} is only in one of the two")
    for name, tensor in weights.items():
        owner, _, leaf = name.rpartition(".")
        module = network.get_submodule(owner)
        if leaf in module._parameters:
            module._parameters[leaf] = nn.Parameter(tensor, requires_grad=tensor.is_floating_point())
        else:
            module._buffers[leaf] = tensor
    for module in network.modules():
        resize(module)
    return network.eval()


def resize(module: nn.Module) -> None:
    """Let a layer know how wide its weights are now."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, torch.Tensor):
        return
    sizes = list(weight.shape)
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and not module.transposed:
        if module.groups > 1 and sizes[1] == module.in_channels // module.groups:
            module.groups = sizes[0] // (module.out_channels // module.groups)
        module.out_channels, module.in_channels = sizes[0], sizes[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = sizes
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        module.num_features = sizes[0]
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = sizes[0]
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(sizes)
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = sizes


def check(path: str, folder: Path = HERE) -> None:
    """Compare outputs on the recorded samples with those recorded."""
    module, _, function = path.partition(":")
    sys.path.insert(0, "")
    network = fitted(getattr(import_module(module), function)(), folder)
    samples = np.load(folder / "samples.npz", allow_pickle=False)
    said = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    given = [torch.from_numpy(samples[name]) for name in samples.files if name.partition(".")[0] == "inputs"]
    names = [each["name"] for each in said["inputs"]]
    with torch.inference_mode():
        outputs = (network(**dict(zip(names, given, strict=True))) if said["by_name"] else network(*given)).numpy()
    worst, reach = float(np.abs(outputs - samples["outputs"]).max()), float(np.abs(samples["outputs"]).max()) or 1.0
    if outputs.shape != samples["outputs"].shape or not worst <= 0.02 * reach:
        sys.exit(f"the outputs differ from the recorded ones by up to {worst:.4g}, where the largest is {reach:.4g}")
    print(
        f"{said['job']}, trial {said['trial']}: outputs on {len(outputs)} samples within {worst:.3g} of those recorded"
    )


if __name__ == "__main__":
    if sys.argv[1:2] != ["--check"] or len(sys.argv) != 3:
        sys.exit(__doc__)
    check(sys.argv[2])
