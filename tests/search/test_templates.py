"""Each template works as it is, once the files are there that it names."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from paretrim.errors import OutputExistsError, UsageError
from paretrim.search import prepare, scaffold
from paretrim.search.cli import main
from paretrim.search.jobfile import load

from .helper_programs import save

FEATURES, CLASSES = 64, 10


class Net(nn.Module):
    """``(N, features)``, or images of as many values, to logits ``(N, classes)``."""

    def __init__(self, features: int = FEATURES, classes: int = CLASSES) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, 32)
        self.head = nn.Linear(32, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(nn.functional.relu(self.hidden(x.flatten(1))))  # type: ignore[no-any-return]


def arrays(folder: Path, before: str = "", count: int = 120, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    np.save(folder / f"{before}inputs.npy", rng.normal(size=(count, FEATURES)).astype(np.float32))
    np.save(folder / f"{before}labels.npy", rng.integers(0, CLASSES, count))


def program(folder: Path, shape: tuple[int, ...] = (FEATURES,), classes: int = CLASSES) -> None:
    net = Net(int(np.prod(shape)), classes).eval()
    save(net, folder / "model.pt2", {"x": torch.randn(2, *shape)})


def with_weights(folder: Path) -> None:
    save_file(Net().state_dict(), folder / "weights.safetensors")
    arrays(folder)


def with_arrays(folder: Path) -> None:
    program(folder)
    arrays(folder)


def with_loaders(folder: Path) -> None:
    program(folder)
    arrays(folder, "train_")
    arrays(folder, "validation_", seed=1)


def with_frame(folder: Path) -> None:
    program(folder, (3,), 2)
    rng = np.random.default_rng(0)
    columns = {"age": rng.normal(size=120), "height": rng.normal(size=120), "city": rng.choice(["Bonn", "Ulm"], 120)}
    pd.DataFrame({**columns, "label": rng.choice(["ill", "well"], 120)}).to_parquet(folder / "table.parquet")


def paint(folder: Path, size: int) -> None:
    for code, name in enumerate(("cat", "dog")):
        (folder / "images" / name).mkdir(parents=True)
        for i in range(20):
            pixels = np.random.default_rng([code, i]).integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name / f"{i}.png")


def with_images(folder: Path) -> None:
    program(folder, (3, 32, 32), 2)
    paint(folder, 40)


def with_datasets(folder: Path) -> None:
    import datasets

    program(folder, (4,), 2)
    values = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32).tolist()
    datasets.Dataset.from_dict({"values": values, "label": [i % 2 for i in range(60)]}).save_to_disk(folder / "dataset")


def with_mlflow(folder: Path) -> None:
    # A registry takes seconds to fill; see test_mlflow_models.py. A folder of the same files is named as a user would.
    (folder / "logged" / "data").mkdir(parents=True)
    (folder / "logged" / "MLmodel").write_text("flavors: {pytorch: {model_data: data}}")
    program(folder / "logged" / "data")
    module = folder / "net.py"
    module.write_text(module.read_text().replace("models:/net/1", str(folder / "logged")))
    arrays(folder)


def with_transformers(folder: Path) -> None:
    import transformers

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(30))]
    folder.joinpath("vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder / "model")
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder / "model")
    texts = [f"w{i % 30} w{i % 7} w{i % 11}" for i in range(60)]
    pd.DataFrame({"text": texts, "label": [i % 2 for i in range(60)]}).to_parquet(folder / "texts.parquet")


def with_timm(folder: Path) -> None:
    import timm

    save_file(timm.create_model("resnet10t", num_classes=2).state_dict(), folder / "weights.safetensors")
    paint(folder, 70)


def lacking(*packages: str) -> str:
    """Return the reason to skip, or nothing where all packages are there."""
    for package in packages:
        try:
            if importlib.util.find_spec(package) is None:
                return f"{package} is not installed"
            importlib.import_module(package)
        except Exception as error:  # noqa: BLE001 - whatever a broken installation raises
            return f"{package} does not import: {error}"
    return ""


FILES: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "weights": (with_weights, ()),
    "pt2": (with_arrays, ()),
    "mlflow": (with_mlflow, ()),
    "transformers": (with_transformers, ("transformers", "datasets")),
    "timm": (with_timm, ("timm",)),
    "arrays": (with_arrays, ()),
    "frame": (with_frame, ()),
    "images": (with_images, ()),
    "datasets": (with_datasets, ("datasets",)),
    "loaders": (with_loaders, ()),
}


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave this process as it was: each template's module has the same name."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "net", raising=False)
    yield
    sys.modules.pop("net", None)


def test_each_template_is_tested_here() -> None:
    assert set(scaffold.templates()) == {scaffold.DEFAULT, *FILES}


@pytest.mark.parametrize("name", FILES)
def test_a_template_loads_as_it_is(name: str, apart: None, tmp_path: Path) -> None:
    provide, packages = FILES[name]
    reason = lacking(*packages)
    if reason:
        pytest.skip(reason)
    torch.manual_seed(0)
    job, module = scaffold.write(tmp_path, name)
    assert (job.name, module.name) == ("job.yaml", "net.py")
    provide(tmp_path)
    subject = prepare.load(load(job))
    assert subject.space.anatomy.layers
    assert min(subject.splits.counts().values()) > 0


def test_an_unknown_template_lists_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        scaffold.write(tmp_path / "new", "frames")
    said = str(error.value)
    assert "there is no template 'frames'; did you mean 'frame'?" in said
    assert all(f"  {name} " in said for name in scaffold.templates())
    assert "Data from NumPy arrays." in said
    assert not (tmp_path / "new").exists()


def test_the_command_line_writes_one_and_says_what_is_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, code in (("frame", 0), ("fram", 2)):
        monkeypatch.setattr(sys, "argv", ["paretrim", "init", "--template", name, str(tmp_path / "mine")])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == code
    output, errors = capsys.readouterr()
    assert f"edit {tmp_path / 'mine' / 'net.py'}, then try it with: paretrim check" in output
    assert "did you mean 'frame'?" in errors
    assert "loaders" in errors


def test_each_template_says_in_a_line_what_it_is_for() -> None:
    assert all(20 < len(line) < 130 and line.endswith(".") for line in scaffold.templates().values())


def test_no_file_of_a_users_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"net\.py exists"):
        scaffold.write(tmp_path, "arrays")
    assert [path.name for path in tmp_path.iterdir()] == ["net.py"]
