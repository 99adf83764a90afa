r""":math:`\lambda` and :math:`1 - \lambda`, the weights of both partners."""

from __future__ import annotations

import copy

import chainer
import chainer.functions as F
import numpy as np
from chainer import backend
from chainer.backends import cuda

from chainer_revive.cpu import steps


class Weights:
    r"""The weights of both partners of each sample, in host memory.

    Args:
        lam: :math:`\lambda` as it was given.
        first: The weight of the first partner: a float for the whole batch, or a
            float64 array of shape :math:`(N,)`.
        second: The weight of the second partner, likewise.
    """

    def __init__(self, lam, first, second) -> None:
        self._lam = lam
        self.first = first
        self.second = second

    @staticmethod
    def of(lam, n: int) -> Weights:
        r"""Checks and copies :math:`\lambda` of a batch.

        Args:
            lam (float, array or Weights): A number for the whole batch or an array of
                shape :math:`(N,)`; weights are returned as they are.
            n (int): The number of samples :math:`N`.

        Raises:
            TypeError: If it is no number.
            ValueError: If it is outside :math:`[0, 1]`, or of another shape.
        """
        if isinstance(lam, Weights):
            return lam
        first = lam
        if not (type(lam) is float and 0 <= lam <= 1):
            first = np.asarray(cuda.to_cpu(lam))
            if first.dtype.kind not in "biuf":
                raise TypeError(f"lam must be a number or an array of them, not {lam}")
            first = np.array(first, np.float64)
            if first.shape not in ((), (n,)):
                raise ValueError(
                    f"lam must be a number or an array of shape ({n},), one a sample "
                    f"of the batch, but it has shape {first.shape}"
                )
            if not np.all((first >= 0) & (first <= 1)):  # NaN fails both
                raise ValueError(f"lam must lie in [0, 1], not {first}")
            # A NumPy scalar would promote float32 arrays to float64.
            first = first if first.ndim else float(first)
        return Weights(lam, first, 1 - first)

    @property
    def pair(self) -> tuple:
        """Both weights."""
        return self.first, self.second

    @property
    def mean(self) -> float:
        r"""The mean of :math:`\lambda` over the batch."""
        lam = self._lam
        return lam if type(lam) is float else float(np.mean(lam))

    def columns(self, like) -> tuple:
        """Returns both weights in a shape that broadcasts with an array (N, ...).

        They are float32 or better: half precision would round some to 0 or 1.
        """
        like = chainer.as_array(like)
        device = backend.get_device_from_array(like)
        return tuple(map(device.send, _columns(self.pair, like)))

    def mix_arrays(self, a, b):
        """Returns the weighted sum of two arrays of shape (N, ...)."""
        if type(a) is not np.ndarray:
            first, second = self.columns(a)
            return (first * a + second * b).astype(a.dtype, copy=False)
        y = np.empty_like(a)
        steps.do(_mix_into, y, a, b, *self.pair)
        return y

    def average(self, a, b, what: str):
        """Returns the weighted sum of the values for both partners.

        Args:
            a, b: The results of a function for the targets of either partner: one value
                per batch, or one per sample.
            what (str): The function, for an error.

        Returns:
            The sum; with one weight per sample, its mean over the batch.

        Raises:
            ValueError: If there is one weight per sample, but only one value per batch.
        """
        if isinstance(self.first, float):
            return self.first * a + self.second * b
        return self._average_of_samples(a, b, what)

    def _average_of_samples(self, a, b, what: str):
        if getattr(a, "shape", ())[:1] != self.first.shape:
            raise ValueError(
                f"lam has one value a sample, shape {self.first.shape}, but {what} "
                f"returned shape {getattr(a, 'shape', ())}: let it return one value a "
                "sample, as reduce='no' does for losses of Chainer"
            )
        a, b = (v if v.dtype.kind == "f" else v.astype(np.float32) for v in (a, b))
        first, second = self.columns(a)
        total = first * F.cast(a, first.dtype) + second * F.cast(b, second.dtype)
        return F.cast(F.mean(total), a.dtype)

    def check_perm(self, perm, shape: tuple[int, ...]):
        """Checks and copies the permutation by which a batch is mixed."""
        n = shape[0]
        perm = np.array(cuda.to_cpu(perm))  # kept for the gradient
        if perm.shape != (n,) or (np.sort(perm) != np.arange(n)).any():
            raise ValueError(
                f"perm must be a permutation of 0, ..., {n - 1} of shape ({n},), since "
                f"x has shape {shape}, but perm has shape {perm.shape}: {perm}"
            )
        return perm

    def inverse(self, perm) -> tuple[Weights, np.ndarray]:
        """Returns weights and permutation of the gradient of mixing."""
        back = np.argsort(perm)
        second = self.second if isinstance(self.second, float) else self.second[back]
        return Weights(self._lam, self.first, second), back

    def for_kernel(self, dtype, perm) -> tuple:
        """Returns both weights and the permutation as a CUDA kernel takes them."""
        dtype = np.promote_types(dtype, np.float32)
        first, second = (np.asarray(w, dtype) for w in self.pair)
        perm = cuda.to_gpu(perm.astype(np.int32))
        if first.ndim:
            return cuda.to_gpu(first), cuda.to_gpu(second), perm
        return first[()], second[()], perm


class DeviceWeights(Weights):
    r"""The weights and the permutation of a draw, in arrays that a CUDA graph reads.

    The arrays are refilled before each replay; they are not checked, and never read on
    the host. Mixing and its losses compute bit-for-bit the same as with the numbers
    themselves.

    Args:
        n (int): The number of samples :math:`N`.
        device (chainer.backend.Device): Where the arrays are.

    Attributes:
        perm: int32 array of shape :math:`(N,)`: the permutation.
        memory: float64 array of shape :math:`(4, N)` in which all lie.
    """

    def __init__(self, n: int, device: chainer.backend.Device) -> None:
        self._device = device
        self.memory = device.xp.zeros((4, n), np.float64)  # one transfer for all
        first, second, second_back = self.memory[:3]
        super().__init__(1.0, first, second)
        self.perm, inverse = self.memory[3].view(np.int32).reshape(2, n)
        self._back = copy.copy(self)
        self._back.second, self._back.perm = second_back, inverse
        self._back._back = self

    def fill(self, lam: float | np.ndarray, perm: np.ndarray) -> None:
        """Fills the arrays with the numbers of a draw of mixup."""
        n = len(perm)
        memory = np.empty((4, n))
        inverse = np.argsort(perm)
        memory[0] = np.asarray(lam, np.float64)
        memory[1] = 1 - memory[0]
        memory[2] = memory[1][inverse]
        memory[3].view(np.int32).reshape(2, n)[:] = perm, inverse
        self.memory[...] = self._device.send(memory)
        self._lam = lam

    def columns(self, like) -> tuple:
        """As for weights in host memory."""
        dtype = np.promote_types(like.dtype, np.float32)
        shape = (-1,) + (1,) * (like.ndim - 1)
        return tuple(w.astype(dtype).reshape(shape) for w in self.pair)

    def average(self, a, b, what: str):
        """As for weights in host memory, but only of one value per sample."""
        if getattr(a, "shape", ())[:1] != self.first.shape:
            raise TypeError(f"{what} of labels needs lambda on the host")
        return self._average_of_samples(a, b, what)

    def check_perm(self, perm, shape: tuple[int, ...]):
        """Checks that it is the permutation of this draw."""
        if perm is not self.perm:
            raise TypeError("weights on a device go with the permutation beside them")
        return perm

    def inverse(self, perm) -> tuple[Weights, np.ndarray]:
        """Returns weights and permutation of the gradient of mixing."""
        return self._back, self._back.perm

    def for_kernel(self, dtype, perm) -> tuple:
        """Returns both weights and the permutation as a CUDA kernel takes them."""
        dtype = np.promote_types(dtype, np.float32)
        return *(w.astype(dtype) for w in self.pair), perm


def _mix_into(y, a, b, *pair) -> None:
    first, second = _columns(pair, a)
    y[...] = first * a + second * b


def _columns(pair, like) -> list[np.ndarray]:
    dtype = np.promote_types(like.dtype, np.float32)
    shape = (-1,) + (1,) * (like.ndim - 1)
    return [np.asarray(w).astype(dtype).reshape(shape) for w in pair]
