"""The reference predictors of :mod:`chainer_mmix.models`."""

from chainer_mmix.models import *  # noqa: F403
from chainer_mmix.models import __all__  # noqa: F401
