from __future__ import annotations

from collections.abc import Callable, Iterator

import chainer
from chainer import reporter
from chainer.dataset import concat_examples
from chainer.training import extensions

from chainer_mmix.training.seeds import kept_random_state


class PredictorEvaluator(extensions.Evaluator):
    """Base of evaluators that call the predictor of a classifier, not its loss.

    What they report stands in the log beside that of the
    :class:`~chainer.training.extensions.Evaluator`, under ``validation/main/``, or
    under the name that :meth:`~chainer.training.Trainer.extend` is given. They leave
    alone all that a training step uses: random state, gradients, statistics of batch
    normalisation, and what the classifier remembers of its last call.

    Args:
        iterator (~chainer.dataset.Iterator): An iterator that ends, made with
            ``repeat=False, shuffle=False``.
        target (~chainer.Link): The classifier: :class:`~chainer.links.Classifier`,
            :class:`~chainer_mmix.ManifoldMixupClassifier` or another link with a
            ``predictor``.
        converter (~chainer.dataset.Converter): Makes arrays of a batch of examples.
        device: Where to send them. The default leaves them where they are.
    """

    def __init__(
        self,
        iterator: chainer.dataset.Iterator,
        target: chainer.Link,
        converter: Callable = concat_examples,
        device=None,
    ) -> None:
        super().__init__(iterator, target, converter, device)
        self._label_key = getattr(target, "label_key", -1)
        self._prefix: str | None = None

    @property
    def default_name(self) -> str:
        # Not "validation": the Trainer would number it, or the Evaluator after it.
        return type(self).__name__

    @property
    def name(self) -> str | None:
        """What it reports begins with this."""
        return self._prefix

    @name.setter
    def name(self, name: str) -> None:
        is_default = name.startswith(self.default_name)  # a number may follow
        self._prefix = "validation" if is_default else name

    def evaluate(self) -> dict:
        """Returns the values, under the names that they have in the log."""
        target = self.get_target("main")
        observation: dict = {}
        with kept_random_state(), reporter.report_scope(observation):
            reporter.report(self.measure(target), target)
        return observation

    def measure(self, target: chainer.Link) -> dict[str, float]:
        """Returns the values by their short names.

        Args:
            target (~chainer.Link): The classifier.
        """
        raise NotImplementedError

    def batches(self) -> Iterator[tuple]:
        """Yields inputs and labels, all examples once.

        The inputs are an array, a tuple of arrays or a dict of them.
        """
        iterator = self.get_iterator("main")
        iterator.reset()
        for examples in iterator:
            batch = self.converter(examples, self.device)
            if isinstance(batch, dict):
                x = dict(batch)
                yield x, x.pop(self._label_key)
            else:
                x = list(batch)
                t = x.pop(self._label_key)
                yield x[0] if len(x) == 1 else tuple(x), t
