"""The fused two-target cross entropy against two calls of Chainer's."""

from __future__ import annotations

import chainer
import chainer.functions as F
import numpy as np
from paired import measure, report

from chainer_mmix.mixing import mixup_softmax_cross_entropy


def two_calls(x, a, b, lam):
    return lam * F.softmax_cross_entropy(x, a) + (1 - lam) * F.softmax_cross_entropy(
        x, b
    )


def main() -> None:
    for shape in ((64, 10), (256, 1000), (4, 21, 128, 128)):
        x = chainer.Variable(np.random.randn(*shape).astype(np.float32))
        labels = (shape[0], *shape[2:])
        a, b = np.random.randint(0, shape[1], (2, *labels)).astype(np.int32)

        def run(loss, x=x, a=a, b=b):
            loss(x, a, b, 0.3).backward()
            x.cleargrad()

        candidates = {
            "two calls": lambda run=run: run(two_calls),
            "fused": lambda run=run: run(mixup_softmax_cross_entropy),
        }
        report(f"cross entropy, forward and backward, {shape}", measure(candidates, 60))


if __name__ == "__main__":
    main()
