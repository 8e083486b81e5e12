"""Augmentation of batches."""

from __future__ import annotations

import pytest
import torch

from paretrim.errors import UsageError, UserCodeError
from paretrim.spaces.augment import AUGMENTS, Augmentation, augmented

IMAGES = torch.rand(16, 3, 16, 16, generator=torch.Generator().manual_seed(0)) + 0.5


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def inverted(inputs: torch.Tensor) -> torch.Tensor:
    return inputs.neg_()


def noisy(inputs: torch.Tensor) -> torch.Tensor:
    return inputs + torch.randn_like(inputs)


def smaller(inputs: torch.Tensor) -> torch.Tensor:
    return inputs[..., 1:]


def broken(inputs: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("no luck")


HERE = f"{__name__}:"


@pytest.mark.parametrize("name", AUGMENTS)
def test_each_changes_images_and_keeps_shape_and_type(name: str) -> None:
    changed = augmented(IMAGES, [name], generator())
    assert changed.shape == IMAGES.shape
    assert changed.dtype == IMAGES.dtype
    assert bool(torch.isfinite(changed).all())
    assert not torch.allclose(changed, IMAGES, atol=1e-3)
    assert torch.equal(changed, augmented(IMAGES, [name], generator()))


def test_flips_mirror_some_images_and_leave_the_others() -> None:
    changed = augmented(IMAGES, ["flip"], generator())
    same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(changed, IMAGES, strict=True)]
    mirrored = [torch.allclose(a, b.flip(-1), atol=1e-5) for a, b in zip(changed, IMAGES, strict=True)]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert 0 < sum(mirrored) < len(IMAGES)


@pytest.mark.parametrize(("name", "reach"), [("nudge", 1), ("shift", 2)])
def test_shifts_are_by_whole_pixels_and_repeat_the_edge(name: str, reach: int) -> None:
    changed = augmented(IMAGES, [name], generator())
    moves = set()
    for old, new in zip(IMAGES, changed, strict=True):
        shown = {(x, y) for x in range(-2, 3) for y in range(-2, 3) if torch.allclose(moved(old, x, y), new, atol=1e-4)}
        assert len(shown) == 1
        moves |= shown
    assert len(moves) > 4
    assert max(abs(steps) for move in moves for steps in move) == reach


def moved(image: torch.Tensor, x: int, y: int) -> torch.Tensor:
    rows, columns = (torch.arange(16) + y).clamp(0, 15), (torch.arange(16) + x).clamp(0, 15)
    return image[:, rows][:, :, columns]


def test_a_background_that_is_not_zero_stays_when_images_move() -> None:
    plain = torch.full((8, 1, 16, 16), -0.42)
    assert torch.allclose(augmented(plain, ["nudge", "shift", "crop", "rotate"], generator()), plain, atol=1e-6)


def test_a_turn_keeps_the_middle_and_its_shape_where_sides_differ() -> None:
    rows, columns = torch.meshgrid(torch.arange(16) - 7.5, torch.arange(32) - 15.5, indexing="ij")
    hill = torch.exp(-(rows**2 + columns**2) / 18).expand(8, 1, 16, 32)
    assert float((augmented(hill, ["rotate"], generator()) - hill).abs().max()) < 0.05
    ridge = torch.exp(-(rows**2) / 18).expand(8, 1, 16, 32)
    assert float((augmented(ridge, ["rotate"], generator()) - ridge).abs().max()) > 0.2


def test_brightness_multiplies() -> None:
    ratio = augmented(IMAGES, ["brightness"], generator()) / IMAGES
    assert float(ratio.flatten(1).std(dim=1).max()) < 1e-5
    assert 0.8 <= float(ratio.min()) < float(ratio.max()) <= 1.2 + 1e-5


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0, 0), (0.5, 10, 54), (1.0, 64, 64)])
def test_a_share_of_the_samples_is_augmented(share: float, low: int, high: int) -> None:
    inputs = torch.ones(64, 3, 4, 4)
    changed = Augmentation("brightness", share, seed=1)(inputs)
    assert low <= int((changed != inputs).flatten(1).any(dim=1).sum()) <= high


def test_a_function_of_the_users_gets_a_copy() -> None:
    inputs = torch.rand(4, 3)
    before = inputs.clone()
    assert torch.equal(Augmentation(f"{HERE}inverted", 1.0, 0)(inputs), -before)
    assert torch.equal(inputs, before)


def test_a_function_of_the_users_is_seeded_and_leaves_the_global_source_alone() -> None:
    inputs = torch.zeros(4, 3)
    one, other = Augmentation(f"{HERE}noisy", 1.0, 3), Augmentation(f"{HERE}noisy", 1.0, 3)
    torch.manual_seed(0)
    first = one(inputs)
    state = torch.random.get_rng_state()
    assert torch.equal(first, other(inputs))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.equal(first, one(inputs))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("smaller", r"returned torch.float32 of shape \(4, 2\); return inputs as they are given"),
        ("broken", "raised RuntimeError: no luck; it was given inputs of shape"),
        ("nowhere", "cannot import"),
        ("HERE", "is a str; a function is needed"),
    ],
)
def test_mistakes_of_the_users_function_are_told(name: str, told: str) -> None:
    with pytest.raises(UserCodeError, match=told):
        Augmentation(f"{HERE}{name}", 1.0, 0)(torch.zeros(4, 3))


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown augmentation 'blur'; allowed: flip, nudge, shift"):
        Augmentation("flip+blur", 1.0, 0)
