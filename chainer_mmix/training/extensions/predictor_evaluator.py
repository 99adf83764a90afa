from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import chainer
from chainer import reporter
from chainer.dataset import concat_examples

from chainer_mmix.analysis.findings import Findings
from chainer_mmix.links.probe import drawing_nothing
from chainer_mmix.training.extensions.evaluator import Evaluator
from chainer_mmix.training.isolation import isolated_with_weights
from chainer_mmix.training.not_essential import not_essential
from chainer_mmix.training.signals import check_stop


class PredictorEvaluator(Evaluator):
    """Measures something about a classifier's predictor.

    The values are logged beside those of the
    :class:`~chainer_mmix.training.extensions.Evaluator`, under ``validation/main/``, or
    under the name that :meth:`~chainer.training.Trainer.extend` is given.

    Before the first iteration of a run, the first minibatch is measured and the result
    discarded, so that an error stops the run before any work is lost. Parameters that
    have no shape yet are zeros in this trial.

    With several ranks, it belongs on rank 0, with all examples.
    :func:`chainermn.create_multi_node_evaluator` would average the measurements of the
    ranks, and is refused.

    Like the Evaluator, it leaves the network as it found it and draws no random numbers
    itself. It changes neither the gradients nor the values that the classifier keeps
    from its last call.

    Args:
        iterator (~chainer.dataset.Iterator): An iterator that ends, made with
            ``repeat=False, shuffle=False``.
        target (~chainer.Link): The classifier: :class:`~chainer.links.Classifier`,
            :class:`~chainer_mmix.ManifoldMixupClassifier` or another link with a
            ``predictor`` and, where the measure needs it, a ``lossfun``.
        measure (callable): Called as ``measure(target, batches)`` in test mode.
            ``batches`` yields the inputs and targets of all examples as arrays; several
            inputs are a tuple or a dict of arrays. It returns a dict of numbers by
            name, or :class:`~chainer_mmix.analysis.findings.Findings`, which may
            include files. :mod:`chainer_mmix.analysis` has such functions.
        converter (~chainer.dataset.Converter): Converts a batch of examples to arrays.
        device (device specifier): The device to which the arrays are sent. By default,
            they stay where they are.
        eval_hook (callable): Called with this extension before each measurement, after
            states such as an LSTM's have been reset.

    Raises:
        TypeError: If the target has no predictor.
    """

    def __init__(
        self,
        iterator: chainer.dataset.Iterator,
        target: chainer.Link,
        measure: Callable,
        converter: Callable = concat_examples,
        device=None,
        eval_hook: Callable | None = None,
    ) -> None:
        if not isinstance(getattr(target, "predictor", None), chainer.Link):
            raise TypeError(
                f"{type(self).__name__} takes a classifier, a link with a predictor, "
                f"not {type(target).__name__}: wrap it in chainer.links.Classifier"
            )
        if not callable(measure):
            raise TypeError(f"measure must be a function, not {measure!r}")
        super().__init__(iterator, target, converter, device, eval_hook)
        self._measure = self._called = measure
        self._label_key = getattr(target, "label_key", -1)
        self._n_batch: int | None = None
        self._findings = Findings({})
        self._prefix: str | None = None

    @property
    def _mn_communicator(self) -> None:
        """Set by :func:`chainermn.create_multi_node_evaluator`, which is refused."""

    @_mn_communicator.setter
    def _mn_communicator(self, communicator: object) -> None:
        raise TypeError(
            f"{type(self).__name__} measures all examples together, of which the mean "
            "over ranks is something else: extend the Trainer of rank 0 with it, as it "
            "is, over the whole dataset"
        )

    @property
    def default_name(self) -> str:
        # Not "validation": the Trainer would number it, or the Evaluator after it.
        return type(self).__name__

    @property
    def name(self) -> str | None:
        """The prefix of the reported values."""
        return self._prefix

    @name.setter
    def name(self, name: str) -> None:
        is_default = name.startswith(self.default_name)  # a number may follow
        self._prefix = "validation" if is_default else name

    def initialize(self, trainer: chainer.training.Trainer) -> None:
        """Measures one minibatch, to see that it can."""
        if not trainer.is_before_training:
            return  # what it would draw for the data would be missing from the rest
        self._n_batch = 1
        target = self.get_target("main")
        scratch = chainer.Reporter()
        scratch.add_observer("main", target)
        scratch.add_observers("main", target.namedlinks(skipself=True))
        try:
            with (
                self._isolated(isolated_with_weights),
                chainer.using_config("train", False),
                scratch.scope({}),
                drawing_nothing(target.device),
            ):
                self._find()
        finally:
            self._n_batch = None

    def __call__(self, trainer: chainer.training.Trainer | None = None) -> dict:
        result = super().__call__(trainer)
        if trainer is not None:
            for filename, write in self._findings.files.items():
                path = Path(trainer.out, filename)
                with not_essential(path):
                    write(path)
        return result

    def evaluate(self) -> dict:
        """Returns the values, under the names that they have in the log."""
        observation: dict = {}
        with self._isolated(), reporter.report_scope(observation):
            self._findings = self._find()
            reporter.report(self._findings.values, self.get_target("main"))
        return observation

    def _find(self) -> Findings:
        if self.eval_hook:
            self.eval_hook(self)
        found = self.measure(self.get_target("main"))
        return found if isinstance(found, Findings) else Findings(found)

    def measure(self, target: chainer.Link) -> dict[str, float] | Findings:
        """Returns what was measured.

        Args:
            target (~chainer.Link): The classifier.
        """
        return self._measure(target, self.batches())

    def batches(self) -> Iterator[tuple]:
        """Yields inputs and targets, all examples once.

        The inputs are an array, a tuple of arrays or a dict of them.
        """
        iterator = self.get_iterator("main")
        iterator.reset()
        for examples in itertools.islice(iterator, self._n_batch):
            check_stop(self)
            batch = self.converter(examples, self.device)
            if isinstance(batch, dict):
                named = dict(batch)
                yield named, named.pop(self._label_key)
            else:
                x = list(batch)
                t = x.pop(self._label_key)
                yield x[0] if len(x) == 1 else tuple(x), t
