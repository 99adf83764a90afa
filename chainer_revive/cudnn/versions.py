from __future__ import annotations

from chainer_revive import registry


def describe() -> str:
    """Says in one line what convolutions on a GPU run through."""
    if not registry.is_on("cudnn"):
        return "GPU: Chainer's own code (CHAINER_MMIX_CUDNN=1 switches cuDNN on)"
    cudnn, frontend = versions()
    return f"GPU: cuDNN {cudnn} through nvidia-cudnn-frontend {frontend} (experimental)"


def versions() -> tuple[str, str]:
    """Returns the versions of cuDNN and of its frontend.

    Raises:
        ImportError: CuPy, cuDNN or its frontend is missing.

    """
    try:
        import cudnn
        import cupy  # noqa: F401

        return cudnn.backend_version_string(), cudnn.__version__
    except (
        Exception
    ) as e:  # The frontend raises RuntimeError where libcudnn is missing.
        raise ImportError(
            f"CHAINER_MMIX_CUDNN=1 needs CuPy, cuDNN 9 and its frontend, but: {e}. "
            "Install 'chainer-mmix[cuda13]' (or [cuda12] for a driver of CUDA 12), or "
            "unset CHAINER_MMIX_CUDNN for Chainer's own code"
        ) from e
