"""The replacements in Chainer's sources for CuPy 13 and 14; see :mod:`.patches`."""

from __future__ import annotations

from chainer_revive.compat.patch import HERE, Patch

# CuPy 14 no longer includes its class for half precision everywhere; 13 has no file of
# its own for it.
_FLOAT16 = (
    "#if __has_include(<cupy/float16.cuh>)\\n#include <cupy/float16.cuh>\\n#endif"
)

_DOCTOR = 'what "chainer-mmix doctor" says'

PATCHES: dict[str, tuple[Patch, ...]] = {
    # CuPy 9 and later import without a CUDA driver: "available" must mean "usable".
    # CuPy 13 and later do not wait until an array in pinned memory has been read.
    # CuPy 14 cannot be reinstalled with cuDNN, as a warning at each import told users.
    "chainer.backends.cuda": (
        Patch(
            "    available = True\nexcept",
            f"    from {HERE} import runtime as _mmix; _mmix.check_cuda_driver(); "
            "available = True\nexcept",
        ),
        Patch("cupy.asarray(array)", "_mmix.send(cupy, array)", 2),
        Patch(
            "if (not cudnn_enabled and",
            "if (_cupy_major < 14 and not cudnn_enabled and",
        ),
        # What it says to install is not to be had any more.
        Patch("https://github.com/chainer/chainer#installation", _DOCTOR),
        Patch("msg += str(_resolution_error)", "msg += ' ' + str(_resolution_error)"),
        Patch(
            "'Please reinstall CuPy after you install cudnn\\n'\n"
            "            '(see https://docs-cupy.chainer.org/en/stable/install.html'\n"
            "            '#install-cudnn).')",
            "'Install \"chainer-mmix[cuda12]\"\\n'\n"
            f"            '(see {_DOCTOR}'\n"
            "            ').')",
        ),
    ),
    # CuPy warns of missing NCCL.
    "chainer.training.updaters.multiprocess_parallel_updater": (
        Patch(
            "    from cupy.cuda import nccl\n",
            f"    from {HERE} import runtime as _mmix; nccl = _mmix.nccl()\n",
        ),
        Patch(
            "'Please reinstall CuPy after you install NCCL.\\n'\n"
            "                '(see https://docs-cupy.chainer.org/en/latest/install.html)'",
            "'Install nvidia-nccl-cu12 for CuPy 13, '\n"
            "                'or nvidia-nccl-cu13 for CuPy 14.'",
        ),
        *(
            Patch(f"        '{name}',\n", f"        '{name}', preamble='{_FLOAT16}',\n")
            for name in ("_memcpy_gather", "_memcpy_scatter")
        ),
    ),
    # CUDA's own half is what is used here. In CuPy 14, array(copy=False) raises where
    # it would have to copy.
    "chainermn.communicators._memory_utility": (
        Patch("#include <cupy/carray.cuh>\n", "#include <cuda_fp16.h>\n", 2),
        Patch(
            "xp.array(v, copy=False, dtype=transfer_dtype)",
            "xp.asarray(v, dtype=transfer_dtype)",
        ),
    ),
}
