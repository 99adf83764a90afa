"""``mixup.json``: what mixed in a run, and how."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from chainer_mmix.runs.files import RunError, read_json, write_json

FILENAME = "mixup.json"


class MixupCounts(NamedTuple):
    """The content of ``mixup.json``.

    Attributes:
        settings (dict or None): The arguments of the
            :class:`~chainer_mmix.MixupPolicy`, with the points drawn from as
            ``layer_mix``; ``None`` if the classifier does not mix.
        layer (dict): Iterations by mixing point.
        loss (dict): Mean training loss by mixing point, NaN or ``None`` if unknown.
        method (dict): Iterations by method, such as ``mixup`` and ``cutmix``; mixed
            samples by method, where each has its own λ.
        bin_edges (array): Of the histogram of λ, shape ``(21,)``, from 0 to 1.
        counts (array): Of the histogram of λ, shape ``(20,)``.
    """

    settings: dict[str, Any] | None
    layer: dict[str, int]
    loss: Mapping[str, float | None]
    method: dict[str, int]
    bin_edges: np.ndarray
    counts: np.ndarray

    def write(self, path: Path) -> None:
        """Writes the file."""
        content = self._asdict()
        edges, counts = (content.pop(key).tolist() for key in ("bin_edges", "counts"))
        write_json(path, {**content, "lam": {"bin_edges": edges, "counts": counts}})

    @classmethod
    def read(cls, folder: Path) -> MixupCounts | None:
        """Reads the file in a run's folder, ``None`` if there is none.

        Raises:
            RunError: If it is damaged.
        """
        path = folder / FILENAME
        if not path.exists():
            return None
        remedy = "remove it to do without what it tells"
        content = read_json(path, remedy)
        try:
            report = cls(
                content.get("settings"),
                content["layer"],
                content.get("loss", {}),
                content.get("method", {}),
                *(
                    np.array(content["lam"][key], np.float64)
                    for key in ("bin_edges", "counts")
                ),
            )
            losses = [loss for loss in report.loss.values() if loss is not None]
            numbers = [*report.layer.values(), *losses]
            is_good = (report.bin_edges.shape, report.counts.shape) == ((21,), (20,))
            is_good = is_good and all(
                np.isfinite(np.array(part, np.float64)).all()
                for part in (numbers, report.bin_edges, report.counts)
            )
            is_good = is_good and report.loss.keys() <= report.layer.keys()
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            is_good = False
        if not is_good:
            raise RunError(f"{path} is not what MixupReport has written: {remedy}")
        return report
