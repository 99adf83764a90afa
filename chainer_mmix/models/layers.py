from __future__ import annotations

import dataclasses

import chainer.links as L
from chainer.initializers import HeNormal, LeCunUniform, Uniform


@dataclasses.dataclass(frozen=True)
class Layers:
    """Makes the layers of a model, so that convolutions keep the size.

    Attributes:
        published (bool): Whether they are as PyTorch makes them: weights and biases
            uniform up to ``fan_in ** -0.5``, eps of batch normalisation 1e-5.
            Otherwise convolutions are drawn by
            :class:`~chainer.initializers.HeNormal` (fan-in), and the rest is Chainer's:
            :class:`~chainer.initializers.LeCunNormal` for linear layers, biases 0, eps
            2e-5.
    """

    published: bool = False

    def convolution(
        self,
        in_channels: int | None,
        out_channels: int,
        ksize: int,
        stride: int = 1,
        nobias: bool = True,
    ) -> L.Convolution2D:
        make = PyTorchConvolution2D if self.published else L.Convolution2D
        options = {} if self.published else {"initialW": HeNormal()}
        pad = ksize // 2
        return make(in_channels, out_channels, ksize, stride, pad, nobias, **options)

    def batch_normalization(
        self, channels: int, decay: float = 0.9
    ) -> L.BatchNormalization:
        eps = 1e-5 if self.published else 2e-5
        return L.BatchNormalization(channels, decay=decay, eps=eps)

    def linear(self, in_size: int, out_size: int) -> L.Linear:
        if not self.published:
            return L.Linear(in_size, out_size)
        bias = Uniform(in_size**-0.5)
        return L.Linear(in_size, out_size, initialW=pytorch(), initial_bias=bias)


class PyTorchConvolution2D(L.Convolution2D):
    """A convolution of which weights and biases are drawn as PyTorch draws them.

    Args:
        in_channels, out_channels, ksize, stride, pad, nobias: As for
            :class:`chainer.links.Convolution2D`.
    """

    def __init__(
        self,
        in_channels: int | None,
        out_channels: int,
        ksize: int,
        stride: int = 1,
        pad: int = 0,
        nobias: bool = False,
    ) -> None:
        shape = out_channels, ksize, stride, pad, nobias
        super().__init__(None, *shape, initialW=pytorch())
        if in_channels is not None:
            self.in_channels = in_channels
            self._initialize_params(in_channels)

    def _initialize_params(self, in_channels: int) -> None:
        super()._initialize_params(in_channels)
        if self.b is not None:
            fan_in = self.W.array[0].size
            Uniform(fan_in**-0.5)(self.b.array)


def pytorch() -> LeCunUniform:
    """Returns the initializer that PyTorch has for weights by default.

    It is uniform between -1 and 1, divided by the root of the fan-in: what
    ``kaiming_uniform_(weight, a=sqrt(5))`` amounts to.
    """
    return LeCunUniform(3**-0.5)
