"""Stands in for ChainerCV's extension ``chainercv.utils.bbox._nms_gpu_post``.

Its generated C code does not compile on Python 3.11 or later.
"""

import numpy as np


def _nms_gpu_post(mask, n_bbox, threads_per_block, col_blocks):
    """Selects boxes, best first, that no selected box suppresses.

    Args:
        mask (array): uint64 array of shape :math:`(R * B,)`. Bit :math:`k` of
            ``mask[i * B + j]`` says that box :math:`i` suppresses box
            :math:`j * T + k`.
        n_bbox (int): The number of boxes :math:`R`.
        threads_per_block (int): The number of boxes a block :math:`T`.
        col_blocks (int): The number of blocks :math:`B`.

    Returns:
        tuple: An int32 array of shape :math:`(R,)` that begins with the indices of the
        selected boxes, and their number.
    """
    mask = mask.reshape(n_bbox, col_blocks)
    selection = np.zeros((n_bbox,), dtype=np.int32)
    removed = np.zeros((col_blocks,), dtype=np.uint64)
    n_selection = 0
    for i in range(n_bbox):
        block, bit = divmod(i, threads_per_block)
        if not int(removed[block]) >> bit & 1:
            selection[n_selection] = i
            n_selection += 1
            removed[block:] |= mask[i, block:]
    return selection, n_selection
