import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest


class Net(chainer.Chain):
    """Everything that a residual network is made of."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv1 = L.Convolution2D(3, 8, 3, 1, 1, nobias=True)
            self.bn1 = L.BatchNormalization(8)
            self.conv2 = L.Convolution2D(8, 8, 3, 1, 1, groups=2, nobias=True)
            self.bn2 = L.BatchNormalization(8)
            self.conv3 = L.DilatedConvolution2D(8, 6, 3, 2, 2, dilate=2)
            self.deconv = L.Deconvolution2D(6, 4, 2, 2)
            self.fc = L.Linear(4, 5)

    def forward(self, x):
        x = h = F.relu(self.bn1(self.conv1(x)))
        h = F.max_pooling_2d(self.bn2(self.conv2(h)) + x, 2)
        h = self.deconv(F.average_pooling_2d(self.conv3(h), 2, 1))
        return self.fc(F.average(h, axis=(2, 3)))


def train(dtype, initial=None):
    """Three steps and an evaluation; returns losses, parameters and logits."""
    with chainer.using_config("dtype", dtype):
        model = L.Classifier(Net())
    if initial is not None:
        for (_, p), (_, q) in zip(
            sorted(model.namedparams()), sorted(initial.namedparams()), strict=True
        ):
            p.array[...] = q.array
    optimizer = chainer.optimizers.MomentumSGD(0.05)
    if dtype == chainer.mixed16:
        optimizer.use_fp32_update()
    optimizer.setup(model).add_hook(chainer.optimizer_hooks.WeightDecay(1e-3))
    random = np.random.RandomState(0)
    t = np.arange(6, dtype=np.int32) % 5
    x_dtype = np.float16 if dtype == chainer.mixed16 else dtype
    losses = []
    for _ in range(3):
        x = random.uniform(-1, 1, (6, 3, 10, 8)).astype(x_dtype)
        optimizer.update(model, x, t)
        losses.append(model.loss.array)
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        logits = model.predictor(x).array
    statistics = [v for _, v in sorted(averages(model).items())]
    params = [p.array for _, p in sorted(model.namedparams())]
    return [np.array(losses), logits, *params, *statistics]


def averages(model):
    serializer = chainer.serializers.DictionarySerializer()
    serializer.save(model)
    return {k: v for k, v in serializer.target.items() if "avg_" in k}


@pytest.fixture
def initial():
    np.random.seed(0)
    with chainer.using_config("dtype", np.float16):
        return L.Classifier(Net())


@pytest.mark.parametrize(
    "dtype, eps", [(np.float32, 1e-4), (np.float16, 0.05), (chainer.mixed16, 0.05)]
)
def test_as_chainers_own(fake, compare, initial, dtype, eps):
    expected = train(np.float64, initial)
    with fake() as executor:
        actual = train(dtype, initial)
    assert len(executor.operations) == 3 * (4 + 4 + 3 + 4) + 4
    compare(actual, expected, eps)
