"""The fused mix against ``lam * x + (1 - lam) * x[perm]``, forward and backward."""

from __future__ import annotations

import chainer
import numpy as np
from paired import measure, report

from chainer_mmix import mix


def main() -> None:
    for shape in ((64, 3, 32, 32), (64, 256, 8, 8), (64, 1024)):
        x = chainer.Variable(np.random.rand(*shape).astype(np.float32))
        gy = np.random.rand(*shape).astype(np.float32)
        perm = np.random.permutation(len(x))

        def run(function, x=x, gy=gy, perm=perm):
            y = function(x, 0.3, perm)
            y.grad = gy
            y.backward()
            x.cleargrad()

        def naive(x, lam, perm):
            return lam * x + (1 - lam) * x[perm]

        candidates = {
            "naive": lambda run=run: run(naive),
            "fused": lambda run=run: run(mix),
        }
        report(f"mix, forward and backward, {shape}", measure(candidates, 200))


if __name__ == "__main__":
    main()
