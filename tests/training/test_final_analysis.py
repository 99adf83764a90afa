import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.dataset import DatasetMixin
from chainer.datasets import TransformDataset, TupleDataset

from chainer_mmix import ManifoldMixupClassifier, MixupLayers, training

LABELS = np.arange(60, dtype=np.int32) % 3
rng = np.random.RandomState(0)
BRIGHT = rng.randint(2, size=(60, 1, 8, 8)).astype(np.float32)
BRIGHT *= np.nextafter(np.float32(1), np.float32(2))  # as by resizing
WIDE = rng.randn(60, 1, 8, 8).astype(np.float32)


class OwnDataset(DatasetMixin):
    """Which Python cannot iterate over, since no index is out of range."""

    def __init__(self, images):
        self.images = images
        self.n_read = 0

    def __len__(self):
        return len(self.images)

    def get_example(self, i):
        self.n_read += 1
        assert self.n_read < 10 * len(self)
        return self.images[i % len(self)], LABELS[i % len(self)]


@pytest.mark.parametrize(
    "images, bounds",
    [(BRIGHT, (0, 1)), (BRIGHT.clip(0, 1), (0, 1)), (WIDE, (-np.inf, np.inf))],
)
def test_an_attack_stays_in_the_range_of_images_alone(images, bounds, tmp_path):
    weights = np.random.RandomState(0).randn(3, 64)
    net = MixupLayers(L.Linear(64, 3, initialW=weights), ["input"])
    model = ManifoldMixupClassifier(net, seed=0)
    optimizer = chainer.optimizers.SGD(0.001).setup(model)
    train = TupleDataset(images, LABELS)
    options = {"epoch": 1, "batchsize": 6, "device": chainer.get_device("@numpy")}
    trainer = training.build_trainer(
        optimizer, train, train, out=tmp_path, quiet=True, **options
    )
    training.analyse(trainer, train, OwnDataset(images), **options)
    trainer.run()
    x = chainer.Variable(images)
    with chainer.using_config("train", False):
        F.softmax_cross_entropy(model.predictor(x), LABELS).backward()
        attacked = images + np.float32(0.1) * np.sign(x.grad)
        y = model.predictor(attacked.clip(*bounds)).array
    expected = (y.argmax(axis=1) == LABELS).mean()
    (entry,) = trainer.get_extension("LogReport").log
    found = entry["validation/main/fgsm_accuracy/0.1"]
    assert found == pytest.approx(expected, abs=1e-6)
    if bounds == (0, 1):
        y = model.predictor(attacked).array
        assert (y.argmax(axis=1) == LABELS).mean() != expected


def test_images_that_are_drawn_anew_leave_the_training_the_same(tmp_path):
    def noisy(example):
        x, t = example
        return x + np.random.randn(*x.shape).astype(np.float32), t

    images = TransformDataset(TupleDataset(WIDE, LABELS), noisy)
    options = {"epoch": 2, "batchsize": 6, "device": chainer.get_device("@numpy")}

    def losses(is_analysed):
        np.random.seed(0)
        net = MixupLayers(L.Linear(64, 3, initialW=0), ["input"])
        model = ManifoldMixupClassifier(net, seed=0)
        optimizer = chainer.optimizers.SGD(0.01).setup(model)
        out = tmp_path / str(is_analysed)
        trainer = training.build_trainer(
            optimizer, images, images, out=out, quiet=True, **options
        )
        if is_analysed:
            training.analyse(trainer, images, images, **options)
        training.run(trainer, None)
        log = trainer.get_extension("LogReport").log
        assert training.is_analysed(trainer) == is_analysed
        return [entry["main/loss"] for entry in log]

    assert losses(True) == losses(False)
