"""A draw in memory that stays where it is, for computations that are replayed."""

from __future__ import annotations

import chainer
import numpy as np

from chainer_mmix.mixing.policy import MixupDraw


class StaticWeights:
    r"""What stands for :math:`\lambda` in a draw that a CUDA graph reads.

    Its arrays are filled anew before each replay, so they are trusted and never looked
    at on the host. With it, mixing and its losses compute what they compute with the
    numbers themselves, to the bit.

    Args:
        n (int): The number of samples :math:`N`.
        device (chainer.backend.Device): Where the arrays are.

    Attributes:
        lam, rest: float64 arrays of shape :math:`(N,)`: the weights of both partners.
        rest_back: ``rest`` of the sample that each sample is the partner of.
        perm, inverse: int32 arrays of shape :math:`(N,)`: the permutation and its
            inverse.
        mean (float): The mean of :math:`\lambda`, on the host.
    """

    ndim = 1

    def __init__(self, n: int, device: chainer.backend.Device) -> None:
        self.shape = (n,)
        self._device = device
        self._memory = device.xp.zeros((4, n), np.float64)  # one transfer for all
        self.lam, self.rest, self.rest_back = self._memory[:3]
        self.perm, self.inverse = self._memory[3].view(np.int32).reshape(2, n)
        self.mean = 1.0

    def fill(self, draw: MixupDraw) -> None:
        """Takes over the numbers of a draw of mixup."""
        n = self.shape[0]
        memory = np.empty((4, n))
        lam = np.asarray(draw.lam, np.float64)
        inverse = np.argsort(draw.perm)
        memory[0], memory[1] = lam, 1 - lam
        memory[2] = memory[1][inverse]
        memory[3].view(np.int32).reshape(2, n)[:] = draw.perm, inverse
        self._memory[...] = self._device.send(memory)
        self.mean = float(np.mean(draw.lam))
