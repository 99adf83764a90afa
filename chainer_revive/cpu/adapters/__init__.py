"""Functions that stand for methods of Chainer's, one file for each of its functions.

:mod:`chainer_revive.registry` says which for which. They take the arguments of the
method, and return ``NotImplemented`` for what they do not cover.
"""
