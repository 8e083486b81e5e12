"""Where data come from: functions that return `paretrim.Splits` in one line, for a job's ``data``.

See docs/bring-your-own.md. What comes in one piece is cut as `Shares` says.
"""

from __future__ import annotations

from paretrim.search.sources.arrays import from_arrays
from paretrim.search.sources.cut import Shares
from paretrim.search.sources.frames import from_frame
from paretrim.search.sources.hub_datasets import from_datasets
from paretrim.search.sources.images import from_images
from paretrim.search.sources.loaders import from_loaders

__all__ = ["Shares", "from_arrays", "from_datasets", "from_frame", "from_images", "from_loaders"]
