"""Chainer 7.8.1 on today's Python, NumPy and CuPy, and fast; usable without mixup.

``import chainer`` in an environment with this package is all that it takes; where it
lies on the path without being installed, import it before Chainer.
"""

from chainer_revive.compat import install

install()
