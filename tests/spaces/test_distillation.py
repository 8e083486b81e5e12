"""The loss of distillation, against its formula."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError
from torch.nn import functional

from paretrim.spaces.anatomy import dissect
from paretrim.spaces.dimension import Condition, Range, Value, exists
from paretrim.spaces.distillation import Distillation, DistillationOptions, decoupled_distance, soft_distance
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.schooling import Loss
from paretrim.spaces.technique import Technique
from paretrim.spaces.testing import TechniqueContract, small_batch, small_net

Floats = npt.NDArray[np.float32]
LOGITS = arrays(np.float32, (4, 3), elements=st.floats(-20, 20, width=32))
TEMPERATURES = st.floats(0.5, 50)
WEIGHTS = st.floats(0, 1)
LABELS = torch.tensor([0, 2, 1, 1])


class TestContract(TechniqueContract):
    @pytest.fixture
    def technique(self) -> Technique:
        return Distillation(DistillationOptions())


def cross_entropy(outputs: torch.Tensor, labels: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
    return functional.cross_entropy(outputs, labels)


def squares(outputs: torch.Tensor, labels: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
    return functional.mse_loss(outputs, labels)


def blended(weight: float, temperature: float, plain: Loss = cross_entropy) -> Loss:
    values = {"distillation.weight": weight, "distillation.temperature": temperature}
    return Distillation(DistillationOptions()).loss(plain, Recipe.of(values))


def softmax(logits: Floats, temperature: float) -> npt.NDArray[np.float64]:
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    shares: npt.NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


@given(LOGITS, LOGITS, TEMPERATURES, WEIGHTS)
def test_the_loss_is_the_formula_of_hinton(student: Floats, teacher: Floats, temperature: float, weight: float) -> None:
    wanted, given_ = softmax(teacher, temperature), softmax(student, temperature)
    divergence = (wanted * (np.log(wanted) - np.log(given_))).sum(axis=1).mean() * temperature**2
    right = -np.log(softmax(student, 1.0)[np.arange(4), LABELS.numpy()]).mean()
    loss = blended(weight, temperature)(torch.from_numpy(student), LABELS, torch.from_numpy(teacher))
    assert float(loss) == pytest.approx((1 - weight) * right + weight * divergence, rel=1e-3, abs=0.02)


def test_the_loss_of_two_samples_by_hand() -> None:
    student, teacher = torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    shares = (np.e / (np.e + 1), 1 / (np.e + 1))  # of the teacher, at temperature 2
    divergence = sum(share * np.log(share / 0.5) for share in shares) * 2**2
    loss = blended(0.25, 2.0)(student, torch.tensor([0, 1]), teacher)
    assert float(loss) == pytest.approx(0.75 * np.log(2) + 0.25 * divergence, rel=1e-5)


@given(LOGITS, LOGITS, TEMPERATURES)
def test_a_weight_of_zero_is_the_plain_loss(student: Floats, teacher: Floats, temperature: float) -> None:
    outputs = torch.from_numpy(student)
    loss = blended(0.0, temperature)(outputs, LABELS, torch.from_numpy(teacher))
    assert torch.equal(loss, cross_entropy(outputs, LABELS, None))


@given(LOGITS, TEMPERATURES)
def test_a_student_that_answers_as_the_teacher_has_nothing_to_learn_from_it(logits: Floats, temperature: float) -> None:
    outputs = torch.from_numpy(logits).requires_grad_(True)
    distance = soft_distance(outputs, outputs.detach(), temperature, classes=True)
    torch.autograd.backward(distance)
    assert float(distance.detach()) == pytest.approx(0.0, abs=1e-3)
    assert outputs.grad is not None
    assert float(outputs.grad.abs().max()) < 1e-3


@given(LOGITS, LOGITS, TEMPERATURES)
def test_the_distance_is_never_negative(student: Floats, teacher: Floats, temperature: float) -> None:
    distance = soft_distance(torch.from_numpy(student), torch.from_numpy(teacher), temperature, classes=True)
    assert float(distance) >= -1e-3


def test_gradients_keep_their_size_at_high_temperatures() -> None:
    teacher = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, -1.0]])
    sizes = []
    for temperature in (10.0, 20.0, 40.0):
        outputs = torch.zeros((2, 3), requires_grad=True)
        torch.autograd.backward(soft_distance(outputs, teacher, temperature, classes=True))
        assert outputs.grad is not None
        sizes.append(float(outputs.grad.norm()))
    assert sizes == pytest.approx([sizes[0]] * 3, rel=0.05)


def test_without_a_teacher_the_loss_is_the_plain_one() -> None:
    outputs = torch.tensor([[1.0, -1.0, 0.0]])
    assert torch.equal(blended(0.9, 4.0)(outputs, LABELS[:1], None), cross_entropy(outputs, LABELS[:1], None))


def test_regression_takes_the_squared_distance_whatever_the_temperature() -> None:
    outputs, labels, teacher = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [0.0]]), torch.tensor([[2.0], [5.0]])
    losses = [float(blended(0.5, t, squares)(outputs, labels, teacher)) for t in (1.0, 8.0)]
    assert losses == pytest.approx([0.5 * 5.0 + 0.5 * 2.5] * 2)


@pytest.mark.parametrize(
    "labels", [torch.tensor([0, 1]), torch.tensor([[0], [1]])], ids=["yes or no", "several labels"]
)
@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_outputs_that_do_not_exclude_each_other_take_the_squared_distance(
    shape: tuple[int, ...], labels: torch.Tensor
) -> None:
    def nothing(outputs: torch.Tensor, labels: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
        return outputs.sum() * 0

    outputs, teacher = torch.tensor([1.0, 3.0]).view(shape), torch.tensor([2.0, 5.0]).view(shape)
    assert float(blended(1.0, 4.0, nothing)(outputs, labels, teacher)) == pytest.approx(2.5)


def test_each_token_is_an_answer_of_its_own() -> None:
    outputs, teacher = torch.randn(3, 5, 4), torch.randn(3, 5, 4)
    each = soft_distance(outputs.view(15, 4), teacher.view(15, 4), 2.0, classes=True)
    assert float(soft_distance(outputs, teacher, 2.0, classes=True)) == pytest.approx(float(each))
    labels = torch.zeros((3, 5), dtype=torch.int64)
    loss = blended(1.0, 2.0, lambda o, y, t: o.sum() * 0)(outputs, labels, teacher)
    assert float(loss) == pytest.approx(float(each), rel=1e-4)


def test_the_loss_so_far_is_kept_inside() -> None:
    student, teacher = torch.zeros((4, 3)), torch.ones((4, 3)) * torch.tensor([1.0, 0.0, 0.0])

    def doubled(outputs: torch.Tensor, labels: torch.Tensor, taught: torch.Tensor | None) -> torch.Tensor:
        return 2 * cross_entropy(outputs, labels, taught)

    once, twice = (blended(0.5, 2.0, plain)(student, LABELS, teacher) for plain in (cross_entropy, doubled))
    assert float(twice - once) == pytest.approx(0.5 * np.log(3))


def test_dimensions_are_the_ranges_of_the_settings() -> None:
    options = DistillationOptions(temperature=(2.0, 6.0), weight=(0.25, 0.75))
    dimensions = Distillation(options).dimensions(dissect(small_net(), small_batch(2)[0]))
    assert dimensions == (
        Range("distillation.weight", 0.25, 0.75, neutral=0.0),
        Range("distillation.temperature", 2.0, 6.0, 2.0, log=True, when=(Condition("distillation.weight"),)),
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": (4.0, 4.0)},
        {"temperature": (0.1, 4.0)},
        {"weight": (0.8, 0.2)},
        {"weight": (0.0, 1.5)},
        {"alpha": 0.5},
        {"methods": ("hints",)},
        {"methods": ()},
        {"transfers": ("attention", "attention")},
        {"transfer_weight": (0.0, 1.0)},
        {"teacher": "no path"},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        DistillationOptions.model_validate(wrong)


class TestDecoupled:
    def test_the_parts_make_the_whole_where_beta_is_the_teachers_doubt(self) -> None:
        # Zhao et al., equation 6: KD = TCKD + (1 - p of the right class) NCKD.
        student, teacher = torch.tensor([[1.0, 0.0, -2.0]]), torch.tensor([[0.5, 1.5, 0.0]])
        label = torch.tensor([1])
        doubt = 1.0 - float(functional.softmax(teacher / 3.0, dim=1)[0, 1])
        parts = decoupled_distance(student, teacher, label, 3.0, beta=doubt)
        assert float(parts) == pytest.approx(float(soft_distance(student, teacher, 3.0, classes=True)), rel=1e-5)

    def test_beta_weighs_the_wrong_classes(self) -> None:
        student, teacher = (
            torch.tensor([[4.0, 1.0, 0.0]]),
            torch.tensor([[4.0, 0.0, 1.0]]),
        )  # alike but for the wrong ones
        losses = [float(decoupled_distance(student, teacher, torch.tensor([0]), 1.0, beta)) for beta in (0.0, 1.0, 4.0)]
        assert losses[0] == pytest.approx(0.0, abs=1e-6)
        assert losses[2] == pytest.approx(4 * losses[1], rel=1e-4)

    def test_two_classes_have_one_wrong_one_which_teaches_nothing_more(self) -> None:
        student, teacher, labels = torch.randn(4, 2), torch.randn(4, 2), torch.tensor([0, 1, 1, 0])
        whole = float(soft_distance(student, teacher, 2.0, classes=True))
        assert float(decoupled_distance(student, teacher, labels, 2.0, beta=8.0)) == pytest.approx(whole, rel=1e-4)

    def test_tokens_without_a_label_are_left_out(self) -> None:
        student, teacher = torch.randn(1, 3, 4), torch.randn(1, 3, 4)
        labels = torch.tensor([[2, -100, 0]])
        kept = decoupled_distance(student[:, [0, 2]], teacher[:, [0, 2]], labels[:, [0, 2]], 2.0, 2.0)
        assert float(decoupled_distance(student, teacher, labels, 2.0, 2.0)) == pytest.approx(float(kept))
        assert float(decoupled_distance(student, teacher, torch.full((1, 3), -100), 2.0, 2.0)) == 0.0

    def test_the_recipe_chooses_it_and_numbers_fall_back_to_squares(self) -> None:
        values: dict[str, Value] = {"distillation.weight": 1.0, "distillation.temperature": 2.0}
        values["distillation.method"] = "decoupled"
        options = DistillationOptions(methods=("logits", "decoupled"), beta=3.0)
        loss = Distillation(options).loss(lambda o, y, t: o.sum() * 0, Recipe.of(values))
        student, teacher = torch.randn(4, 3), torch.randn(4, 3)
        wanted = decoupled_distance(student, teacher, LABELS, 2.0, 3.0)
        assert float(loss(student, LABELS, teacher)) == pytest.approx(float(wanted))
        numbers = loss(student, torch.randn(4, 3), teacher)
        assert float(numbers) == pytest.approx(float(functional.mse_loss(student, teacher)))


def test_choices_exist_only_where_they_are_asked_for_and_matter() -> None:
    options = DistillationOptions(methods=("logits", "decoupled"), transfers=("none", "similarity"))
    found = {each.name: each for each in Distillation(options).dimensions(dissect(small_net(), small_batch(2)[0]))}
    assert not exists(found["distillation.method"], {"distillation.weight": 0.0})
    assert exists(found["distillation.method"], {"distillation.weight": 0.5})
    assert not exists(found["distillation.transfer_weight"], {"distillation.transfer": "none"})
    assert exists(found["distillation.transfer_weight"], {"distillation.transfer": "similarity"})


def test_scores_of_pixels_are_compared_class_by_class() -> None:
    random = torch.Generator().manual_seed(0)
    outputs, teacher = (torch.randn(4, 3, 5, 6, generator=random) for _ in range(2))
    labels = torch.randint(3, (4, 5, 6), generator=random)
    for method in ("logits", "decoupled"):
        technique = Distillation(DistillationOptions(methods=(method,)))
        recipe = Recipe.of({"distillation.weight": 1.0, "distillation.temperature": 2.0, "distillation.method": method})
        loss = technique.loss(lambda *_: torch.tensor(0.0), recipe)
        found = loss(outputs, labels, teacher)
        rows = [each.movedim(1, -1).flatten(0, -2) for each in (outputs, teacher)]
        torch.testing.assert_close(found, loss(rows[0], labels.flatten(), rows[1]))
