#!/usr/bin/env bash
# torch 2.13.0: torch.distributions.Beta(a, a) with a = 0.001 gives exactly 0.5 in about
# a quarter of all draws, in float64 too.
#
# Guess: almost every draw is next to 0 or 1. P(0.4 < x < 0.6) is 0.0004 by SciPy, and
# numpy.random agrees. At a = 0.01 torch agrees as well, so it is no matter of degree:
# below that, both gamma variates fall under the smallest normal number and are raised
# to it. A mixup whose alpha is scheduled towards 0 gets an even mixture there.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 scipy==1.17.0
"$work/venv/bin/python" - <<'PYTHON'
import numpy as np
import scipy.stats
import torch

for a in (0.01, 0.001):
    beta = scipy.stats.beta(a, a)
    exact = beta.cdf(0.6) - beta.cdf(0.4)
    draws = {"numpy": np.random.default_rng(0).beta(a, a, 100_000)}
    for dtype in (torch.float32, torch.float64):
        torch.manual_seed(0)
        parameter = torch.tensor(a, dtype=dtype)
        sample = torch.distributions.Beta(parameter, parameter).sample((100_000,))
        draws[str(dtype)] = sample.double().numpy()
    print(f"a = {a}: P(0.4 < x < 0.6) = {exact:.4f}")
    for name, x in draws.items():
        middle, half = ((x > 0.4) & (x < 0.6)).mean(), (x == 0.5).mean()
        print(f"  {name}: {middle:.4f} of the draws, {half:.4f} exactly 0.5")
        if name == "numpy" or a == 0.01:
            assert abs(middle - exact) < 0.002 and half == 0, (name, a)
        else:
            assert 0.2 < half < 0.3, (name, a)
PYTHON
