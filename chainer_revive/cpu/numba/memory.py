"""Memory for the arrays of loaded code, as Numba's runtime gives it."""

from __future__ import annotations

import functools

from chainer_revive.cpu.buffers import LINE
from chainer_revive.cpu.numba.intrinsics import store
from chainer_revive.cpu.numba.later import types
from chainer_revive.cpu.numba.native import Native

# In front of an array are, in Numba, the number of references to it, how to free it
# (null: all at once) with an argument for that, its address, its size and allocator.
_HEAD, _FREE, _ADDRESS = 48, 8, 24

_malloc = types.ExternalFunction("malloc", types.intp(types.intp))


@functools.partial(Native, signature=types.intp(types.intp), symbol="NRT_MemInfo_alloc")
def allocate(size):
    head = _malloc(size + _HEAD)
    if head:
        store(head, 1)
        store(head + _FREE, 0)
        store(head + _ADDRESS, head + _HEAD)
    return head


@functools.partial(
    Native,
    signature=types.intp(types.intp, types.uint32),
    symbol="NRT_MemInfo_alloc_aligned",
)
def allocate_aligned(size, _):
    """Has arrays begin with a cache line, where Numba asks for half of one."""
    head = _malloc(size + _HEAD + LINE)
    if head:
        array = head + _HEAD
        store(head, 1)
        store(head + _FREE, 0)
        store(head + _ADDRESS, array + -array % LINE)
    return head
