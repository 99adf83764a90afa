"""``reliability.json``: the bins of a reliability diagram."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from chainer_mmix.analysis.calibration import Reliability
from chainer_mmix.runs.files import RunError, read_json, write_json

FILENAME = "reliability.json"


def write_reliability(path: Path, bins: Reliability) -> None:
    """Writes the file.

    Args:
        path (pathlib.Path): The file, in a folder that exists.
        bins (Reliability): What it holds, under the names of its fields; NaN becomes
            ``null``.
    """
    write_json(path, {key: part.tolist() for key, part in bins._asdict().items()})


def read_reliability(folder: Path) -> Reliability | None:
    """Reads the file in a run's folder, ``None`` if there is none.

    Raises:
        RunError: If it is damaged.
    """
    path = folder / FILENAME
    if not path.exists():
        return None
    remedy = "remove it to do without the diagram"
    content = read_json(path, remedy)
    try:
        bins = Reliability(*(np.array(content[k], float) for k in Reliability._fields))
        n = len(bins.count)
        is_good = [part.shape for part in bins] == [(n + 1,), (n,), (n,), (n,)]
        # Both are null in a bin that is empty or has a prediction of NaN.
        filled = (bins.count > 0) & ~(np.isnan(bins[2]) & np.isnan(bins[3]))
        numbers = (bins.edges, bins.count, *(part[filled] for part in bins[2:]))
        is_good = is_good and all(np.isfinite(part).all() for part in numbers)
    except (IndexError, KeyError, TypeError, ValueError, OverflowError):
        is_good = False
    if not is_good:
        raise RunError(f"{path} is not what CalibrationEvaluator has written: {remedy}")
    return bins
