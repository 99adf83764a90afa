"""Twelve steps against the published code in PyTorch; see ``published_steps.py``."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import chainer
import numpy as np
import pytest
from chainer.serializers import DictionarySerializer

from chainer_mmix import ManifoldMixupClassifier, MixupPolicy
from chainer_mmix.mixing import MixupDraw, softmax_binary_cross_entropy
from chainer_mmix.models import PreActResNet18, WideResNet
from chainer_mmix.training import SGD

SCRIPT = runpy.run_path(Path(__file__).with_name("published_steps.py"))
theirs = SimpleNamespace(**SCRIPT)
RATES = theirs.LR, theirs.MOMENTUM, theirs.DECAY

NETWORKS = {
    "preactresnet18": lambda **more: PreActResNet18(5, width=2, **more),
    "wideresnet10": lambda **more: WideResNet(5, 10, 1, **more),
}


class Planned(MixupPolicy):
    """Draws what it is told to."""

    def draw(self, batch_size, points=()):
        return self.next


def train(net, optimizer):
    """Returns losses, weights and running statistics after twelve steps."""
    net(np.zeros((2, 3, 8, 8)))  # which initializes, and sets running statistics
    for link in net.links():
        if isinstance(link, chainer.links.BatchNormalization):
            link.avg_mean[...], link.avg_var[...] = 0, 1
    first = theirs.draw({k.lstrip("/"): p.shape for k, p in net.namedparams()})
    for name, param in net.namedparams():
        param.array[...] = first[name.lstrip("/")]
    policy = Planned()
    model = ManifoldMixupClassifier(
        net, lossfun=softmax_binary_cross_entropy, policy=policy
    )
    optimizer.setup(model)
    losses = []
    for step, (x, t, lam, perm, point) in enumerate(theirs.batches()):
        policy.next = MixupDraw(point, lam, perm)
        optimizer.lr = theirs.rate(step)
        optimizer.update(model, x, t)
        losses.append(model.loss.array)
    serializer = DictionarySerializer()
    serializer.save(net)
    return {"losses": np.array(losses)} | {
        name: theirs.thin(np.asarray(value))
        for name, value in serializer.target.items()
        if not name.endswith(("/N", "published"))
    }


def largest_difference(name, net, optimizer):
    with chainer.using_config("dtype", np.float64), np.load(theirs.FILE) as file:
        ours = train(net(), optimizer)
        wanted = {
            key.removeprefix(f"{name}/"): file[key]
            for key in file.files
            if key.startswith(f"{name}/")
        }
    assert ours.keys() == wanted.keys()
    return max(np.abs(ours[key] - wanted[key]).max() for key in wanted)


@pytest.mark.parametrize("name", NETWORKS)
def test_twelve_steps_are_the_published_codes(name):
    optimizer = SGD(*RATES, nesterov=True)
    network = NETWORKS[name]
    assert largest_difference(name, lambda: network(published=True), optimizer) < 1e-12


def test_chainers_own_differ():
    """In eps alone, and in the optimizer alone."""
    network = NETWORKS["preactresnet18"]
    ours = SGD(*RATES, nesterov=True)
    assert largest_difference("preactresnet18", network, ours) > 1e-6
    chainers = chainer.optimizers.NesterovAG(*RATES[:2])

    def published():
        return network(published=True)

    assert largest_difference("preactresnet18", published, chainers) > 1e-3
