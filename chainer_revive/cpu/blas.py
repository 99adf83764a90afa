from __future__ import annotations

import functools


@functools.cache
def library():
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
