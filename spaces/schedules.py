"""How the learning rate runs over recovery training."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch.optim import lr_scheduler

from paretrim.errors import UsageError

ScheduleName = Literal["onecycle", "cosine", "step", "constant"]
SCHEDULES: tuple[ScheduleName, ...] = get_args(ScheduleName)


def build(name: str, optimizer: torch.optim.Optimizer, steps: int) -> lr_scheduler.LRScheduler:
    """Return a schedule, to be stepped after each step of the optimizer, whose learning rate is the peak.

    Args:
        name: ``onecycle`` rises for a fifth of the steps and falls to nearly nothing (Smith and Topin,
            "Super-Convergence", 2018); ``cosine`` falls from the start (Loshchilov and Hutter, "SGDR", 2017); ``step``
            falls to a tenth after half and again after three quarters of the steps (He et al., "Deep Residual
            Learning", 2016); ``constant`` stays.
        optimizer: Whose learning rate is set.
        steps: Steps of the whole training.

    Raises:
        UsageError: No schedule has that name.
    """
    if name == "onecycle":
        # With a fifth of exactly five steps to rise in, the scheduler would divide by zero.
        rise = 0.2 if steps != 5 else 0.25
        peak = [group["lr"] for group in optimizer.param_groups]
        return lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps, pct_start=rise, cycle_momentum=False)
    if name == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    if name == "step":
        return lr_scheduler.MultiStepLR(optimizer, milestones=[steps // 2, 3 * steps // 4], gamma=0.1)
    if name == "constant":
        return lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    raise UsageError(f"unknown schedule '{name}'; allowed: {', '.join(SCHEDULES)}")
