"""A process that trains on the GPU until it is killed, and makes room for measurements: ``LANE_FOLDER GPU``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it starts as a script

from benchmarks.gpu_model import recipe, resnet, schooling
from paretrim.evaluators.lane import Lane
from paretrim.spaces.device import chosen
from paretrim.spaces.training import recover


def main(folder: str, gpu: str) -> None:
    """Train, and say so after each epoch."""
    # As where cores are plenty: on the processor, nobody has to wait.
    lane = Lane(Path(folder), yielding=False, gpus=[gpu])
    for loss in recover(resnet(), recipe(1_000_000), schooling(1024, chosen("cuda"), lane.working)):
        print(f"loss {loss:.4f}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:3])
