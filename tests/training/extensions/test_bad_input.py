import chainer
import numpy as np
import pytest
from chainer.iterators import SerialIterator

from chainer_mmix import ManifoldMixupClassifier, models, training
from chainer_mmix.training.extensions import (
    CalibrationEvaluator,
    DeformationEvaluator,
    Evaluator,
    FgsmEvaluator,
)

EXAMPLES = [(np.zeros((3, 8, 8), np.float32), np.int32(0))] * 4


def classifier():
    return ManifoldMixupClassifier(models.CNN(10), seed=0)


def iterator(data):
    return SerialIterator(data, 2, repeat=False, shuffle=False)


@pytest.mark.parametrize(
    "evaluator", [Evaluator, CalibrationEvaluator, DeformationEvaluator, FgsmEvaluator]
)
def test_an_empty_validation_set(evaluator):
    message = f"the iterator 'main' of {evaluator.__name__} has no examples"
    with pytest.raises(ValueError, match=message):
        evaluator(iterator([]), classifier())


@pytest.mark.parametrize(
    "train, test, name", [([], EXAMPLES, "train"), (EXAMPLES, [], "test")]
)
def test_a_trainer_without_examples(tmp_path, train, test, name):
    optimizer = chainer.optimizers.SGD().setup(classifier())
    device = chainer.get_device("@numpy")
    with pytest.raises(ValueError, match=f"{name} has no examples"):
        training.build_trainer(
            optimizer, train, test, epoch=1, batchsize=2, out=tmp_path, device=device
        )


def test_eps_that_is_a_number():
    with pytest.raises(TypeError, match=r"eps must be a list: \[0.1\]"):
        FgsmEvaluator(iterator(EXAMPLES), classifier(), eps=0.1)


@pytest.mark.parametrize("eps", [["a"], "0.1", [-0.1], [np.nan], [np.inf], [None]])
def test_eps_that_are_no_sizes(eps):
    with pytest.raises(ValueError, match="each eps must be a finite number >= 0, not"):
        FgsmEvaluator(iterator(EXAMPLES), classifier(), eps=eps)


@pytest.mark.parametrize("clip", [1, (1, 0), (0, 0), (0,), "01", (0, np.nan)])
def test_a_range_that_is_none(clip):
    with pytest.raises(ValueError, match="clip must be None or a lower and a higher"):
        FgsmEvaluator(iterator(EXAMPLES), classifier(), clip=clip)


@pytest.mark.parametrize("n_bins", [0, -1, 1.5, "a"])
def test_a_number_of_bins_that_is_none(n_bins):
    with pytest.raises(ValueError, match="n_bins must be a whole number >= 1"):
        CalibrationEvaluator(iterator(EXAMPLES), classifier(), n_bins=n_bins)


def test_a_label_beyond_the_logits():
    data = [(EXAMPLES[0][0], np.int32(12))]
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 10\)"):
        FgsmEvaluator(iterator(data), classifier())()


@pytest.mark.parametrize("seed", [-1, 2**32, "a", 1.5, None])
def test_a_seed_that_is_none(seed):
    with pytest.raises(ValueError, match="seed must be a whole number in"):
        training.set_seed(seed, chainer.get_device("@numpy"))
