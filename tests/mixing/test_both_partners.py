"""A loss or an accuracy of one's own, called for both partners as if called once."""

import collections
import functools
import warnings

import chainer
import chainer.functions as F
import numpy as np
import pytest

from chainer_mmix.mixing import mixup_criterion, mixup_score

rng = np.random.RandomState(0)
Y = rng.randn(6, 3).astype(np.float32)
A, B = rng.randint(0, 3, (2, 6)).astype(np.int32)
LAM = np.array([0.1, 0.9, 0.5, 1, 0, 0.3])


def entropies(t):
    y = Y.astype(np.float64)
    return np.log(np.exp(y).sum(1)) - y[np.arange(6), t]


def observed(function, *args):
    reporter = chainer.Reporter()
    with reporter:
        result = function(*args)
    return result, reporter.observation


class Parts:
    """Reports its parts, in one number each or in one a sample."""

    def __init__(self, reduce="mean"):
        self.reduce = reduce
        self.calls = 0

    def __call__(self, y, t):
        self.calls += 1
        ce = F.softmax_cross_entropy(y, t, reduce=self.reduce)
        penalty = F.mean(y**2)
        chainer.report({"ce": ce, "penalty": penalty, "n": 3, "what": "ce"})
        return ce + 0.1 * penalty.array


def test_reported_parts_are_weighted_and_add_up_to_the_loss():
    loss = Parts()
    result, seen = observed(mixup_criterion, loss, Y, A, B, 0.3)
    ce = 0.3 * entropies(A).mean() + 0.7 * entropies(B).mean()
    np.testing.assert_allclose(float(seen["ce"].array), ce, rtol=1e-6)
    np.testing.assert_allclose(float(seen["penalty"].array), (Y**2).mean(), rtol=1e-6)
    np.testing.assert_allclose(result.array, ce + 0.1 * (Y**2).mean(), rtol=1e-6)
    assert seen["n"] == pytest.approx(3) and seen["what"] == "ce"
    assert loss.calls == 1
    assert isinstance(seen["ce"], chainer.Variable) and seen["ce"].creator is None


def test_parts_of_one_value_a_sample_are_weighted_by_their_lambda():
    result, seen = observed(mixup_criterion, Parts("no"), Y, A, B, LAM)
    ce = (LAM * entropies(A) + (1 - LAM) * entropies(B)).mean()
    np.testing.assert_allclose(float(seen["ce"].array), ce, rtol=1e-6)
    # The same for both partners, whatever their weights.
    np.testing.assert_allclose(float(seen["penalty"].array), (Y**2).mean(), rtol=1e-6)
    np.testing.assert_allclose(result.array, ce + 0.1 * (Y**2).mean(), rtol=1e-6)


def test_a_part_that_cannot_be_weighted_is_left_out_and_named():
    def lossfun(y, t):
        chainer.report({"ce": F.softmax_cross_entropy(y, t)})
        return F.softmax_cross_entropy(y, t, reduce="no")

    with pytest.warns(UserWarning, match="ce, which .* one value a sample"):
        _, seen = observed(mixup_criterion, lossfun, Y, A, B, LAM)
    assert seen == {}


def test_names_of_links_are_kept_and_nothing_is_reported_without_a_reporter():
    class Head(chainer.Chain):
        def __call__(self, y, t):
            chainer.report({"ce": F.softmax_cross_entropy(y, t)}, self)
            return F.softmax_cross_entropy(y, t)

    head, reporter = Head(), chainer.Reporter()
    reporter.add_observer("head", head)
    with reporter:
        loss = mixup_criterion(head, Y, A, B, 0.3)
    assert reporter.observation.keys() == {"head/ce"}
    assert float(reporter.observation["head/ce"].array) == float(loss.array)
    mixup_criterion(Parts(), Y, A, B, 0.3)


class Centers:
    """Distance to class centres, which each call moves."""

    def __init__(self):
        self.centers = np.zeros((3, 3), np.float32)
        self.history, self.calls = [], 0
        self.recent = collections.deque(maxlen=2)
        self.seen = {}

    def __call__(self, y, t):
        y = chainer.as_variable(y)
        distance = F.mean((y - self.centers[t]) ** 2)
        for c in set(t.tolist()):
            self.centers[c] += 0.5 * (y.array[t == c].mean(axis=0) - self.centers[c])
        self.calls += 1
        self.history.append(float(distance.array))
        self.recent.append(self.calls)
        self.seen[self.calls] = t[0]
        self.last = t.copy()
        return distance

    def method(self, y, t):
        return self(y, t)


class CentersOfALink(chainer.Link):
    def __init__(self):
        super().__init__()
        self.add_persistent("centers", np.zeros((3, 3), np.float32))
        self.calls = 0
        with self.init_scope():
            self.scale = chainer.Parameter(np.ones((), np.float32))

    def forward(self, y, t):
        self.calls += 1
        self.h = chainer.Variable(y) + (self.h if self.calls > 1 else 0)
        distance = F.mean((y - self.centers[t]) ** 2)
        self.centers = self.centers + 1
        return distance * self.scale


class HoldsALink:
    def __init__(self):
        self.link = CentersOfALink()

    def __call__(self, y, t):
        return self.link(y, t)


@pytest.mark.parametrize("of", [lambda c: c, lambda c: c.method, functools.partial])
def test_a_state_moves_once_a_step_as_by_the_first_partners(of):
    loss, once = Centers(), Centers()
    centers, history = loss.centers, loss.history
    for _ in range(3):
        before = loss.centers.copy()
        result = mixup_criterion(of(loss), Y, A, B, 0.3).array
        # Both partners meet the same centres.
        a, b = (((Y - before[t]) ** 2).mean() for t in (A, B))
        np.testing.assert_allclose(result, 0.3 * a + 0.7 * b, rtol=1e-6)
        once(Y, A)
    assert loss.centers is centers and loss.history is history
    for own, wanted in zip(vars(loss).values(), vars(once).values(), strict=True):
        np.testing.assert_array_equal(own, wanted)


@pytest.mark.parametrize("kind", [CentersOfALink, HoldsALink])
def test_a_state_of_links_moves_once_and_their_parameters_get_gradients(kind):
    loss = kind()
    link = getattr(loss, "link", loss)
    mixup_criterion(loss, Y, A, B, 0.3).backward()
    assert link.calls == 1 and (link.centers == 1).all()
    mixup_criterion(loss, Y, A, B, 0.3)
    np.testing.assert_allclose(link.h.array, 2 * Y)
    link.centers[...] = 0
    link.cleargrads()
    mixup_criterion(loss, Y, A, B, 0.3).backward()
    np.testing.assert_allclose(link.scale.grad, (Y**2).mean(), rtol=1e-6)


def test_an_accuracy_of_ones_own_is_weighted_whatever_the_targets():
    def accfun(y, t):
        t = chainer.as_array(t)
        return F.accuracy(y, t.argmax(1) if t.dtype.kind == "f" else t)

    hits = [(Y.argmax(1) == t).mean() for t in (A, B)]
    expected = 0.3 * hits[0] + 0.7 * hits[1]
    soft = [np.eye(3, dtype=np.float32)[t] for t in (A, B)]
    for targets in ((A, B), soft):
        accuracy = mixup_score(accfun, Y, *targets, 0.3)
        assert float(accuracy.array) == pytest.approx(expected)
        with pytest.raises(ValueError, match="let it return one value a sample"):
            mixup_score(accfun, Y, *targets, LAM)


def test_an_accuracy_of_one_value_a_sample():
    def hits(y, t):
        return chainer.as_array(y).argmax(1) == chainer.as_array(t)

    accuracy = mixup_score(hits, Y, A, B, LAM)
    expected = LAM * (Y.argmax(1) == A) + (1 - LAM) * (Y.argmax(1) == B)
    assert float(accuracy.array) == pytest.approx(expected.mean())
    # A number of Python will do too.
    assert mixup_score(lambda y, t: float((t == A).all()), Y, A, B, 0.3) == 0.3


def test_a_score_of_numbers_is_that_of_the_mixed_numbers():
    a, b = rng.randn(2, 6, 3).astype(np.float32)
    target = 0.3 * a + 0.7 * b
    error = ((Y - target) ** 2).sum(0)
    r2 = (1 - error / ((target - target.mean(0)) ** 2).sum(0)).mean()
    score = mixup_score(F.r2_score, Y, a, b, 0.3)
    np.testing.assert_allclose(score.array, r2, rtol=1e-4)
    score = mixup_score(F.mean_absolute_error, Y, a, b, 0.3)
    np.testing.assert_allclose(score.array, np.abs(Y - target).mean(), rtol=1e-6)


def test_functions_of_chainer_are_called_as_they_are():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss = mixup_criterion(F.hinge, Y, A, B, 0.3)
    expected = 0.3 * F.hinge(Y, A).array + 0.7 * F.hinge(Y, B).array
    np.testing.assert_allclose(loss.array, expected, rtol=1e-6)
