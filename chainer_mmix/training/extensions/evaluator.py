from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import chainer
import chainer.functions as F
import numpy as np
from chainer import backend, reporter
from chainer.dataset import concat_examples
from chainer.iterators import ShuffleOrderSampler
from chainer.training import extensions

from chainer_mmix.analysis.predictions import accuracy_functions
from chainer_mmix.links.links_in import links_in
from chainer_mmix.mixing import ignored_label, top_k_accuracy
from chainer_mmix.training.arguments import check_iterators, check_targets
from chainer_mmix.training.device import given_device
from chainer_mmix.training.evaluation_graphs import EvaluationGraphs
from chainer_mmix.training.isolation import isolated
from chainer_mmix.training.signals import check_stop


class Evaluator(extensions.Evaluator):
    """Chainer's Evaluator, but with means over all examples.

    It weights each minibatch by its number of examples, as
    :class:`chainer.training.extensions.Evaluator` does once it is patched by
    :mod:`chainer_revive`. It weights the loss and the accuracy of a
    :class:`~chainer.links.Classifier` by the number of labels that they are means of:
    all labels, or those that are not ignored, such as -1 for
    :func:`chainer.functions.softmax_cross_entropy`. A mean of nothing is NaN.

    It leaves the network as it found it, with the states of an LSTM, which are reset
    for each evaluation, its statistics and its counters. It draws no random numbers
    itself: an iterator that shuffles gets the same order in each evaluation, from its
    own generator. A dataset or network that draws from :mod:`numpy.random` or
    :mod:`random` in evaluation draws from the generators of the training, as with
    Chainer's.

    Args:
        iterator, target, converter, device, eval_hook, eval_func, progress_bar: As for
            :class:`chainer.training.extensions.Evaluator`. ``eval_hook`` is called
            after the states have been reset. Values of an ``eval_func`` are weighted by
            the number of examples; one that is reported as a tuple ``(value, weight)``
            keeps its weight.
        graph (bool): Whether to record the computation of a batch and replay it, with
            bit-for-bit the same numbers, as
            :class:`~chainer_mmix.training.GraphUpdater` does for steps. In an
            evaluation, the first three batches of a shape run as usual, then one is
            recorded, and two replays are compared with the usual
            computation. A smaller last batch runs as usual. This needs a CPU with
            compiled loops, and targets that are a :class:`~chainer.links.Classifier` or
            a :class:`~chainer_mmix.ManifoldMixupClassifier`; on a GPU, with an
            ``eval_func``, with hooks and in debug mode, everything runs as usual. If a
            batch cannot be replayed, one warning says why. Other Python code in the
            target runs once per record, so a network whose computation depends on the
            values of a batch must be evaluated without it, and so must one whose
            parameters change during an evaluation. The default is ``False``.

    Raises:
        TypeError: If ``iterator`` is no iterator, such as a dataset, or ``target`` no
            link, nor a dict of them.
        ValueError: If no iterator is called main, there are no examples, there is no
            such device, or ``graph`` is true on a CPU without compiled loops.
    """

    eval_func: Any  # of Chainer's, which knows no types

    def __init__(
        self,
        iterator,
        target,
        converter: Callable = concat_examples,
        device=None,
        eval_hook: Callable | None = None,
        eval_func: Callable | None = None,
        *,
        graph: bool = False,
        **kwargs,
    ) -> None:
        name = type(self).__name__
        check_iterators(iterator, name, ", repeat=False, shuffle=False")
        check_targets(target, name, needs_main=eval_func is None)
        device = given_device(device)
        super().__init__(
            iterator, target, converter, device, eval_hook, eval_func, **kwargs
        )
        for key, one in self.get_all_iterators().items():
            data: Any = getattr(one, "dataset", None)
            if hasattr(data, "__len__") and len(data) == 0:
                raise ValueError(
                    f"the iterator {key!r} of {name} has no examples: nothing can be "
                    "measured"
                )
        samplers: list[Any] = [
            getattr(iterator, "order_sampler", None)
            for iterator in self.get_all_iterators().values()
        ]
        self._called = eval_func  # the links that it calls are isolated too
        self._samplers = [sampler for sampler in samplers if _shares_state(sampler)]
        self._graphs = EvaluationGraphs(self.get_target("main")) if graph else None

    def evaluate(self) -> dict:
        """Returns the means, under the names that they have in the log."""
        given = self.eval_func
        self.eval_func = functools.partial(self._call, given)
        isolate: Callable = isolated
        if self._graphs is not None:
            self._graphs.end()  # the last evaluation, if its own end was interrupted
            isolate = functools.partial(isolated, places=self._graphs.places)
        try:
            with self._isolated(isolate), np.errstate(invalid="ignore"):  # 0 / 0
                return super().evaluate()
        finally:
            self.eval_func = given
            if self._graphs is not None:
                self._graphs.end()

    @contextlib.contextmanager
    def _isolated(self, isolate: Callable = isolated) -> Iterator[None]:
        for sampler in self._samplers:
            sampler._random = _OwnState(0)
        with contextlib.ExitStack() as stack:
            for link in links_in([self.get_all_targets(), self._called]):
                stack.enter_context(isolate(link))
            yield

    def _call(self, given: Callable | None, *args, **kwargs) -> None:
        check_stop(self)
        if given:
            given(*args, **kwargs)
            return
        target = self.get_target("main")
        if self._graphs is None or not self._graphs.report(target, args, kwargs):
            target(*args, **kwargs)
        prefix = f"{self.name}/main/" if self.name else "main/"
        observation = reporter.get_current_reporter().observation
        for name, weight in _weights(target, args, kwargs).items():
            key = prefix + name
            if weight is not None and key in observation:
                observation[key] = _weighted(observation[key], weight)


class _OwnState(np.random.RandomState):
    """The generator of a sampler in place of numpy.random."""


def _shares_state(sampler) -> bool:
    """Tells whether a sampler draws from numpy.random, but for an evaluator."""
    if type(sampler) is not ShuffleOrderSampler:
        return False
    state = sampler._random
    return state is np.random.mtrand._rand or isinstance(state, _OwnState)


def _weights(target: chainer.Link, args: tuple, kwargs: dict) -> dict:
    """Returns how many labels a classifier's loss and accuracies are means of.

    ``None`` stands for the number of examples, by which Chainer weighs them.
    """
    key = getattr(target, "label_key", None)
    if key is None:
        return {}
    t = kwargs[key] if isinstance(key, str) else args[key]
    criteria = {"loss": target.lossfun, **accuracy_functions(target)}
    return {name: _n_counted(f, t) for name, f in criteria.items() if f is not None}


def _n_counted(criterion: Callable, t):
    """Returns how many labels a criterion takes its mean of; ``None`` for examples."""
    options = getattr(criterion, "keywords", {})  # of a functools.partial
    whole = options.get("normalize") is False or options.get("reduce") == "no"
    if whole or getattr(t, "dtype", np.dtype("f")).kind == "f":
        return None
    label = ignored_label(criterion)
    if label is not None:
        return (t != label).sum()
    is_accuracy = getattr(criterion, "func", criterion) in (F.accuracy, top_k_accuracy)
    return t.size if is_accuracy else None


def _weighted(value, weight):
    if isinstance(value, tuple):
        return value
    value = chainer.as_array(value)
    if np.isscalar(value):
        value = np.float64(value)
    if getattr(value, "ndim", None) != 0:
        return value  # of which Chainer takes no mean
    xp = backend.get_array_module(value)
    # In double precision. What is NaN for want of labels counts for nothing.
    return xp.where(weight > 0, value.astype(np.float64), 0.0), weight
