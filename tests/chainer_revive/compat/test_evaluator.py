import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.iterators import SerialIterator
from chainer.training.extensions import Evaluator

N, RNG = 23, np.random.RandomState(0)
DATA = [(RNG.randn(5).astype("f"), RNG.randint(3)) for _ in range(N)]


@pytest.mark.parametrize("batch_size", [1, 4, 7, 22, 23])
def test_every_example_counts_alike(batch_size):
    model = L.Classifier(L.Linear(5, 3))
    iterator = SerialIterator(DATA, batch_size, repeat=False, shuffle=False)
    result = Evaluator(iterator, model)()
    y = np.stack([x for x, _ in DATA]).astype("d") @ model.predictor.W.array.T
    t = np.array([t for _, t in DATA])
    assert float(result["main/accuracy"]) == pytest.approx((y.argmax(1) == t).mean())
    loss = (np.log(np.exp(y).sum(1)) - y[np.arange(N), t]).mean()
    assert float(result["main/loss"]) == pytest.approx(loss, rel=1e-5)


def test_a_weight_that_is_reported_stays():
    def report(x, t):
        # The mean of the labels that are not 0.
        counted = t[t != 0]
        chainer.report({"label": (counted.sum() / max(len(counted), 1), len(counted))})

    link = L.Classifier(L.Linear(5, 3), F.softmax_cross_entropy)
    iterator = SerialIterator(DATA, 4, repeat=False, shuffle=False)
    result = Evaluator(iterator, link, eval_func=report)()
    labels = np.array([t for _, t in DATA])
    assert float(result["label"]) == pytest.approx(labels[labels != 0].mean())
