"""Weights of trained networks for other programs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import chainer
import numpy as np
from chainer.serializers import DictionarySerializer

from chainer_mmix.models import to_torchvision
from chainer_revive.atomic import write_atomically


def export_weights(
    link: chainer.Link,
    path: str | Path,
    names: str = "chainer",
    properties: Mapping[str, str] | None = None,
) -> int:
    """Writes weights as safetensors.

    Args:
        link (~chainer.Link): The network, on any device.
        path (str or path-like): The file, whose folder exists.
        names (str): ``"chainer"``, the default, for the names that
            :func:`chainer.serializers.save_npz` gives, or ``"torchvision"`` for those
            of torchvision's and timm's ResNets.
        properties (mapping of str): What else the file tells.

    Returns:
        int: The number of arrays.

    Raises:
        ImportError: If safetensors is missing.
        ValueError: If the network is not torchvision's, or has not been called yet.
    """
    try:
        from safetensors.numpy import save
    except ImportError as e:
        raise ImportError(
            f"weights need safetensors, which cannot be imported ({e}): "
            "pip install 'chainer-mmix[safetensors]'"
        ) from e
    if names == "torchvision":
        arrays = to_torchvision(link)
    else:
        serializer = DictionarySerializer()
        serializer.save(link)
        arrays = {k: np.asarray(v) for k, v in serializer.target.items()}
    if empty := [name for name, array in arrays.items() if array.dtype == object]:
        raise ValueError(f"{empty[0]} has no shape yet: call the network once before")
    # PyTorch's loaders ask for the format.
    metadata = {"format": "pt", **(properties or {})}
    arrays = {k: np.ascontiguousarray(v).reshape(v.shape) for k, v in arrays.items()}
    with write_atomically(path, "wb") as file:
        file.write(save(arrays, metadata))
    return len(arrays)
