from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import chainer
import chainer.functions as F
import numpy as np
from chainer import reporter

from chainer_mmix.checks import check_share, check_whole
from chainer_mmix.links.batch_errors import naming_the_flaw
from chainer_mmix.links.contract import (
    check_contract,
    check_inputs,
    check_mixed,
    check_predictor,
    check_states,
    target_name,
)
from chainer_mmix.links.graph import kept_by
from chainer_mmix.links.hooks import is_of_training
from chainer_mmix.mixing.accuracy import top_k_accuracy
from chainer_mmix.mixing.criterion import ignored_label, mixup_criterion, mixup_score
from chainer_mmix.mixing.draw import MixupDraw, using_draw
from chainer_mmix.mixing.points import resolve
from chainer_mmix.mixing.policy import MixupPolicy
from chainer_mmix.mixing.remix import Remix
from chainer_mmix.mixing.weights import Weights


class ManifoldMixupClassifier(chainer.links.Classifier):
    r"""A classifier that trains its predictor with Manifold Mixup.

    In training, each call draws a mixing point, :math:`\lambda` and a permutation from
    :attr:`policy` and asks the predictor to mix its hidden states there. The loss is
    weighted over the targets of both partners
    (:func:`~chainer_mmix.mixing.mixup_criterion`). With
    ``chainer.config.train = False`` it is a :class:`chainer.links.Classifier`.

    The predictor is any link that can be called with
    ``(x, target, mixup_hidden, lam, layer_mix)``. If ``mixup_hidden`` is true, it calls
    :func:`~chainer_mmix.mixup_data` at the mixing point ``layer_mix``, and only there,
    and returns ``(y, target_a, target_b)``; otherwise it returns ``y``. It may list
    its mixing points in a tuple ``mixup_layers``, and those drawn from by default in
    ``default_layer_mix``. If it lists none, it gets ``layer_mix=None`` and chooses a
    point itself. It gets the target in every training step, mixed or not, and never in
    evaluation.

    In training it reports ``loss``, ``accuracy`` and ``lam`` (the mean over the
    batch, 1 without mixing), in evaluation ``loss`` and ``accuracy``. The accuracy is
    weighted (:func:`~chainer_mmix.mixing.mixup_score`): a prediction scores
    :math:`\lambda` if it is the first partner's label and :math:`1 - \lambda` if it is
    the second's. Elements that the loss function ignores do not count. If the
    classifier is called again in the same step, the values of earlier calls are kept as
    ``loss_1`` and so on.

    Targets may be class labels, one-hot vectors or probabilities, several labels per
    sample (with :func:`chainer.functions.sigmoid_cross_entropy` and
    :func:`chainer.functions.binary_accuracy`), or numbers to predict (with
    :func:`chainer.functions.mean_squared_error`, say, and ``accfun=None``). Targets of
    a float dtype are mixed like the samples. Several targets per sample form one float
    array, which ``lossfun`` splits.

    Several inputs are passed on as by :class:`chainer.links.Classifier`, followed by
    the target: ``predictor(a, b, target, mixup_hidden=True, ...)``, or, if the inputs
    came by name, ``predictor(a=a, b=b, target=target, mixup_hidden=True, ...)``.

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
        accfun (callable): Accuracy function, called as ``accfun(y, target)``, or
            ``None`` for no accuracy; for two targets see
            :func:`~chainer_mmix.mixing.mixup_score`. The default is
            :func:`chainer.functions.accuracy`.
        seed (int): Seed of the policy; ``None``, the default, for an unpredictable one.
        policy (MixupPolicy): Replaces the policy made from ``mixup_alpha``,
            ``layer_mix`` and ``seed``, none of which may be given with it. The default
            is ``None``.
        label_smoothing (float): The share of each target that is spread evenly over
            the classes, in training. The default is 0.
        label_key (int or str): The argument of a call that is the target, by its
            position or its name. The default is -1, the last argument.
        clean_weight (float): The weight in :math:`[0, 1]` of the loss of the unmixed
            minibatch, which takes a second forward pass; the loss of the mixed one
            weighs one minus this. The sum is reported as ``loss``, and the values of
            the unmixed minibatch as ``clean_loss`` and ``clean_accuracy``. The
            published code of RegMixup (arXiv 2206.14502) has 0.5. The default is 0.
        remix (Remix): Gives mixtures of a frequent and a rare class the label of the
            rare one, in loss and accuracy; ``lam`` remains the weight of the samples.
            The default is ``None``: labels weigh as much as their samples.
        top_k (int): Also report how often the target is among the k classes with the
            largest scores, as ``top5_accuracy`` for 5. The default is ``None``.

    Attributes:
        policy (MixupPolicy): Draws mixing points, :math:`\lambda` and partners.
        draw (MixupDraw): The draw of the last call; ``None`` if it did not mix. If
            regions were pasted, its ``lam`` is the share of the map that was left.

    Raises:
        TypeError: If the predictor does not accept the arguments of a mixing call, or
            an argument is of another type than above.
        ValueError: If ``mixup_alpha`` is not a finite number >= 0, the predictor lacks
            a mixing point of ``layer_mix``, ``label_smoothing`` or ``clean_weight`` is
            outside :math:`[0, 1]`, ``top_k`` is not a whole number >= 1, ``policy``
            comes together with an argument that it replaces, or ``clean_weight`` or
            ``remix`` with ``mixup_hidden=False``.
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
        clean_weight: float = 0.0,
        remix: Remix | None = None,
        top_k: int | None = None,
    ) -> None:
        check_predictor(predictor)
        if not isinstance(mixup_hidden, (bool, np.bool_)):
            raise TypeError(
                f"mixup_hidden must be True or False, not {mixup_hidden!r}: name the "
                "other arguments, as in mixup_alpha=2"
            )
        if not callable(lossfun):
            raise TypeError(
                "lossfun must be a function, such as "
                f"chainer.functions.softmax_cross_entropy, not {lossfun!r}"
            )
        if not (accfun is None or callable(accfun)):
            raise TypeError(f"accfun must be a function or None, not {accfun!r}")
        if not isinstance(policy, (MixupPolicy, type(None))):
            raise TypeError(
                f"policy must be a MixupPolicy, not {policy!r}: mixup_alpha is alpha"
            )
        super().__init__(predictor, lossfun, accfun, label_key)
        self.compute_accuracy = accfun is not None
        check_share("label_smoothing", label_smoothing)
        self.label_smoothing = label_smoothing
        check_share("clean_weight", clean_weight)
        self.clean_weight = clean_weight
        if not isinstance(remix, (Remix, type(None))):
            raise TypeError(f"remix must be a Remix, not {type(remix).__name__}")
        if not mixup_hidden and (clean_weight or remix is not None):
            name = "clean_weight" if clean_weight else "remix"
            raise ValueError(
                f"{name} changes nothing with mixup_hidden=False: leave out one"
            )
        self.remix = remix
        if top_k is not None:
            check_whole("top_k", top_k, 1)
        self.top_k = top_k
        if policy is None:
            policy = MixupPolicy(mixup_alpha, layer_mix, seed=seed)
        elif mixup_alpha != 0.2 or layer_mix is not None or seed is not None:
            raise ValueError(
                "policy replaces mixup_alpha, layer_mix and seed: pass them to "
                "MixupPolicy instead"
            )
        self.mixup_hidden = mixup_hidden
        self.policy = policy
        self._scores: tuple = None, {}
        self.draw: MixupDraw | None = None
        self._last_draw: MixupDraw | None = None
        for point in policy.layer_mix or ():
            self._point(point)
        if self.mixes:
            check_contract(predictor)

    def __repr__(self) -> str:
        name = type(self.predictor).__name__
        how = f"{self.policy!r}, points {self.points}" if self.mixes else "no mixing"
        return f"{type(self).__name__}({name}, {how})"

    @property
    def mixes(self) -> bool:
        """Whether it mixes in training."""
        return self.mixup_hidden and self.policy.mixes

    @property
    def points(self) -> tuple[int | str, ...]:
        """The mixing points that are drawn from; none if the predictor chooses."""
        if self.policy.layer_mix:
            return tuple(self._point(point) for point in self.policy.layer_mix)
        return tuple(
            getattr(self.predictor, "default_layer_mix", None)
            or getattr(self.predictor, "mixup_layers", None)
            or ()
        )

    def _point(self, point: int | str) -> int | str:
        """Returns a mixing point as the predictor calls it."""
        points = getattr(self.predictor, "mixup_layers", None)
        return resolve(point, points, self.predictor) if points else point

    def forward(self, *args, **kwargs) -> chainer.Variable:
        """Computes the loss, with mixing in training.

        It is :meth:`compute_loss` with the result of :meth:`next_draw`.

        Args:
            args: Inputs of shape :math:`(N, ...)` and their target, as ``label_key``
                says: by default ``(x, target)``.
            kwargs: Inputs, and perhaps the target, by name.

        Returns:
            ~chainer.Variable: The loss.

        Raises:
            RuntimeError: If the predictor did not mix exactly once, or discarded the
                mixed state.
            TypeError: If the batch seems to have more than one target.
        """
        return self.compute_loss(self.next_draw(*args, **kwargs), *args, **kwargs)

    def next_draw(self, *args, **kwargs) -> MixupDraw | None:
        """Draws a mixing point, lambda and partners for a batch.

        Args:
            args, kwargs: The batch, as for :meth:`forward`.

        Returns:
            MixupDraw: The draw, with the mixing point under the predictor's own name;
            ``None`` outside training, and if the batch is not to be mixed.
        """
        if not (chainer.config.train and self.mixup_hidden):
            return None
        *_, target = self._split(args, kwargs)
        draw = self.policy.draw(len(target), self.points)
        if draw is None or draw.layer_mix is None:
            return draw
        point = self._point(draw.layer_mix)
        if point == draw.layer_mix:
            return draw
        return dataclasses.replace(draw, layer_mix=point)

    def use_communicator(self, communicator: Any) -> None:
        """Lets the policy draw for this rank.

        A multi-node optimizer of :mod:`chainermn` calls it before its first step if
        this classifier is its target, a child of its target, or its loss function.

        Args:
            communicator (~chainermn.CommunicatorBase): The optimizer's.
        """
        self.policy.use_communicator(communicator)

    @naming_the_flaw
    def compute_loss(self, draw: MixupDraw | None, *args, **kwargs) -> chainer.Variable:
        """Computes and reports the loss of a batch that is mixed by a given draw.

        Args:
            draw (MixupDraw): The draw; ``None`` for no mixing.
            args, kwargs: The batch, as for :meth:`forward`.

        Returns:
            ~chainer.Variable: The loss.

        Raises:
            RuntimeError: As :meth:`forward`.
        """
        inputs, named, target = self._split(args, kwargs)
        train = chainer.config.train
        if train and len(inputs) > 1 and self.mixes:
            check_inputs(self.predictor, inputs)
        self.y = self.loss = self.accuracy = self.draw = None  # frees the last graph
        has_clean = train and self.clean_weight > 0
        report: dict[str, Any] = {}
        if draw is None or has_clean:
            self._last_draw = None
            # Before the mixed pass, since what reports anew has the last word.
            weights = Weights.of(1.0, len(target))
            self.y = self._predict(inputs, named, target)
            report = clean = self._measure(target, target, weights)
        if draw is not None:
            self.y, a, b, self.draw = self._mix(draw, inputs, named, target)
            self._last_draw = draw
            weights = of_labels = Weights.of(self.draw.lam, len(target))
            if self.remix is not None:
                of_labels = self.remix.weights(weights, a, b)
                if self.y.shape[1] != len(self.remix.class_counts):
                    raise ValueError(
                        f"remix has counts of {len(self.remix.class_counts)} classes, "
                        f"but the predictor has {self.y.shape[1]} outputs"
                    )
            report = self._measure(a, b, of_labels)
        self.loss, self.accuracy = report["loss"], report.get("accuracy")
        if has_clean:
            share = self.clean_weight
            self.loss = (1 - share) * self.loss + share * clean["loss"]
            named = {f"clean_{name}": value for name, value in clean.items()}
            report = {**report, **named, "loss": self.loss}
        if train:
            report["lam"] = weights.mean
        self._report(report)
        return self.loss

    def _predict(self, inputs: list, named: dict, target):
        if chainer.config.train and (name := target_name(self.predictor)):
            named = {**named, name: target}
        return self.predictor(*inputs, **named)

    def _measure(self, a, b, weights: Weights) -> dict[str, Any]:
        """Returns loss and accuracies of the prediction."""
        label_smoothing = self.label_smoothing if chainer.config.train else 0.0
        loss = mixup_criterion(self.lossfun, self.y, a, b, weights, label_smoothing)
        values = {"loss": _mean(loss)}
        for name, accfun in self._accuracies().items():
            values[name] = _mean(mixup_score(accfun, self.y, a, b, weights))
        return values

    def _split(self, args: tuple, kwargs: dict) -> tuple[list, dict, Any]:
        """Returns inputs by place, inputs by name, and the target."""
        key, inputs = self.label_key, list(args)
        if isinstance(key, str):
            if key not in kwargs:
                raise ValueError(
                    f"label_key is {key!r}, but the call names "
                    f"{', '.join(kwargs) or 'no arguments'}"
                )
            target = kwargs.pop(key)
        elif -len(inputs) <= key < len(inputs):
            target = inputs.pop(key)
        else:
            raise ValueError(
                f"label_key is {key}, but the call has {len(args)} positional "
                f"arguments and names {', '.join(kwargs) or 'none'}: a name will do too"
            )
        if not inputs and not kwargs:
            raise TypeError(
                "the batch has no input beside the target: call the classifier as "
                "model(x, t), with examples (x, t)"
            )
        if not hasattr(target, "ndim"):
            raise TypeError(
                f"the target must be one array, not {type(target).__name__}: join a "
                "list of labels, as by numpy.hstack(labels) in the converter, or put "
                "those of several tasks side by side into one float array, and let "
                "lossfun split it"
            )
        if target.ndim == 0 or len(target) == 0:
            raise ValueError(
                f"the target has shape {target.shape}: a batch has at least one sample"
            )
        return inputs, kwargs, target

    def _mix(self, draw: MixupDraw, args: list, kwargs: dict, target) -> tuple:
        if kwargs:
            kwargs = {**kwargs, "target": target}
        else:
            args = [*args, target]
        kept = kept_by(self.predictor)
        with using_draw(draw) as mixture:
            outputs = self.predictor(
                *args,
                **kwargs,
                mixup_hidden=True,
                lam=draw.lam,
                layer_mix=draw.layer_mix,
            )
        check_mixed(self.predictor, outputs, mixture, target)
        if draw is not self._last_draw:
            check_states(self.predictor, outputs[0], mixture, kept)
        return *outputs, mixture.draw

    def _accuracies(self) -> dict[str, Callable]:
        """Returns the accuracy functions, which leave out what the loss leaves out."""
        key = self.lossfun, self.accfun, self.compute_accuracy, self.top_k
        if self._scores[0] != key:
            label = ignored_label(self.lossfun)
            # Of other functions nothing is known, but -1 is no class.
            ignoring = {"ignore_label": -1 if label is None else label}
            scores: dict[str, Callable] = {}
            if self.compute_accuracy:
                score = self.accfun
                if _is_accuracy_of_all(score):
                    score = functools.partial(score, **ignoring)
                scores["accuracy"] = score
            if self.top_k is not None:
                score = functools.partial(top_k_accuracy, k=self.top_k, **ignoring)
                scores[f"top{self.top_k}_accuracy"] = score
            self._scores = key, scores
        return self._scores[1]

    def _report(self, values: dict) -> None:
        """Reports, and keeps the values of earlier calls in the same step.

        Their names end in ``_1``, ``_2`` and so on.
        """
        try:
            current = reporter.get_current_reporter()
        except IndexError:  # there is none
            return
        earlier, current.observation = current.observation, {}
        try:
            current.report(values, self)
        except KeyError:
            raise KeyError(
                f"this {type(self).__name__} is not a link of an optimizer's target, "
                "so its values have no name in the log: call "
                "trainer.reporter.add_observer(name, classifier)"
            ) from None
        finally:
            observation, current.observation = current.observation, earlier
        for name, value in observation.items():
            if name in earlier:
                names = (f"{name}_{k}" for k in itertools.count(1))
                free = next(n for n in names if n not in earlier)
                earlier[free] = earlier[name]
            earlier[name] = value

    def serialize(self, serializer: chainer.AbstractSerializer) -> None:
        """Saves or restores the weights and, in a snapshot of a training, the policy.

        In snapshots of a :class:`~chainer.training.Trainer` or an updater, the state of
        the policy's generator is stored beside the weights. A file of the link itself
        is interchangeable with one of a :class:`chainer.links.Classifier`; loading
        weights, from either kind of file, leaves the policy as it is.
        """
        super().serialize(serializer)
        if is_of_training():
            self.policy.serialize(serializer["policy"])


def _mean(value):
    """Returns the mean of one value a sample."""
    return F.mean(value) if getattr(value, "ndim", 0) else value


def _is_accuracy_of_all(accfun: Callable) -> bool:
    if isinstance(accfun, functools.partial):
        is_open = not accfun.args and "ignore_label" not in accfun.keywords
        return accfun.func in (F.accuracy, top_k_accuracy) and is_open
    return accfun in (F.accuracy, top_k_accuracy)
