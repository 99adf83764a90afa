from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Sequence

import chainer
import chainer.functions as F
import numpy as np
from chainer import reporter

from chainer_mmix.mixing.losses import mixup_criterion
from chainer_mmix.mixing.policy import MixupDraw, MixupPolicy, using_draw


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

    It is called as ``model(x, target)``; there is no ``label_key``.

    Source: arXiv 1806.05236.

    Args:
        predictor (~chainer.Link): The network.
        mixup_hidden (bool): Whether to mix. The default is ``True``.
        mixup_alpha (float): :math:`\lambda \sim \mathrm{Beta}(\alpha, \alpha)`; 0
            means no mixing. The default is 0.2.
        layer_mix: The mixing points to draw from: one, a list, or ``None`` for the
            predictor's own (the default). Point 0 is the input, by convention.
        lossfun (callable): Loss function, called as ``lossfun(y, target)``. It is
            applied to both targets. The default is
            :func:`chainer.functions.softmax_cross_entropy`.
        accfun (callable): Accuracy function, likewise. The default is
            :func:`chainer.functions.accuracy`.
        seed (int): Seed of the policy, ``None`` for an unpredictable one.
        policy (MixupPolicy): Replaces the policy made of ``mixup_alpha``,
            ``layer_mix`` and ``seed``, none of which may be given then.

    Attributes:
        policy (MixupPolicy): Where layers, :math:`\lambda` and partners come from.
        draw (MixupDraw): What the last call mixed; ``None`` if it did not mix.

    Raises:
        TypeError: If the predictor's ``forward`` does not accept the arguments.
        ValueError: If ``mixup_alpha`` is not a finite number >= 0, the predictor does
            not have a layer of ``layer_mix``, or ``policy`` comes with a rival.
    """

    def __init__(
        self,
        predictor: chainer.Link,
        mixup_hidden: bool = True,
        mixup_alpha: float = 0.2,
        layer_mix: int | str | Sequence[int | str] | None = None,
        lossfun: Callable = F.softmax_cross_entropy,
        accfun: Callable = F.accuracy,
        seed: int | None = None,
        policy: MixupPolicy | None = None,
    ) -> None:
        super().__init__(predictor, lossfun, accfun)
        if policy is None:
            policy = MixupPolicy(mixup_alpha, layer_mix, seed=seed)
        elif mixup_alpha != 0.2 or layer_mix is not None or seed is not None:
            raise ValueError(
                "policy replaces mixup_alpha, layer_mix and seed: pass them to "
                "MixupPolicy instead"
            )
        layers = getattr(predictor, "mixup_layers", None)
        unknown = set(policy.layer_mix or ()).difference(
            layers or policy.layer_mix or ()
        )
        if unknown:
            raise ValueError(
                f"{type(predictor).__name__} has no mixing point "
                f"{', '.join(map(repr, sorted(unknown, key=str)))}; it has "
                f"{', '.join(map(repr, layers))}"
            )
        self.mixup_hidden = mixup_hidden
        self.policy = policy
        self.draw: MixupDraw | None = None
        if self.mixes:
            _check_contract(predictor)

    @property
    def mixes(self) -> bool:
        """Whether it mixes in training."""
        return self.mixup_hidden and self.policy.alpha > 0

    @property
    def points(self) -> tuple[int | str, ...]:
        """The mixing points that are drawn from; none if the predictor chooses."""
        return tuple(
            self.policy.layer_mix
            or getattr(self.predictor, "default_layer_mix", None)
            or getattr(self.predictor, "mixup_layers", None)
            or ()
        )

    def forward(self, x, target) -> chainer.Variable:
        """Computes the loss, with mixing in training.

        Args:
            x (~chainer.Variable or array): Input of shape :math:`(N, ...)`.
            target (~chainer.Variable or array): Labels of shape :math:`(N, ...)`.

        Returns:
            ~chainer.Variable: The loss.

        Raises:
            RuntimeError: If the predictor did not mix exactly once, or threw away the
                mixed state.
        """
        self.draw = None
        if not chainer.config.train:
            return super().forward(x, target)
        if not self.mixes:
            reporter.report({"lam": 1.0}, self)
            return super().forward(x, target)

        self.y = self.loss = self.accuracy = None  # frees the last graph
        draw = self.policy.draw(len(x), self.points)
        with using_draw(draw):
            outputs = self.predictor(
                x,
                target,
                mixup_hidden=True,
                lam=draw.lam,
                layer_mix=draw.layer_mix,
            )
        self._check_mixed(outputs, draw)
        draw.mixed = None  # a weak reference could not be pickled
        self.draw = draw
        self.y, target_a, target_b = outputs
        pair = (target_a, target_b, draw.lam)
        self.loss = mixup_criterion(self.lossfun, self.y, *pair)
        reporter.report({"loss": self.loss, "lam": float(np.mean(draw.lam))}, self)
        if self.compute_accuracy:
            self.accuracy = mixup_criterion(self.accfun, self.y, *pair)
            reporter.report({"accuracy": self.accuracy}, self)
        return self.loss

    def _check_mixed(self, outputs, draw: MixupDraw) -> None:
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
        if draw.mixed is not None and draw.mixed() is None:
            raise RuntimeError(
                f"{name}.forward mixed at layer_mix={draw.layer_mix!r}, but its "
                "outputs do not come from the mixed Variable: go on with what "
                "mixup_data returns"
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
        forward.bind(None, None, mixup_hidden=True, lam=1.0, layer_mix=None)
    except TypeError as e:
        raise TypeError(
            f"{type(predictor).__name__}.forward must accept (x, target, mixup_hidden, "
            f"lam, layer_mix) to be trained with mixing, but it takes {forward}: {e}"
        ) from None
