"""What a bundle says of itself: `bundle.json`, written and read in one shape."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from paretrim.errors import ArtifactError, DataError
from paretrim.evaluators.preprocessing import Preprocessing
from paretrim.evaluators.target import TargetSettings

FILE = "bundle.json"
_MOST_BYTES = 1 << 20


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _File(_Part):
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=1)


class Model(_File):
    """The model file, with its name, hash and size."""

    file: Literal["model.onnx", "model.tar", "model.pt2", "model.safetensors"] = "model.onnx"

    @property
    def suffix(self) -> str:
        """How its name ends, which tells what it is."""
        return Path(self.file).suffix


class Packed(_File):
    """The same file as it ships; the search knows it by its hash."""

    file: Literal["model.onnx.xz", "model.tar.xz", "model.pt2.xz", "model.safetensors.xz"] = "model.onnx.xz"


class Origin(_Part):
    """Where the model comes from.

    Attributes:
        model: Import path of the uncompressed model.
        model_sha256: Hash of its weights.
        data: Import path of the data.
        data_sha256: Hash of the data.
        samples: How many samples each split has.
        licence: What was said of the uncompressed model's licence; empty where nothing was.
    """

    model: str
    model_sha256: str
    data: str
    data_sha256: str
    samples: dict[str, int]
    licence: str = ""


class Input(_Part):
    """One input of the model.

    Attributes:
        name: What it is called in the file.
        shape: Of one sample.
        dtype: Its type.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


class Manifest(_Part):
    """A bundle.

    Attributes:
        schema_version: Of this file.
        job: Name of the search.
        trial: Number of the trial.
        metric: Name of the job's metric.
        runtime: Name and version of the runtime that measured.
        target: Where it was measured.
        environment: The machine that measured.
        origin: Where the model comes from.
        model: The model file.
        packed: The file that ships.
        inputs: What the model takes, in this order.
        by_name: Whether the torch network takes them by name.
        labels: Names of the classes, or None.
        preprocessing: What is done to raw inputs, or None.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_version: Literal[3] = Field(default=3, alias="schema")
    job: str
    trial: int
    metric: str
    runtime: str
    target: TargetSettings
    environment: dict[str, str]
    origin: Origin
    model: Model
    packed: Packed
    inputs: tuple[Input, ...]
    by_name: bool = False
    labels: tuple[str, ...] | None = None
    preprocessing: Preprocessing | None = None

    @field_validator("target")
    @classmethod
    def _usual(cls, value: TargetSettings) -> TargetSettings:
        if not (1 <= value.threads <= 256 and 1 <= value.batch_size <= 65536):
            raise ValueError(f"{value.threads} threads and batches of {value.batch_size} are more than a target has")
        return value

    @model_validator(mode="after")
    def _same(self) -> Manifest:
        if self.packed.file != f"{self.model.file}.xz":
            raise ValueError(f"{self.packed.file} is not {self.model.file}, packed")
        return self

    def to_json(self) -> str:
        """Return it as JSON."""
        return self.model_dump_json(indent=2, by_alias=True) + "\n"


def read(folder: Path) -> Manifest:
    """Return what a bundle says of itself.

    Raises:
        ArtifactError: It says nothing, or what this version does not understand.
    """
    path = folder / FILE
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ArtifactError(
            f"'{folder.name}' is no bundle of paretrim's: {FILE} cannot be read ({error.strerror})"
        ) from None
    if len(text) > _MOST_BYTES:
        raise ArtifactError(f"'{folder.name}' is no bundle of paretrim's: {FILE} has more than {_MOST_BYTES} bytes")
    try:
        return Manifest.model_validate_json(text)
    except DataError as error:
        raise ArtifactError(f"'{folder.name}' is no bundle that this version of paretrim reads: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        raise ArtifactError(
            f"'{folder.name}' is no bundle that this version of paretrim reads: {FILE}: {where}: {first['msg']}"
        ) from None
