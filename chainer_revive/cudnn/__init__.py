"""cuDNN 9 under Chainer's own functions on CuPy 14, which has no cuDNN itself.

Experimental: nothing of this has run on a GPU yet. It is off unless the environment has
``CHAINER_MMIX_CUDNN=1`` when Chainer is imported (docs/gpu.md).
"""

import chainer  # noqa: F401  (calls install as it ends)

from chainer_revive.cudnn.switch import describe, install, use

__all__ = ["describe", "install", "use"]
