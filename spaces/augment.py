"""Augmentation of a batch of inputs: images that are flipped, moved, turned, or a user's function."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from torch.nn import functional

from paretrim.errors import UsageError, UserCodeError

AugmentName = Literal["flip", "nudge", "shift", "crop", "rotate", "brightness"]
AUGMENTS: tuple[AugmentName, ...] = get_args(AugmentName)

STRENGTHS = {"none": 0.0, "light": 0.5, "full": 1.0}
"""Share of the samples that are augmented, by what the recipe calls it."""

_SHIFT, _CROP, _DEGREES, _BRIGHTNESS = 1 / 8, 3 / 4, 15.0, 0.2

Augment = Callable[[torch.Tensor], torch.Tensor]


class Augmentation:
    """Augments batches, the same ones in the same way for the same seed.

    Args:
        described: Names of `AUGMENTS` and at most one import path, joined by ``+``.
        share: Of the samples that are augmented, from 0 to 1; the others stay as they are.
        seed: Of all that is random.

    Raises:
        UsageError: A name is unknown.
        UserCodeError: The user's function does not import.
    """

    def __init__(self, described: str, share: float, seed: int) -> None:
        names = described.split("+")
        wrong = [name for name in names if name not in AUGMENTS and ":" not in name]
        if wrong:
            raise UsageError(
                f"unknown augmentation '{wrong[0]}'; allowed: {', '.join(AUGMENTS)}, or an import path module:function"
            )
        self._names = [name for name in names if ":" not in name]
        self._theirs = [(name, imported(name)) for name in names if ":" in name]
        self._share = share
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return a batch, shape ``(N, ...)``, with its share of samples augmented.

        Raises:
            UserCodeError: The user's function raised, or returned something else than such a batch.
        """
        if self._share == 0.0:
            return inputs
        changed = augmented(inputs, self._names, self._generator) if self._names else inputs
        for path, function in self._theirs:
            changed = self._by_user(path, function, changed)
        if self._share == 1.0:
            return changed
        chosen = torch.rand(len(inputs), generator=self._generator) < self._share
        return torch.where(chosen.to(inputs.device).view(-1, *[1] * (inputs.dim() - 1)), changed, inputs)

    def _by_user(self, path: str, function: Augment, inputs: torch.Tensor) -> torch.Tensor:
        seed = int(torch.randint(2**31, (1,), generator=self._generator))
        theirs = [inputs.device] if inputs.is_cuda else []
        with torch.random.fork_rng(devices=theirs), torch.no_grad():
            torch.manual_seed(seed)
            try:
                changed: Any = function(inputs.clone())
            except Exception as error:
                raise UserCodeError(
                    f"augmentation: {path} raised {type(error).__name__}: {error}; it was given inputs of shape "
                    f"{tuple(inputs.shape)} ({inputs.dtype})"
                ) from error
        what = f"a {type(changed).__name__}"
        if isinstance(changed, torch.Tensor):
            if changed.shape == inputs.shape and changed.dtype == inputs.dtype:
                return changed
            what = f"{changed.dtype} of shape {tuple(changed.shape)}"
        raise UserCodeError(
            f"augmentation: {path} returned {what}; return inputs as they are given: {inputs.dtype} of shape "
            f"{tuple(inputs.shape)}"
        )


def augmented(images: torch.Tensor, names: Sequence[str], generator: torch.Generator) -> torch.Tensor:
    """Return images that are augmented each in a way of its own.

    Args:
        images: Shape ``(N, C, H, W)``, of floats. What comes in from outside repeats the edge, since 0 may stand for any
            colour in data that is normalized.
        names: ``flip`` half of them left to right; ``nudge`` by a pixel at most; ``shift`` by whole pixels, up to an
            eighth of a side; ``crop`` a part of at least three quarters of a side and enlarge it; ``rotate`` by up to 15
            degrees; ``brightness``: multiply by 0.8 to 1.2.
        generator: Source of all that is random, on the CPU.
    """
    turned, count = images, len(images)
    if set(names) - {"brightness"}:
        grid = functional.affine_grid(
            _placements(images, names, generator).to(images), list(images.shape), align_corners=False
        )
        turned = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    if "brightness" in names:
        factors = 1.0 + _BRIGHTNESS * _signed(count, generator)
        turned = turned * factors.to(images).view(-1, 1, 1, 1)
    return turned


def imported(path: str) -> Augment:
    """Return the function of an import path ``module:function``.

    Raises:
        UserCodeError: It does not import, or is no function.
    """
    module, _, name = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise UserCodeError(
            f"augmentation: cannot import {path}: {type(error).__name__}: {error}; modules are looked for in the job's "
            "folder and among the installed packages"
        ) from error
    if not callable(found):
        raise UserCodeError(f"augmentation: {path} is a {type(found).__name__}; a function is needed")
    return found  # type: ignore[no-any-return]


def _placements(images: torch.Tensor, names: Sequence[str], generator: torch.Generator) -> torch.Tensor:
    """Return, for each image, the affine map from places in the new image to places in the old, shape (N, 2, 3)."""
    count, _, height, width = images.shape
    scale, angle = torch.ones(count), torch.zeros(count)
    mirror, moved = torch.ones(count), torch.zeros(count, 2)
    if "flip" in names:
        mirror = 1.0 - 2.0 * (torch.rand(count, generator=generator) < 0.5).float()
    if "crop" in names:
        scale = _CROP + (1.0 - _CROP) * torch.rand(count, generator=generator)
        moved = moved + (1.0 - scale)[:, None] * _signed((count, 2), generator)
    sides = torch.tensor([width, height])
    for name, most in (("nudge", torch.ones(2)), ("shift", (sides * _SHIFT).clamp_min(1.0))):
        if name in names:
            # A whole number of pixels leaves what is moved as sharp as it was; the image is 2 wide.
            moved = moved + (_signed((count, 2), generator) * (most + 0.49)).round() * 2.0 / sides
    if "rotate" in names:
        angle = math.radians(_DEGREES) * _signed(count, generator)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    # Places run from -1 to 1 along either side, so that a turn of what is not square needs the sides' ratio.
    across = torch.stack([mirror * cos, -sin * height / width, moved[:, 0]], dim=1)
    down = torch.stack([mirror * sin * width / height, cos, moved[:, 1]], dim=1)
    return torch.stack([across, down], dim=1)


def _signed(shape: int | tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Return random numbers from -1 to 1."""
    return 2.0 * torch.rand(shape, generator=generator) - 1.0
