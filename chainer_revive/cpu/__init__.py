"""Chainer's own functions, made fast on a CPU.

Once Chainer is loaded, methods of its functions are replaced by ones that compute the
same from fewer passes over memory (docs/cpu.md). What they do not cover goes to
Chainer's code. ``CHAINER_MMIX_CPU=0`` in the environment keeps Chainer's.
"""

import chainer  # noqa: F401  (loads the rest of this package as it ends)

from chainer_revive.cpu.switch import install, use

__all__ = ["install", "use"]
