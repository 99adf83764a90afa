"""The former place of :mod:`chainer_revive`, for programs that still use it."""
