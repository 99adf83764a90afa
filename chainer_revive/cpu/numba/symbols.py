"""What loaded code refers to, and finds here.

Arrays need memory. All else of Numba's and Python's is for an exception, which is
noted; nothing can be done with it in C, so that the rest does nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable

from chainer_revive.cpu.numba.objects import UnsuitableError

_C = {"NRT_MemInfo_call_dtor": "free", "NRT_Free": "free", "NRT_Allocate": "malloc"}
_ON_AN_EXCEPTION = "numba_gil_ensure"
_AFTER_IT = {
    "PyBytes_FromStringAndSize",
    "PyErr_Clear",
    "PyErr_SetNone",
    "PyErr_SetString",
    "PyErr_WriteUnraisable",
    "PyExc_RuntimeError",
    "PyExc_StopIteration",
    "PyExc_SystemError",
    "PyObject_Hash",
    "PyTuple_Pack",
    "PyUnicode_FromKindAndData",
    "PyUnicode_FromString",
    "Py_DecRef",
    "numba_do_raise",
    "numba_gil_release",
    "numba_runtime_build_excinfo_struct",
    "numba_unpickle",
}
_NOTHING = "sched_yield"  # returns 0

# How to find the addresses of those that are compiled themselves.
compiled: dict[str, Callable[[], int]] = {}

failed: list[bool] = []  # an element for each exception


def find(name: str) -> int:
    """Returns the address of a symbol.

    Raises:
        UnsuitableError: There is none.
    """
    if name in compiled:
        return compiled[name]()
    if name == _ON_AN_EXCEPTION:
        return ctypes.cast(_note, ctypes.c_void_p).value
    own = _NOTHING if name in _AFTER_IT else _C.get(name, name)
    if not own.startswith(("Py", "_Py", "NRT", "numba")):
        with contextlib.suppress(AttributeError):
            return ctypes.cast(getattr(_library(), own), ctypes.c_void_p).value
    raise UnsuitableError(f"symbol {name}")


def notes_exceptions(code: bytes) -> bool:
    """Tells whether every exception in an object file will be in ``failed``."""
    after = (name.encode() in code for name in _AFTER_IT)
    return _ON_AN_EXCEPTION.encode() in code or not any(after)


@functools.cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None)


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def _note(state) -> None:
    failed.append(True)
