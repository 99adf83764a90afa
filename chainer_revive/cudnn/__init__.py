"""cuDNN 9 under Chainer's own functions on CuPy 14, which has no cuDNN itself.

Experimental, and off unless the environment has ``CHAINER_MMIX_CUDNN=1`` when Chainer
is imported, or ``chainer_revive.use(cudnn=True)`` is called (docs/gpu.md).
"""

import chainer  # noqa: F401  (Chainer comes first)

from chainer_revive.cudnn.versions import describe, versions

__all__ = ["describe", "versions"]
