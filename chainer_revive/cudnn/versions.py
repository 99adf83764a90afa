from __future__ import annotations

from chainer_revive import registry
from chainer_revive.compat import libraries


def describe() -> str:
    """Says in one line what convolutions on a GPU run through."""
    from chainer.backends import cuda

    if registry.is_on("cudnn"):
        cudnn, frontend = versions()
        return f"GPU: cuDNN {cudnn} through nvidia-cudnn-frontend {frontend}"
    if cuda.cudnn_enabled:
        number = cuda.libcudnn.getVersion()
        version = f"{number // 1000}.{number // 100 % 10}.{number % 100}"
        return f"GPU: Chainer's own code with cuDNN {version}; {libraries.found()}"
    if registry.is_waiting():
        return "GPU: checked at its first use, or now by 'chainer-mmix doctor'"
    return "GPU: Chainer's own code, without cuDNN ('chainer-mmix doctor' says why)"


def versions() -> tuple[str, str]:
    """Returns the versions of cuDNN and of its frontend.

    Raises:
        ImportError: If CuPy, cuDNN or its frontend is missing.
    """
    try:
        import cudnn
        import cupy  # noqa: F401

        return cudnn.backend_version_string(), cudnn.__version__
    except Exception as e:  # of the frontend's, a RuntimeError without libcudnn
        raise ImportError(
            f"CHAINER_MMIX_CUDNN=1 needs CuPy, cuDNN 9 and its frontend, but: {e}. "
            "Install 'chainer-mmix[cuda13]', or unset CHAINER_MMIX_CUDNN (with "
            "[cuda12], Chainer's own code has cuDNN 8)"
        ) from e
