from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path | None:
    """Returns ``$XDG_CACHE_HOME``, by default ``~/.cache``; ``None`` without a home."""
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache)
    try:
        return Path.home() / ".cache"
    except RuntimeError:
        return None
