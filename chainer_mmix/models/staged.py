from __future__ import annotations

from collections.abc import Callable, Sequence

import chainer
import chainer.functions as F
import numpy as np

from chainer_mmix.mixing import mixup_data
from chainer_mmix.mixing.points import resolve
from chainer_revive.cpu import steps


class Staged(chainer.Chain):
    """A network of consecutive stages, which can mix before each and after the last.

    Mixing point 0 is the input, and point ``k`` the output of stage ``k``, counted from
    1.

    Attributes:
        mixup_layers (tuple of int): All mixing points.
        default_layer_mix (tuple of int): The mixing points that are drawn from unless
            the user chooses others.

    Args:
        published (bool): Whether the network is that of the paper's code. This is
            saved, so that the weights of the two variants are not confused. The default
            is ``False``.
    """

    mixup_layers: tuple[int, ...]
    default_layer_mix: tuple[int, ...]

    def __init__(self, published: bool = False) -> None:
        super().__init__()
        if published:
            self.add_persistent("published", True)
        self._standardise: Callable = _leave

    def standardise(
        self, mean: Sequence[float] | None, std: Sequence[float] | None
    ) -> None:
        """Lets the network standardise its input, before mixing.

        The data themselves do not change, for augmentation, attacks and pictures. The
        constants are saved with the weights.

        Args:
            mean, std (sequence of float): The input becomes (x - mean) / std; one
                number a channel, or one for all. Both are ``None`` for the mean and the
                standard deviation of each image, the latter at least 1 / sqrt(n) for n
                numbers, as in ``tf.image.per_image_standardization``.

        Raises:
            ValueError: If only one is ``None``, they are not finite numbers of equal
                count, or a standard deviation is not above 0; and later, if the input
                has another number of channels.
        """
        if mean is None and std is None:
            self.add_persistent("per_image_standardisation", True)
            self._standardise = _per_image
            return
        arrays = [np.array(values, np.float32).reshape(-1) for values in (mean, std)]
        if not (
            len(arrays[0]) == len(arrays[1]) > 0
            and np.isfinite(arrays).all()
            and np.all(arrays[1] > 0)
        ):
            raise ValueError(
                "mean and std must be finite numbers, one a channel, and std above 0, "
                f"not {mean} and {std}"
            )
        for name, array in zip(("mean", "std"), arrays, strict=True):
            self.add_persistent(name, self.device.send(array.reshape(-1, 1, 1)))
        self._standardise = _by_constants

    def stages(self) -> Sequence[Callable]:
        """Returns the stages in order, each from one Variable to the next."""
        raise NotImplementedError

    def head(self, h: chainer.Variable) -> chainer.Variable:
        """Turns the output of the last stage into logits of shape (N, n_class)."""
        raise NotImplementedError

    def forward(
        self, x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None
    ) -> chainer.Variable | tuple:
        """Computes logits, and mixes at one point on the way.

        Args:
            x (~chainer.Variable or array): Float images of shape (N, C, H, W).
            target (~chainer.Variable or array): Labels of shape (N,), when mixing.
            mixup_hidden (bool): Whether to mix. The default is ``False``.
            lam (float or array): Weight of the first partner, a number or of shape
                (N,).
            layer_mix (int): The mixing point; ``None`` draws one of
                ``default_layer_mix`` from :mod:`numpy.random`.

        Returns:
            Logits of shape (N, n_class), or ``(logits, target_a, target_b)`` when
            mixing.
        """
        h = self._standardise(self, x)
        if mixup_hidden:
            points = self.mixup_layers, self, self.default_layer_mix
            layer_mix = resolve(layer_mix, *points)
        for point, stage in enumerate((lambda x: x, *self.stages())):
            h = stage(h)
            if mixup_hidden and point == layer_mix:
                h, target_a, target_b = mixup_data(h, target, lam)
        y = self.head(h)
        return (y, target_a, target_b) if mixup_hidden else y


def _leave(net: Staged, x):
    return x


def _by_constants(net: Staged, x):
    if len(net.mean) not in (1, x.shape[1]):  # which would broadcast one channel
        raise ValueError(
            f"the network standardises {len(net.mean)} channels, but the input has "
            f"{x.shape[1]}, shape {x.shape}: give images of as many"
        )
    mean, std = (a.astype(x.dtype, copy=False) for a in (net.mean, net.std))
    if type(x) is not np.ndarray:
        y = x - mean
        y /= std  # in place for an array
        return y
    y = np.empty_like(x)
    steps.do(np.subtract, x, mean, y)
    steps.do(np.divide, y, std, y)
    return y


def _per_image(net: Staged, x):
    axes = tuple(range(1, x.ndim))
    wide = F.cast(x, np.result_type(x.dtype, np.float32))
    wide = wide - F.mean(wide, axes, keepdims=True)
    least = wide.xp.empty((len(x), *[1] * len(axes)), wide.dtype)
    steps.do(wide.xp.copyto, least, 1 / wide[0].size)
    variance = F.maximum(F.mean(wide * wide, axes, keepdims=True), least)
    return F.cast(wide / F.sqrt(variance), x.dtype)


class Stage(chainer.Chain):
    """Residual units one after another, the first of them changing the shape.

    They are named ``a``, ``b1``, ``b2``, ... as in Chainer's ResNets.

    Args:
        unit (callable): Makes a link from input channels, output channels and stride.
        n_units (int): How many.
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output.
        stride (int): Stride of the first unit; the others have 1.
    """

    def __init__(
        self,
        unit: Callable[[int, int, int], chainer.Link],
        n_units: int,
        in_channels: int,
        out_channels: int,
        stride: int,
    ) -> None:
        super().__init__()
        self._names = ["a", *(f"b{i}" for i in range(1, n_units))]
        with self.init_scope():
            self.a = unit(in_channels, out_channels, stride)
            for name in self._names[1:]:
                setattr(self, name, unit(out_channels, out_channels, 1))

    def forward(self, x) -> chainer.Variable:
        for name in self._names:
            x = self[name](x)
        return x
