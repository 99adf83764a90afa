"""Manifold Mixup for Chainer."""

import sys

if sys.argv[:1] == ["-m"] and "chainer_mmix.cli" in sys.orig_argv:
    # python -m imports this package, which takes seconds, before it runs the command.
    from chainer_mmix_command import end_on_ctrl_c

    end_on_ctrl_c()

try:  # before Chainer, which needs it
    import chainer_revive  # noqa: F401
except ModuleNotFoundError as e:
    if e.name != "chainer_revive":
        raise
    raise ImportError(
        "chainer_mmix needs chainer_revive, a part of chainer-mmix that was not there "
        "when it was installed: install it again, in a checkout with 'pip install -e .'"
    ) from None

from chainer_mmix.inference import load_predictor
from chainer_mmix.links import ManifoldMixupClassifier, MixupLayers, MixupSequential
from chainer_mmix.mixing import MixupPolicy, current_draw, mix, mixup_data
from chainer_mmix.training.extensions import MixupReport
from chainer_revive.gpu_check import also_check

__version__ = "0.2.0.dev0"

also_check("chainer_mmix.gpu_check")

__all__ = [
    "ManifoldMixupClassifier",
    "MixupLayers",
    "MixupPolicy",
    "MixupReport",
    "MixupSequential",
    "current_draw",
    "load_predictor",
    "mix",
    "mixup_data",
]
