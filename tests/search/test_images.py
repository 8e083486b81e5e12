"""Folders of images: read when used, scaled as their preprocessing says, cut or taken as given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from ray import cloudpickle

from paretrim.data import Shares, from_images
from paretrim.errors import DataError


def paint(folder: Path, count: int = 10, size: tuple[int, int] = (12, 9), start: int = 0) -> Path:
    """Write images of noise in two classes, each another one."""
    for code, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.random.default_rng([code, i, start]).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i % 5}-{i}.png")
    return folder


def test_images_of_class_folders_are_cut_by_class(tmp_path: Path) -> None:
    splits = from_images(paint(tmp_path), (8, 6))
    assert splits.labels == ("cat", "dog")
    assert splits.counts() == {"train": 12, "calibration": 12, "validation": 4, "test": 4}
    assert splits.test.unseal().first(4).labels.sort().values.tolist() == [0, 0, 1, 1]
    assert splits.search.train.first(2).inputs.only.shape == (2, 3, 8, 6)
    splits.check()


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_inputs_are_what_the_preprocessing_makes_of_the_pixels(mode: str, channels: int, tmp_path: Path) -> None:
    folder, mean, std = paint(tmp_path), (0.5, 0.4, 0.3)[:channels], (0.2, 0.3, 0.4)[:channels]
    splits = from_images(folder, (9, 12), mode=mode, mean=mean, std=std)
    said = splits.preprocessing
    assert said is not None
    ways = {float(splits.search.train.at(torch.tensor([i])).inputs.only.sum()) for i in range(len(splits.search.train))}
    raw = np.asarray(Image.open(folder / "cat" / "0-0.png").convert(mode), dtype=np.float32)
    moved = np.moveaxis(raw, -1, 0) if said.channels_last else raw
    shaped = moved.reshape(said.shape) if said.shape else moved
    scaled = (shaped * said.scale - np.reshape(said.mean, (-1, 1, 1))) / np.reshape(said.std, (-1, 1, 1))
    parts = (splits.search.train, splits.search.validation, splits.test.unseal())
    found = [x for part in parts for batch in part.batches(50) for x in batch.inputs.only.numpy()]
    assert any(np.allclose(x, scaled, atol=1e-4) for x in found)
    assert len(ways) > 1


def test_splits_that_are_given_are_taken(tmp_path: Path) -> None:
    for i, (name, count) in enumerate((("train", 6), ("val", 3), ("test", 2))):
        paint(tmp_path / name, count, start=i)
    assert from_images(tmp_path, (8, 8), shares=Shares(calibration=5)).counts() == {
        "train": 12,
        "calibration": 5,
        "validation": 6,
        "test": 4,
    }


def test_no_group_is_in_two_splits(tmp_path: Path) -> None:
    splits = from_images(paint(tmp_path), (9, 12), group=lambda file: file.name.partition("-")[0])
    assert sorted(splits.counts()[name] for name in ("train", "validation", "test")) == [4, 4, 12]


def test_images_are_read_when_they_are_asked_for_and_the_splits_can_be_sent(tmp_path: Path) -> None:
    splits = cloudpickle.loads(cloudpickle.dumps(from_images(paint(tmp_path), (8, 8))))
    for file in tmp_path.rglob("*.png"):
        file.write_bytes(b"gone")
    with pytest.raises(DataError, match=r"\.png' cannot be read as an image"):
        splits.search.train.first(1)


def test_a_photograph_is_turned_as_its_camera_said(tmp_path: Path) -> None:
    paint(tmp_path, size=(12, 9))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = tmp_path / "cat" / "0-0.png"
    pixels = np.zeros((9, 12, 3), dtype=np.uint8)
    pixels[:, :6] = 255
    Image.fromarray(pixels).save(upright, exif=exif)
    splits = from_images(tmp_path, (12, 9))
    parts = (splits.search.train, splits.search.validation, splits.test.unseal())
    found = [x for part in parts for batch in part.batches(50) for x in batch.inputs.only]
    assert any(float(x[:, :6].min()) == 1.0 and float(x[:, 6:].max()) == 0.0 for x in found)


def test_what_is_wrong_with_folders_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        from_images(tmp_path / "nothing", (8, 8))
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match="no images in cat"):
        from_images(tmp_path, (8, 8))
    (tmp_path / "cat").rmdir()
    with pytest.raises(DataError, match=r"folders \(none\); a folder for each of two classes"):
        from_images(tmp_path, (8, 8))
    paint(tmp_path / "train")
    paint(tmp_path / "test", start=1)
    (tmp_path / "test" / "dog").rename(tmp_path / "test" / "wolf")
    with pytest.raises(DataError, match="classes that the training images do not: wolf"):
        from_images(tmp_path, (8, 8))


def test_impossible_settings_are_refused(tmp_path: Path) -> None:
    paint(tmp_path)
    with pytest.raises(DataError, match="mode 'CMYK'"):
        from_images(tmp_path, (8, 8), mode="CMYK")
    with pytest.raises(DataError, match="mode RGB has 3 channels"):
        from_images(tmp_path, (8, 8), mean=(0.5,))
    with pytest.raises(DataError, match="give height and width"):
        from_images(tmp_path, (8, 0))
    with pytest.raises(DataError, match="may be zero"):
        from_images(tmp_path, (8, 8), std=(0.5, 0.0, 0.5))
