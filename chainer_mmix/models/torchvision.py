"""The names of weights in torchvision's and timm's ResNets."""

from __future__ import annotations

from collections.abc import Mapping

import chainer
import numpy as np
from chainer.serializers import DictionarySerializer

from chainer_mmix.models.resnet import ResNet

MARK = "torchvision"  # in the weights of a model that is made so
_VALUES = {
    "W": "weight",
    "b": "bias",
    "gamma": "weight",
    "beta": "bias",
    "avg_mean": "running_mean",
    "avg_var": "running_var",
    "N": "num_batches_tracked",
}


def is_torchvisions(arrays: Mapping[str, np.ndarray]) -> bool:
    """Tells whether weights are those of a ResNet of torchvision or timm."""
    return "bn1.running_var" in arrays and any(k.startswith("layer1.") for k in arrays)


def check_model(model: chainer.Chain) -> None:
    """Checks that a model computes what torchvision's does.

    Raises:
        ValueError: If it is no ResNet with that stem.
    """
    if not isinstance(model, ResNet) or model.stem_name != "torchvision":
        stem = getattr(model, "stem_name", None)
        raise ValueError(
            f"{type(model).__name__}{f' with the stem {stem!r}' if stem else ''} is no "
            "network of torchvision: make resnet18 to resnet152 with "
            "stem='torchvision' (--stem torchvision)"
        )


def to_torchvision(model: ResNet) -> dict[str, np.ndarray]:
    """Returns the weights of a model under torchvision's names.

    Args:
        model (ResNet): Made with ``stem="torchvision"``, on any device.

    Returns:
        dict: The arrays for ``load_state_dict`` of torchvision's or timm's model of the
        same depth, with 0 as the count of minibatches.

    Raises:
        ValueError: If it was made otherwise.
    """
    check_model(model)
    arrays = _weights(model)
    found = {
        theirs: np.asarray(arrays[own]) for own, theirs in _names(model, arrays).items()
    }
    zero = np.zeros((), np.int64)
    return {k: zero if k.endswith("tracked") else found[k] for k in found}


def from_torchvision(
    model: ResNet, arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Gives weights of torchvision or timm the names that a model has.

    Args:
        model (ResNet): Made with ``stem="torchvision"``.
        arrays (mapping): The weights by torchvision's names.

    Returns:
        dict: The same by the names of the model, as far as it has them.

    Raises:
        ValueError: If the model was made otherwise.
    """
    check_model(model)
    own = _weights(model)
    renamed = {theirs: name for name, theirs in _names(model, own).items()}
    found = {
        renamed.get(k, k): v for k, v in arrays.items() if not k.endswith("tracked")
    }
    # Chainer counts minibatches for other ends.
    counts = {k: np.asarray(v) for k, v in own.items() if k.endswith("/N")}
    found |= {k: v for k, v in counts.items() if f"{k[:-1]}gamma" in found}
    return {**found, MARK: np.asarray(own[MARK])}


def _weights(model: chainer.Chain) -> dict[str, np.ndarray]:
    serializer = DictionarySerializer()
    serializer.save(model)
    return serializer.target


def _names(model: ResNet, arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Returns torchvision's name of each of a model's weights."""
    shortcut = "4" if model.bottleneck else "3"
    found = {}
    for name in arrays:
        *links, value = name.split("/")
        if not links:
            continue  # the mark
        words = [{"fc6": "fc"}.get(link, link) for link in links]
        if links[0].startswith("res"):
            stage, unit, link = links
            place = "0" if unit == "a" else unit[1:]
            if link[-1] == shortcut:
                link = f"downsample.{0 if link.startswith('conv') else 1}"
            words = [f"layer{int(stage[3:]) - 1}", place, link]
        found[name] = ".".join([*words, _VALUES[value]])
    return found
