import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.backends import cuda

import chainer_revive


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


def train(dtype, initial, device="@numpy"):
    """Three steps and an evaluation; returns losses, logits and what was learnt."""
    device = chainer.get_device(device)
    with chainer.using_config("dtype", dtype):
        model = L.Classifier(Net())
        x_dtype = chainer.get_dtype()
    pairs = zip(sorted(model.namedparams()), sorted(initial.namedparams()), strict=True)
    for (_, p), (_, q) in pairs:
        p.array[...] = q.array
    model.to_device(device)
    device.use()
    optimizer = chainer.optimizers.MomentumSGD(0.05)
    if dtype == chainer.mixed16:
        optimizer.use_fp32_update()
    optimizer.setup(model).add_hook(chainer.optimizer_hooks.WeightDecay(1e-3))
    random = np.random.RandomState(0)
    t = device.send(np.arange(6, dtype=np.int32) % 5)
    losses = []
    for _ in range(3):
        x = device.send(random.uniform(-1, 1, (6, 3, 10, 8)).astype(x_dtype))
        optimizer.update(model, x, t)
        losses.append(float(model.loss.array))
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        logits = model.predictor(x).array
    statistics = [v for _, v in sorted(averages(model).items())]
    params = [p.array for _, p in sorted(model.namedparams())]
    return [np.array(losses), *map(cuda.to_cpu, (logits, *params, *statistics))]


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


@pytest.mark.gpu
@pytest.mark.parametrize(
    "dtype, tensor_cores, eps",
    [
        (np.float32, "auto", 0.02),
        (np.float32, "never", 1e-3),
        (np.float16, "auto", 0.1),
        (chainer.mixed16, "auto", 0.1),
    ],
)
def test_on_a_gpu(on_gpu, compare, initial, dtype, tensor_cores, eps):
    """cuDNN beside float64 on the CPU, and beside Chainer's own code on the GPU."""
    expected = train(np.float64, initial)
    with chainer.using_config("use_cudnn_tensor_core", tensor_cores):
        actual = train(dtype, initial, "@cupy:0")
        compare(actual, expected, eps)
        chainer_revive.use(cudnn=False)
        own = train(dtype, initial, "@cupy:0")
    compare(actual, [a.astype("d") for a in own], eps)
