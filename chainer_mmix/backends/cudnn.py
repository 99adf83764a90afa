"""``use`` is :func:`chainer_revive.use` now."""

import sys

import chainer_revive
from chainer_revive.cudnn import describe

__all__ = ["describe", "switch", "use"]

switch = sys.modules[__name__]


def use(on: bool) -> None:
    """Switches the whole process; see :func:`chainer_revive.use`."""
    chainer_revive.use(cudnn=on)
