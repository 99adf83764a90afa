from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Sequence

import chainer
import chainer.functions as F
import numpy as np
from chainer import reporter

from chainer_mmix.mixing.criterion import mixup_criterion
from chainer_mmix.mixing.losses import check_label_smoothing
from chainer_mmix.mixing.points import resolve
from chainer_mmix.mixing.policy import MixupDraw, MixupPolicy, using_draw
from chainer_mmix.mixing.static import StaticWeights


class ManifoldMixupClassifier(chainer.links.Classifier):
    r"""A classifier that trains its predictor with Manifold Mixup.

    In training, each call draws a layer, :math:`\lambda` and a permutation from
    :attr:`policy` and asks the predictor to mix its hidden states there; the loss is
    weighted over the targets of both partners
    (:func:`~chainer_mmix.mixing.mixup_criterion`). With
    ``chainer.config.train = False`` it is a :class:`chainer.links.Classifier`.

    The predictor is any link whose ``forward`` accepts
    ``(x, target, mixup_hidden, lam, layer_mix)``. When ``mixup_hidden`` is true, it
    calls :func:`~chainer_mmix.mixup_data` at the mixing point ``layer_mix``, there
    only, and returns ``(y, target_a, target_b)``; else it returns ``y``. It may list
    its mixing points in a tuple ``mixup_layers``, and those drawn from by default in
    ``default_layer_mix``; if it lists none, it gets ``layer_mix=None`` and chooses.

    In training it reports ``loss``, ``accuracy`` and ``lam`` (the mean over the
    batch, 1 without mixing). Accuracy is weighted as the loss is: a prediction scores
    :math:`\lambda` if it is the first partner's label and :math:`1 - \lambda` if it
    is the second's.

    Targets may be class labels, one-hot vectors or probabilities, several labels a
    sample (with :func:`chainer.functions.sigmoid_cross_entropy` and
    :func:`chainer.functions.binary_accuracy`), or numbers to predict (with
    :func:`chainer.functions.mean_squared_error`, say, and ``accfun=None``). Those of a
    float dtype are mixed as the samples are.

    Several inputs are passed on as :class:`chainer.links.Classifier` does it, the
    target after them: ``predictor(a, b, target, mixup_hidden=True, ...)``, or, if
    inputs came by name, ``predictor(a=a, b=b, target=target, mixup_hidden=True,
    ...)``.

    Source: arXiv 1806.05236.

    Args:
        predictor (~chainer.Link): The network.
        mixup_hidden (bool): Whether to mix. The default is ``True``.
        mixup_alpha (float): :math:`\lambda \sim \mathrm{Beta}(\alpha, \alpha)`; 0
            means no mixing. The default is 0.2.
        layer_mix: The mixing points to draw from: one, a list, or ``None`` for the
            predictor's own (the default). Point 0 is the input, by convention. If the
            predictor's points are names, an integer is an index into their list.
        lossfun (callable): Loss function, called as ``lossfun(y, target)``; for two
            targets see :func:`~chainer_mmix.mixing.mixup_criterion`. The default is
            :func:`chainer.functions.softmax_cross_entropy`.
        accfun (callable): Accuracy function, likewise; ``None`` for none. The default
            is :func:`chainer.functions.accuracy`.
        seed (int): Seed of the policy, ``None`` for an unpredictable one.
        policy (MixupPolicy): Replaces the policy made of ``mixup_alpha``,
            ``layer_mix`` and ``seed``, none of which may be given then.
        label_smoothing (float): The share of each target that is spread evenly over
            the classes, in training. The default is 0.
        label_key (int or str): Which argument of a call is the target, by its place
            or its name. The default is -1, the last.

    Attributes:
        policy (MixupPolicy): Where layers, :math:`\lambda` and partners come from.
        draw (MixupDraw): What the last call mixed; ``None`` if it did not mix.

    Raises:
        TypeError: If the predictor's ``forward`` does not accept the arguments.
        ValueError: If ``mixup_alpha`` is not a finite number >= 0, the predictor does
            not have a layer of ``layer_mix``, ``label_smoothing`` is outside
            :math:`[0, 1]`, or ``policy`` comes with a rival.
    """

    def __init__(
        self,
        predictor: chainer.Link,
        mixup_hidden: bool = True,
        mixup_alpha: float = 0.2,
        layer_mix: int | str | Sequence[int | str] | None = None,
        lossfun: Callable = F.softmax_cross_entropy,
        accfun: Callable | None = F.accuracy,
        seed: int | None = None,
        policy: MixupPolicy | None = None,
        label_smoothing: float = 0.0,
        label_key: int | str = -1,
    ) -> None:
        super().__init__(predictor, lossfun, accfun, label_key)
        self.compute_accuracy = accfun is not None
        check_label_smoothing(label_smoothing)
        self.label_smoothing = label_smoothing
        if policy is None:
            policy = MixupPolicy(mixup_alpha, layer_mix, seed=seed)
        elif mixup_alpha != 0.2 or layer_mix is not None or seed is not None:
            raise ValueError(
                "policy replaces mixup_alpha, layer_mix and seed: pass them to "
                "MixupPolicy instead"
            )
        self.mixup_hidden = mixup_hidden
        self.policy = policy
        self.draw: MixupDraw | None = None
        for point in policy.layer_mix or ():
            self._point(point)
        if self.mixes:
            _check_contract(predictor)

    @property
    def mixes(self) -> bool:
        """Whether it mixes in training."""
        return self.mixup_hidden and self.policy.mixes

    @property
    def points(self) -> tuple[int | str, ...]:
        """The mixing points that are drawn from; none if the predictor chooses."""
        if self.policy.layer_mix:
            return tuple(map(self._point, self.policy.layer_mix))
        return tuple(
            getattr(self.predictor, "default_layer_mix", None)
            or getattr(self.predictor, "mixup_layers", None)
            or ()
        )

    def _point(self, point: int | str | None) -> int | str | None:
        """Returns a mixing point as the predictor calls it."""
        points = getattr(self.predictor, "mixup_layers", None)
        if not points or point is None:
            return point
        return resolve(point, points, self.predictor)

    def forward(self, *args, **kwargs) -> chainer.Variable:
        """Computes the loss, with mixing in training.

        Args:
            args: Inputs of shape :math:`(N, ...)` and their target, as ``label_key``
                says: by default ``(x, target)``.
            kwargs: The same, by name.

        Returns:
            ~chainer.Variable: The loss.

        Raises:
            RuntimeError: If the predictor did not mix exactly once, or threw away the
                mixed state.
        """
        args, kwargs, target = self._split(args, kwargs)
        if not hasattr(target, "ndim"):
            raise TypeError(
                f"the target must be one array, not {type(target).__name__}: put those "
                "of several tasks side by side into one float array, and let lossfun "
                "split it"
            )
        self.y = self.loss = self.accuracy = self.draw = None  # frees the last graph
        train = chainer.config.train
        if train and self.mixes:
            self.draw = self.policy.draw(len(target), self.points)
        if self.draw is None:
            self.y = self.predictor(*args, **kwargs)
            pair = target, target, 1.0
        else:
            self.y, *targets = self._mix(self.draw, args, kwargs, target)
            pair = *targets, self.draw.lam
        label_smoothing = self.label_smoothing if train else 0.0
        self.loss = mixup_criterion(self.lossfun, self.y, *pair, label_smoothing)
        if self.loss.ndim:  # one value a sample, so that lambda may be one a sample
            self.loss = F.mean(self.loss)
        report = {"loss": self.loss}
        if self.compute_accuracy:
            self.accuracy = mixup_criterion(self.accfun, self.y, *pair)
            report["accuracy"] = self.accuracy
        if train:
            lam = pair[-1]
            if isinstance(lam, StaticWeights):
                lam = lam.mean
            report["lam"] = lam if isinstance(lam, float) else float(np.mean(lam))
        reporter.report(report, self)
        return self.loss

    def _split(self, args: tuple, kwargs: dict) -> tuple:
        key, args = self.label_key, list(args)
        if isinstance(key, str):
            if key not in kwargs:
                raise ValueError(
                    f"label_key is {key!r}, but the call names "
                    f"{', '.join(kwargs) or 'no arguments'}"
                )
            return args, kwargs, kwargs.pop(key)
        if not -len(args) <= key < len(args):
            raise ValueError(
                f"label_key is {key}, but the call has {len(args)} positional "
                f"arguments and names {', '.join(kwargs) or 'none'}: a name will do too"
            )
        return args, kwargs, args.pop(key)

    def _mix(self, draw: MixupDraw, args: list, kwargs: dict, target) -> tuple:
        draw.layer_mix = self._point(draw.layer_mix)
        if kwargs:
            kwargs = {**kwargs, "target": target}
        else:
            args = [*args, target]
        with using_draw(draw):
            outputs = self.predictor(
                *args,
                **kwargs,
                mixup_hidden=True,
                lam=draw.lam,
                layer_mix=draw.layer_mix,
            )
        self._check_mixed(outputs, draw, target)
        draw.mixed = ()  # weak references could not be pickled
        return outputs

    def _check_mixed(self, outputs, draw: MixupDraw, target) -> None:
        name = type(self.predictor).__name__
        if not (isinstance(outputs, tuple) and len(outputs) == 3):
            raise TypeError(
                f"{name}.forward must return (y, target_a, target_b) when mixup_hidden "
                f"is true, as mixup_data gives them, but it returned {type(outputs)}"
            )
        if draw.times_mixed != 1:
            raise RuntimeError(
                f"{name}.forward called mixup_data {draw.times_mixed} times with "
                f"layer_mix={draw.layer_mix!r}: it must mix exactly once, at that point"
            )
        if outputs[2] is target:
            raise RuntimeError(
                f"{name}.forward returned the targets of the first partners where "
                "those of the second belong: return what mixup_data gives"
            )
        if draw.mixed and all(node() is None for node in draw.mixed):
            raise RuntimeError(
                f"{name}.forward mixed at layer_mix={draw.layer_mix!r}, but its "
                "outputs do not come from the mixed Variable: go on with what "
                "mixup_data returns, and freeze what follows by disable_update, not by "
                "cutting the graph (as no_backprop_mode does), or mix after it"
            )

    def serialize(self, serializer: chainer.AbstractSerializer) -> None:
        """Saves or restores the weights and the state of the policy.

        The file of a plain :class:`chainer.links.Classifier` loads too: it leaves the
        policy as it is.
        """
        super().serialize(serializer)
        # For a missing key, NumPy's files raise KeyError and HDF5 ValueError.
        missing = KeyError, ValueError
        loading = isinstance(serializer, chainer.Deserializer)
        with contextlib.suppress(*(missing if loading else ())):
            self.policy.serialize(serializer["policy"])


def _check_contract(predictor: chainer.Link) -> None:
    forward = inspect.signature(getattr(predictor, "forward", predictor))
    try:
        forward.bind_partial(mixup_hidden=True, lam=1.0, layer_mix=None)
    except TypeError as e:
        raise TypeError(
            f"{type(predictor).__name__}.forward must accept (x, target, mixup_hidden, "
            f"lam, layer_mix) to be trained with mixing, but it takes {forward}: {e}"
        ) from None
