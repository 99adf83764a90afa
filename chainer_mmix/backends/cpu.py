"""``switch.use`` is :func:`chainer_revive.use` now."""

import sys

import chainer_revive

switch = sys.modules[__name__]


def use(path: str) -> None:
    """Switches the whole process; see :func:`chainer_revive.use`."""
    chainer_revive.use(cpu=path)
