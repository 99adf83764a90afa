from __future__ import annotations

import functools
from collections.abc import Callable


@functools.cache
def controller():
    """Returns threadpoolctl's handle of NumPy's BLAS.

    ``None`` if threadpoolctl is not installed or does not know it.
    """
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    libraries = ThreadpoolController().select(user_api="blas").lib_controllers
    libraries.sort(key=lambda library: "numpy" not in library.filepath)
    return libraries[0] if libraries else None


@functools.cache
def counting(library) -> Callable[[], int]:
    """Returns what counts the threads of a library, without threadpoolctl's calls."""
    if getattr(library, "threading_layer", None) == "pthreads":  # OpenBLAS
        for symbol in library.check_symbols:
            if "openblas_get_num_threads" in symbol and hasattr(library.dynlib, symbol):
                return getattr(library.dynlib, symbol)
    return library.get_num_threads
