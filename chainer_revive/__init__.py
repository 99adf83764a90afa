"""Chainer 7.8.1 on today's Python, NumPy and CuPy, and fast; usable without mixup.

``import chainer`` in an environment with this package is all that it takes; where it
lies on the path without being installed, import it before Chainer.
"""

# Nothing here may import Chainer: the import of Chainer imports this.
from chainer_revive.compat import install
from chainer_revive.explain import explaining
from chainer_revive.switches import describe, state, use

__all__ = ["describe", "explaining", "state", "use"]

install()
