import ctypes

import numpy as np
import pytest

from chainer_revive.cpu.buffers import LINE, buffer, of_thread

pytest.importorskip("numba")
from chainer_revive.cpu.numba import memory


@pytest.fixture(autouse=True)
def _unused():
    yield
    of_thread.memories.pop("test", None)


def test_a_buffer_begins_with_a_cache_line_and_is_used_again():
    small = buffer("test", (3, 5), np.float32)
    assert small.shape == (3, 5) and small.ctypes.data % LINE == 0
    for shape in ((7, 11), (1001,), (6, 1001), (2, 2)):
        larger = buffer("test", shape, np.float32)
        assert larger.shape == shape and larger.ctypes.data % LINE == 0
    assert buffer("test", (5,), np.float64).ctypes.data == larger.ctypes.data


def test_a_buffer_lies_within_its_memory():
    for size in range(1, 300, 7):
        of_thread.memories.pop("test", None)
        a = buffer("test", (size,), np.uint8)
        low, first = a.base.ctypes.data, a.ctypes.data
        assert low <= first and first + size <= low + len(a.base)


def test_an_array_of_loaded_code_begins_with_a_cache_line():
    allocate = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_ssize_t, ctypes.c_uint32)(
        memory.allocate_aligned.address
    )
    free = ctypes.CDLL(None).free
    free.argtypes = [ctypes.c_void_p]
    for size in (1, 24, 1000, 1 << 20):
        head = allocate(size, 32)
        data = ctypes.c_ssize_t.from_address(head + 24).value
        assert data % LINE == 0 and data >= head + 48
        ctypes.memset(data, 0xFF, size)
        free(head)
