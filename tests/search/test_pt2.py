"""A program of torch.export becomes a network that answers the same, and that can be worked on."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from ray import cloudpickle
from torch import nn

from paretrim.errors import SourceError
from paretrim.evaluators import onnx_export
from paretrim.evaluators.inputs import Inputs
from paretrim.models import from_pt2
from paretrim.search.outputs import settle
from paretrim.search.teaching import code_of
from paretrim.spaces.anatomy import dissect

from .helper_programs import Words, in_program, picture, pictures, save, sentences, words
from .helper_programs import changed as changed_file

Example = Callable[[int], dict[str, torch.Tensor]]
CASES = [(picture, pictures), (words, sentences)]


def answer(net: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        given = net(**inputs)
    return given["logits"] if isinstance(given, dict) else given  # type: ignore[no-any-return]


@pytest.fixture(scope="module", params=CASES, ids=["picture", "words"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path, Example]:
    """A network, the file that it was exported to, and what makes its inputs."""
    make, example = request.param
    net = make()
    return net, save(net, tmp_path_factory.mktemp("pt2") / "net.pt2", example(2)), example


def test_it_answers_as_the_model_that_was_exported(saved: tuple[nn.Module, Path, Example]) -> None:
    net, path, example = saved
    torch.testing.assert_close(answer(from_pt2(path), example(7)), answer(net, example(7)))


def test_it_answers_as_torchs_own_reading_of_the_file(saved: tuple[nn.Module, Path, Example]) -> None:
    _, path, example = saved
    theirs = torch.export.load(path).module()
    torch.testing.assert_close(answer(from_pt2(path), example(3)), answer(theirs, example(3)))


def test_inputs_are_taken_by_position_too(saved: tuple[nn.Module, Path, Example]) -> None:
    _, path, example = saved
    net, inputs = from_pt2(path), example(3)
    with torch.no_grad():
        given = net(*inputs.values())
    torch.testing.assert_close(given["logits"] if isinstance(given, dict) else given, answer(net, inputs))


def test_layers_are_modules_under_their_own_paths_with_their_own_settings(tmp_path: Path) -> None:
    own = dict(picture().named_modules())
    found = dict(from_pt2(save(picture(), tmp_path / "net.pt2", pictures(2))).named_modules())
    for path in ("stem", "norm", "act", "block.conv", "block.norm", "wide", "group", "drop", "head"):
        assert repr(found[path]) == repr(own[path]), path
    assert {type(each) for each in found.values()} >= {nn.GELU}


def test_parameters_have_their_names_and_shared_ones_are_shared(saved: tuple[nn.Module, Path, Example]) -> None:
    net, path, _ = saved
    found = from_pt2(path)
    # Attention's own weights have become those of a linear layer.
    own = {name.replace("in_proj_", "in_proj.") for name, _ in net.named_parameters()}
    assert {name for name, _ in found.named_parameters()} == own
    if isinstance(net, Words):
        assert found.get_parameter("last.weight") is found.get_parameter("emb.weight")


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda net: cloudpickle.loads(cloudpickle.dumps(net))])
def test_a_copy_answers_the_same_and_is_apart(
    twin: Callable[[nn.Module], nn.Module], saved: tuple[nn.Module, Path, Example]
) -> None:
    _, path, example = saved
    net = from_pt2(path)
    expected = answer(net, example(3))
    other = twin(net)
    assert torch.equal(answer(other, example(3)), expected)
    with torch.no_grad():
        next(iter(other.parameters())).add_(1.0)
    assert not torch.equal(answer(other, example(3)), expected)
    assert torch.equal(answer(net, example(3)), expected)


def test_a_copy_keeps_the_output_that_counts(tmp_path: Path) -> None:
    net = from_pt2(save(words(), tmp_path / "net.pt2", sentences(2)))
    settle(net, Inputs.of(sentences(2)), "pooled", "the model")
    assert copy.deepcopy(net)(**sentences(3)).shape == (3, 16)


def test_it_learns(saved: tuple[nn.Module, Path, Example]) -> None:
    _, path, example = saved
    net = from_pt2(path).train()
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    losses = []
    for _ in range(30):
        given = net(**example(16))
        logits = given["logits"] if isinstance(given, dict) else given
        loss = nn.functional.cross_entropy(logits, torch.arange(16) % 3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_training_mode_reaches_dropout_and_batch_norm(tmp_path: Path) -> None:
    net = from_pt2(save(picture(), tmp_path / "net.pt2", pictures(2))).train()
    before = net.get_buffer("norm.running_mean").clone()
    torch.manual_seed(0)
    one, other = net(**pictures(4)), net(**pictures(4))
    assert not torch.equal(one, other)
    assert not torch.equal(net.get_buffer("norm.running_mean"), before)


def test_a_program_exported_for_inference_alone_learns_too(tmp_path: Path) -> None:
    frozen = picture().requires_grad_(False)
    net = from_pt2(save(frozen, tmp_path / "net.pt2", pictures(2)))
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_what_was_frozen_stays_frozen_beside_what_learns(tmp_path: Path) -> None:
    half = picture()
    half.stem.requires_grad_(False)
    net = from_pt2(save(half, tmp_path / "net.pt2", pictures(2)))
    assert [name for name, each in net.named_parameters() if not each.requires_grad] == ["stem.weight"]


def test_it_exports_again_for_any_number_of_samples(saved: tuple[nn.Module, Path, Example], tmp_path: Path) -> None:
    _, path, example = saved
    net = from_pt2(path)
    settle(net, Inputs.of(example(2)), None, "the model")
    signature = Inputs.of(example(2)).signature
    exported = onnx_export.export(copy.deepcopy(net), signature)
    session = onnxruntime.InferenceSession(exported.proto.SerializeToString())
    for count in (1, 5):
        given = session.run(None, {name: x.numpy() for name, x in example(count).items()})[0]
        np.testing.assert_allclose(given, net(**example(count)).detach().numpy(), rtol=1e-3, atol=1e-4)
    assert "head" in exported.layer_nodes or "block.linear1" in exported.layer_nodes
    again = from_pt2(save(net, tmp_path / "again.pt2", example(2)))
    torch.testing.assert_close(again(**example(3)), net(**example(3)))


def test_pruning_finds_channels_and_the_layers_in_their_order(saved: tuple[nn.Module, Path, Example]) -> None:
    net, path, example = saved
    found = from_pt2(path)
    settle(found, Inputs.of(example(2)), None, "the model")
    anatomy = dissect(found, Inputs.of(example(2)))
    settle(net, Inputs.of(example(2)), None, "the model")
    if isinstance(net, Words):
        assert "block.linear1" in {group.name for group in anatomy.groups}
    else:
        assert [layer.name for layer in anatomy.layers] == [
            layer.name for layer in dissect(net, Inputs.of(example(2))).layers
        ]


def test_programs_that_differ_in_a_setting_alone_are_told_apart(tmp_path: Path) -> None:
    one = save(picture(), tmp_path / "one.pt2", pictures(2))
    flat = picture()
    flat.act = nn.SiLU()  # type: ignore[assignment]
    other = save(flat, tmp_path / "other.pt2", pictures(2))
    assert code_of(from_pt2(one)) == code_of(from_pt2(one))
    assert code_of(from_pt2(one)) != code_of(from_pt2(other))


def test_a_program_without_example_inputs_is_taken(tmp_path: Path) -> None:
    path = save(picture(), tmp_path / "net.pt2", pictures(2))

    def without(records: dict[str, bytes]) -> None:
        records["data/sample_inputs/model.pt"] = b""

    net = from_pt2(changed_file(path, without))
    torch.testing.assert_close(answer(net, pictures(3)), answer(picture(), pictures(3)))


def test_a_fixed_number_of_samples_is_refused_with_the_words_to_export_with(tmp_path: Path) -> None:
    path = save(picture(), tmp_path / "net.pt2", pictures(2), free=False)
    with pytest.raises(SourceError, match=r"'x' of shape \(2, 1, 8, 8\).*dynamic_shapes=\{'x': \{0: batch\}, 'mask'"):
        from_pt2(path)


def test_a_program_exported_in_training_mode_is_refused(tmp_path: Path) -> None:
    path = save(picture().train(), tmp_path / "net.pt2", pictures(2))
    with pytest.raises(SourceError, match=r"model\.eval\(\)"):
        from_pt2(path)


def test_a_branch_that_depends_on_values_is_refused(tmp_path: Path) -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,))  # type: ignore[no-any-return]

    path = save(Branching().eval(), tmp_path / "net.pt2", {"x": torch.randn(2, 3)})
    with pytest.raises(SourceError, match="a graph within the graph"):
        from_pt2(path)


def test_a_decomposed_program_is_refused_since_no_layer_can_be_told(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval()
    batch = torch.export.Dim("batch")
    program = torch.export.export(net, (torch.randn(2, 4),), dynamic_shapes=({0: batch},))
    torch.export.save(program.run_decompositions(), tmp_path / "net.pt2")
    with pytest.raises(SourceError, match=r"not decomposed \(run_decompositions\)"):
        from_pt2(tmp_path / "net.pt2")


@pytest.mark.parametrize(
    ("content", "words_said"),
    [(None, "there is no file"), (b"not a zip", "is no program of torch.export")],
)
def test_what_is_no_program_is_refused(content: bytes | None, words_said: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=words_said):
        from_pt2(path)


def test_weights_alone_are_no_program(tmp_path: Path) -> None:
    torch.save(picture().state_dict(), tmp_path / "net.pt2")
    with pytest.raises(SourceError, match="holds no program"):
        from_pt2(tmp_path / "net.pt2")


def test_another_version_of_the_format_is_refused(tmp_path: Path) -> None:
    def later(document: dict[str, Any]) -> None:
        document["schema_version"]["major"] = 9

    path = changed_file(save(picture(), tmp_path / "net.pt2", pictures(2)), in_program(later))
    with pytest.raises(SourceError, match="version 9 of the format, and 8"):
        from_pt2(path)


def test_a_program_that_lacks_a_part_is_refused_in_one_sentence(tmp_path: Path) -> None:
    def less(document: dict[str, Any]) -> None:
        del document["graph_module"]["graph"]["nodes"][0]["inputs"]

    path = changed_file(save(picture(), tmp_path / "net.pt2", pictures(2)), in_program(less))
    with pytest.raises(SourceError, match="is not understood"):
        from_pt2(path)
