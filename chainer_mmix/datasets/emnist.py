from __future__ import annotations

import os
import zipfile

from chainer.datasets import TupleDataset

from chainer_mmix.datasets.download import RemoteFile, fetch
from chainer_mmix.datasets.idx import make_dataset, read_idx

_FILE = RemoteFile(
    "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",
    ("fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e",),
)
_FIRST_LABELS = {
    "balanced": 0,
    "byclass": 0,
    "bymerge": 0,
    "digits": 0,
    "letters": 1,
    "mnist": 0,
}


def get_emnist(
    split: str = "balanced", data_root: str | os.PathLike | None = None
) -> tuple[TupleDataset, TupleDataset]:
    """Gets EMNIST: handwritten digits and letters, upright.

    Source: https://www.nist.gov/itl/products-and-services/emnist-dataset. The checksum
    is that of TensorFlow Datasets.

    Args:
        split (str): ``"balanced"``, the default (112800 training and 18800 test images
            of 47 classes, a letter whose cases look alike being one), ``"byclass"``,
            ``"bymerge"``, ``"digits"``, ``"letters"`` or ``"mnist"``.
        data_root (str or path-like): See
            :func:`chainer_mmix.datasets.download.fetch`.

    Returns:
        tuple of ~chainer.datasets.TupleDataset: The training and the test set. An
        example is an image, float32 of shape (1, 28, 28) in [0, 1], and its label, an
        int32 from 0.

    Raises:
        OSError: If the archive can neither be found nor be downloaded.
        ValueError: If it is not as published, or there is no such split.
    """
    if split not in _FIRST_LABELS:
        raise ValueError(
            f"EMNIST has no split {split!r}: there are {', '.join(_FIRST_LABELS)}"
        )
    path = fetch(_FILE, "emnist", data_root)

    def read(part: str) -> TupleDataset:
        arrays = []
        for what in ("images-idx3", "labels-idx1"):
            name = f"gzip/emnist-{split}-{part}-{what}-ubyte.gz"
            with archive.open(name) as file:
                arrays.append(read_idx(file, f"{name} in {path}"))
        images, labels = arrays
        # The files have columns for rows, and some labels from 1.
        return make_dataset(
            images.swapaxes(1, 2), labels - _FIRST_LABELS[split], "EMNIST"
        )

    with zipfile.ZipFile(path) as archive:
        return read("train"), read("test")
