"""cuDNN 9 under Chainer's own functions on CuPy 14, which has no cuDNN itself.

Used once it has computed right on the card where it is to run, or if the environment
has ``CHAINER_MMIX_CUDNN=1`` (docs/gpu.md).
"""

import chainer  # noqa: F401  (Chainer comes first)

from chainer_revive.cudnn.versions import describe, versions

__all__ = ["describe", "versions"]
