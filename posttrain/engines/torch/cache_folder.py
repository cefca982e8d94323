"""Where what is made once for this machine is kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """$POSTTRAIN_CACHE, else ~/.cache/posttrain: converted models, and what was compiled."""
    return Path(os.environ.get("POSTTRAIN_CACHE") or Path.home() / ".cache" / "posttrain")
