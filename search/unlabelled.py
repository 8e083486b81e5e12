"""Data without labels: the uncompressed model's own answers are learned, and agreement with them is the metric."""

from __future__ import annotations

import torch
from torch import nn

from paretrim.errors import DataError
from paretrim.evaluators.metrics import AGREEMENT, NUMBERS, Metric
from paretrim.evaluators.splits import Split, Splits
from paretrim.search import usercode
from paretrim.search.job import Job
from paretrim.search.outputs import settle

_BATCH = 256


def with_answers(model: nn.Module, splits: Splits, metric: Metric) -> Splits:
    """Return splits in which each part has labels.

    Where the metric is agreement, validation and test get the model's answers for labels, whatever they had. A training or
    calibration part without labels gets them too.

    Args:
        model: The uncompressed model, which gives one tensor.
        splits: The user's.
        metric: The job's.

    Raises:
        DataError: Validation or test have no labels, and the metric asks for some.
    """
    agreeing = metric.name == AGREEMENT
    parts = {
        "train": splits.search.train,
        "calibration": splits.search.calibration,
        "validation": splits.search.validation,
        "test": splits.test.unseal(),
    }
    bare = [name for name in ("validation", "test") if not parts[name].labelled]
    if bare and not agreeing:
        raise DataError(
            f"the {' and '.join(bare)} data has no labels, and '{metric.name}' compares with labels; give some, or ask for the "
            f"metric '{AGREEMENT}', which compares with the uncompressed model's answers"
        )
    wanted = [
        name for name, part in parts.items() if not part.labelled or (agreeing and name in ("validation", "test"))
    ]
    if not wanted:
        return splits
    given = {
        name: part.with_labels(_answers(model, part, metric)) if name in wanted else part
        for name, part in parts.items()
    }
    return Splits(**given, labels=splits.labels, preprocessing=splits.preprocessing)


def _answers(model: nn.Module, part: Split, metric: Metric) -> torch.Tensor:
    with torch.no_grad():
        outputs = torch.cat([batch.inputs.through(model) for batch in part.batches(_BATCH)])
    # A score for each class comes last, or, of images, before the height and the width.
    scores = 1 if outputs.dim() > 3 else outputs.dim() - 1
    classes = outputs.dim() > 1 and outputs.shape[scores] > 1 and metric.options.get("of") != NUMBERS
    return outputs.argmax(dim=scores) if classes else outputs.float()


def data_of(job: Job) -> Splits:
    """Return a job's data, each part with labels.

    Raises:
        UserCodeError: The model's or data's function fails.
        DataError: The data does not fit.
    """
    splits, metric = usercode.load_data(job), usercode.load_metric(job)
    parts = (splits.search.train, splits.search.calibration, splits.search.validation, splits.test.unseal())
    if metric.name != AGREEMENT and all(part.labelled for part in parts):
        return splits
    model = usercode.load_model(job)
    settle(model, splits.search.train.first(2).inputs, job.output, "the model")
    return with_answers(model, splits, metric)
