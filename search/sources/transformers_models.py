"""Models of the transformers library, from a folder or by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from paretrim.errors import SourceError, nearest
from paretrim.search.sources.extra import extra

TASKS = {
    "sequence-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "image-classification": "AutoModelForImageClassification",
    "audio-classification": "AutoModelForAudioClassification",
    "multiple-choice": "AutoModelForMultipleChoice",
    "question-answering": "AutoModelForQuestionAnswering",
    "masked-lm": "AutoModelForMaskedLM",
    "causal-lm": "AutoModelForCausalLM",
    "features": "AutoModel",
}


def from_transformers(
    folder_or_name: str | Path, task: str = "sequence-classification", *, attention: str = "eager"
) -> nn.Module:
    """Return a trained model of the transformers library.

    It takes its inputs by name (``input_ids``, ``attention_mask``, ...) and gives several outputs, of which ``logits`` counts
    unless the job's ``output`` says otherwise. Weights are read from safetensors, and code that lies beside them is not run.
    Keys and values of earlier tokens are not kept (``use_cache`` is off). Layers of GPT-2's kind (``Conv1D``) become
    `torch.nn.Linear`, so that techniques can work on them.

    Args:
        folder_or_name: A folder that ``save_pretrained`` wrote, for which the network is never asked; or a name on the Hugging
            Face hub, which is downloaded into its cache.
        task: What the model is for, which chooses its head: ``sequence-classification``, ``token-classification``,
            ``image-classification``, ``audio-classification``, ``multiple-choice``, ``question-answering``, ``masked-lm``,
            ``causal-lm``, or ``features`` for the model without a head.
        attention: transformers' ``attn_implementation``; ``eager`` exports with the fewest nodes.

    Returns:
        The model in evaluation mode, in 32-bit floats, on the CPU.

    Raises:
        MissingExtraError: The extra ``transformers`` is not installed.
        SourceError: There is no such model, it has no safetensors or needs code of its own, or its weights are not for the task.
    """
    if task not in TASKS:
        raise SourceError(f"unknown task '{task}'; allowed: {', '.join(TASKS)}{nearest(task, list(TASKS))}")
    library = extra("transformers")
    local = _is_local(folder_or_name)
    try:
        with _without_bar(library):
            model, report = getattr(library, TASKS[task]).from_pretrained(
                str(folder_or_name),
                attn_implementation=attention,
                dtype=torch.float32,
                local_files_only=local,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        first = next(iter(str(error).splitlines()), "")
        raise SourceError(
            f"transformers does not load '{folder_or_name}' for {task}: {first}; a folder that model.save_pretrained(...) wrote "
            "is needed, with config.json and model.safetensors, of an architecture that transformers itself has"
        ) from error
    _check_trained(report, str(folder_or_name), task)
    model.config.use_cache = False
    unfold_transposed(model, library.pytorch_utils.Conv1D)
    return model.eval()  # type: ignore[no-any-return]


@contextmanager
def _without_bar(library: ModuleType) -> Iterator[None]:
    """Keep transformers' own progress bar out of what a search prints."""
    logging = library.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _is_local(folder_or_name: str | Path) -> bool:
    """Tell a folder from a name.

    Raises:
        SourceError: It is a path, and there is no such folder.
    """
    if Path(folder_or_name).is_dir():
        return True
    text = str(folder_or_name)
    if isinstance(folder_or_name, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1:
        raise SourceError(
            f"there is no folder '{text}'; paths are taken from {Path.cwd()}, or use Path(__file__).parent"
        )
    return False


def _check_trained(report: Any, name: str, task: str) -> None:
    """Refuse a model whose weights are partly random, of which transformers only warns."""
    missing = sorted(map(str, report["missing_keys"])) + sorted(str(each[0]) for each in report["mismatched_keys"])
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise SourceError(
            f"'{name}' has no weights for {', '.join(missing[:3])}{more}, so it is not trained for {task}; name the task that it "
            "is trained for, or train it first"
        )


def unfold_transposed(model: nn.Module, kind: type[nn.Module]) -> None:
    """Put a linear layer, in place, where a model has one with its weight the other way round.

    Args:
        model: The model.
        kind: The class of such layers, with ``weight`` of shape (inputs, outputs) and ``bias``.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, kind):
            owner, _, last = name.rpartition(".")
            setattr(model.get_submodule(owner), last, _linear(module))


def _linear(module: nn.Module) -> nn.Linear:
    weight, bias = module.get_parameter("weight"), module.get_parameter("bias")
    with torch.device("meta"):
        linear = nn.Linear(weight.shape[0], weight.shape[1])
    linear.weight = nn.Parameter(weight.detach().T.contiguous(), requires_grad=weight.requires_grad)
    linear.bias = bias
    return linear
