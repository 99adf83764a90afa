"""Manifold Mixup for Chainer."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from chainer_mmix.backends import compat

compat.install()

if TYPE_CHECKING:
    from chainer_mmix.links import (
        ManifoldMixupClassifier,
        MixupLayers,
        MixupSequential,
    )
    from chainer_mmix.mixing import MixupPolicy, mix, mixup_data
    from chainer_mmix.training.extensions import MixupReport

# Looked up on first use: the start-up hook imports this package on its way to the
# compatibility layer, before Chainer can be imported.
_HOMES = {
    "ManifoldMixupClassifier": "links",
    "MixupLayers": "links",
    "MixupPolicy": "mixing",
    "MixupReport": "training.extensions",
    "MixupSequential": "links",
    "mix": "mixing",
    "mixup_data": "mixing",
}

__all__ = [
    "ManifoldMixupClassifier",
    "MixupLayers",
    "MixupPolicy",
    "MixupReport",
    "MixupSequential",
    "mix",
    "mixup_data",
]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
