"""Options and arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from paretrim.search.store import DEFAULT, ENVIRONMENT

StoreOption = Annotated[
    Path | None, typer.Option("--store", help=f"Folder of the results; also {ENVIRONMENT}. By default ./{DEFAULT}.")
]
JobArgument = Annotated[str | None, typer.Argument(metavar="[JOB]", help="Name of a search; by default the latest.")]
TargetOption = Annotated[
    str | None, typer.Option("--target", help="One of the job's targets; by default what the search was for.")
]
AddressOption = Annotated[
    str | None, typer.Option("--address", help="A cluster, such as http://HEAD:8265; also PARETRIM_ADDRESS.")
]
RequirementsOption = Annotated[
    Path | None, typer.Option("--requirements", help="File of packages that the job's code needs, as for pip.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
PlotOption = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE", help="Draw it into a .png, .svg or .html file as well.")
]
