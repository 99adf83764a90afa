import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

from chainer_mmix import ManifoldMixupClassifier, datasets, mixup_data, training


class Net(chainer.Chain):
    """A tiny network with two mixing points and batch statistics."""

    mixup_layers = (0, 1)

    def __init__(self, n_unit=8, n_class=10):
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(None, n_unit)
            self.bn = L.BatchNormalization(n_unit)
            self.l2 = L.Linear(n_unit, n_class)

    def forward(self, x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
        h = x
        target_a = target_b = target
        for point, stage in enumerate((lambda x: x, self._stage1)):
            h = stage(h)
            if mixup_hidden and point == layer_mix:
                h, target_a, target_b = mixup_data(h, target, lam)
        y = self.l2(h)
        return (y, target_a, target_b) if mixup_hidden else y

    def _stage1(self, x):
        return F.relu(self.bn(self.l1(x)))


@pytest.fixture
def make_trainer():
    """Makes a Trainer as the command line does, but of a tiny network."""

    def make(
        out,
        seed=0,
        epoch=2,
        lr=0.01,
        optimizer="adam",
        net=Net,
        augment=True,
        alpha=1.0,
        size=50,
        loss_scale=None,
        **kwargs,
    ):
        device = chainer.get_device("@numpy")
        training.set_seed(seed, device)
        train, test = datasets.load(
            datasets.DATASETS["digits"],
            name="digits",
            train_size=size,
            augment=augment,
            seed=seed,
        )
        model = ManifoldMixupClassifier(net(), mixup_alpha=alpha, seed=seed)
        optimizer = training.make_optimizer(optimizer, model, lr)
        training.scale_loss(optimizer, loss_scale)
        return training.build_trainer(
            optimizer,
            train,
            test[:30],
            epoch=epoch,
            batchsize=16,  # does not divide the size, so epochs end inside a batch
            out=out,
            device=device,
            quiet=True,
            **kwargs,
        )

    return make


@pytest.fixture
def log_of():
    """Reads the log of a Trainer without its times."""

    def read(trainer):
        log = trainer.get_extension("LogReport").log
        return [{k: v for k, v in e.items() if k != "elapsed_time"} for e in log]

    return read


@pytest.fixture
def serialized():
    """Copies all that a link or a policy saves."""

    def copy(obj):
        values = chainer.serializers.npz.serialize(obj)
        return {key: np.array(value) for key, value in values.items()}

    return copy
