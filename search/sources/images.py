"""Data from folders of images, one folder a class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from paretrim.errors import DataError
from paretrim.evaluators.preprocessing import Preprocessing
from paretrim.evaluators.splits import Splits
from paretrim.search.sources.cut import TRAIN, USUAL, Shares, share_out, usual_splits

_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
_MODES = {"RGB": 3, "L": 1}


def from_images(
    folder: str | Path,
    size: tuple[int, int],
    *,
    mode: str = "RGB",
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    group: Callable[[Path], object] | None = None,
    shares: Shares = Shares(),  # noqa: B008 - it is frozen
) -> Splits:
    """Return splits of images in folders.

    A folder of images for each class, ``folder/CLASS/....png``; or such folders within ``train``, ``validation`` (or ``val``,
    ``valid``, ``dev``) and ``test``, which are then the splits. Images are read when they are used, turned as their camera said,
    made as large as `size`, and scaled to 0 to 1, less `mean` and divided by `std`.

    The classes are the folders' names in alphabetical order; they come along as the splits' labels, and what is done to the
    numbers as their `paretrim.Preprocessing`. Resizing is not part of that: who receives the model gives it images of that size.

    Args:
        folder: The folder.
        size: Height and width in pixels that the model takes.
        mode: ``RGB`` for inputs of shape ``(N, 3, height, width)``, ``L`` for grey ones, ``(N, 1, height, width)``.
        mean: Of each channel, subtracted after scaling; none by default.
        std: Of each channel, divided by after that.
        group: Says of a file which others it belongs with, such as the photographer in its name; no group is in two splits.
        shares: How much is cut where splits are not given, and with which seed.

    Raises:
        DataError: There are no such folders, a folder has no images, or splits have other classes than the training images.
    """
    place = Path(folder)
    if mode not in _MODES:
        raise DataError(f"mode '{mode}' was given; allowed: {', '.join(_MODES)}")
    if len(size) != 2 or min(size) < 1:
        raise DataError(f"a size of {size} was given; give height and width in pixels")
    look = Look(mode, (int(size[0]), int(size[1])), tuple(map(float, mean)), tuple(map(float, std)))
    places = _places(place)
    classes = [each.name for each in _folders(places[TRAIN])]
    pieces = {split: _images(each, classes, look) for split, each in places.items()}
    train = pieces.pop(TRAIN)
    return share_out(
        train,
        pieces,
        shares,
        classes=train.codes,
        groups=None if group is None else [str(group(file)) for file in train.files],
        names=classes,
        preprocessing=look.preprocessing(),
    )


@dataclass(frozen=True)
class Look:
    """How images become inputs.

    Attributes:
        mode: Pillow's, ``RGB`` or ``L``.
        size: Height and width.
        mean: Of each channel.
        std: Of each channel.

    Raises:
        DataError: A mean or deviation is not given for each channel, or is impossible.
    """

    mode: str
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check the numbers."""
        channels = _MODES[self.mode]
        if any(numbers and len(numbers) != channels for numbers in (self.mean, self.std)):
            raise DataError(f"mode {self.mode} has {channels} channels; give a mean and a std for each, or none")
        self.preprocessing()

    def preprocessing(self) -> Preprocessing:
        """Return what is done to the numbers of an image of this size."""
        grey = self.mode == "L"
        shape = (1, *self.size) if grey else ()
        return Preprocessing(1 / 255, self.mean, self.std, channels_last=not grey, shape=shape)

    def read(self, file: Path) -> torch.Tensor:
        """Return an image, shape (channels, height, width).

        Raises:
            DataError: The file is no image.
        """
        from PIL import Image, ImageOps, UnidentifiedImageError

        try:
            with Image.open(file) as image:
                turned = ImageOps.exif_transpose(image).convert(self.mode)
                pixels = np.asarray(turned.resize(self.size[::-1], Image.Resampling.BILINEAR), dtype=np.float32)
        except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"'{file}' cannot be read as an image: {error}; remove or replace it") from error
        channels = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
        scaled = channels * np.float32(1 / 255) - _column(self.mean or (0.0,))
        return torch.from_numpy(np.ascontiguousarray(scaled / _column(self.std or (1.0,))))


class Images(Dataset[Any]):
    """Images that are read when they are asked for."""

    def __init__(self, files: Sequence[Path], codes: Sequence[int], look: Look) -> None:
        self.files, self.codes, self._look = list(files), np.asarray(codes, dtype=np.int64), look

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, position: int) -> tuple[torch.Tensor, int]:
        return self._look.read(self.files[position]), int(self.codes[position])


def _column(numbers: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.asarray(numbers, dtype=np.float32)[:, None, None]


def _places(folder: Path) -> dict[str, Path]:
    """Return the folder of each split that there is."""
    if not folder.is_dir():
        raise DataError(
            f"there is no folder '{folder}'; paths are taken from {Path.cwd()}, or use Path(__file__).parent"
        )
    names = [each.name for each in _folders(folder)]
    if not any(name.lower() in USUAL[TRAIN] for name in names):
        return {TRAIN: folder}
    return {split: folder / name for split, name in usual_splits(names, f"'{folder}'").items()}


def _folders(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))


def _images(folder: Path, classes: Sequence[str], look: Look) -> Images:
    here = {each.name: _files(each) for each in _folders(folder)}
    empty = [name for name, files in here.items() if not files]
    if len(classes) < 2 or empty or not here:
        found = f"no images in {', '.join(empty)}" if empty else f"folders {', '.join(here) or '(none)'}"
        raise DataError(
            f"'{folder}' has {found}; a folder for each of two classes or more is needed, with images that end with "
            f"{', '.join(_ENDINGS)}"
        )
    unknown = [name for name in here if name not in classes]
    if unknown:
        raise DataError(f"'{folder}' has classes that the training images do not: {', '.join(unknown)}")
    pairs = [(file, classes.index(name)) for name, files in here.items() for file in files]
    return Images([file for file, _ in pairs], [code for _, code in pairs], look)


def _files(folder: Path) -> list[Path]:
    return sorted(
        each for each in folder.rglob("*") if each.suffix.lower() in _ENDINGS and not each.name.startswith(".")
    )
