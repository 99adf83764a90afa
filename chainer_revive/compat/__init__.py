"""Chainer 7.8.1 and ChainerCV 0.13.1, as installed, on NumPy 2 and Python 3.10-3.13.

An import hook compiles the installed sources after the exact replacements listed in
:mod:`~chainer_revive.compat.patches`. Neither Chainer's files nor the NumPy
module are modified. ``CHAINER_MMIX_COMPAT=0`` in the environment switches it off.
"""

from chainer_revive.compat.importer import PatchMismatch, find_spec, install

__all__ = ["PatchMismatch", "find_spec", "install"]
