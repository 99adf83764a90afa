#!/usr/bin/env bash
# kornia 0.9.0: the lambda that RandomMixUpV2 gives is the weight of the second label.
#
# Guess: the third column of the labels is lambda as in the mixup authors' code, the
# weight of the sample's own label, so that their criterion, lam * loss(a) + (1 - lam) *
# loss(b), takes the columns as they come; drawn once a batch from a Beta. Seen: images
# are (1 - lam) * own + lam * partner, and lam is uniform in [0, 1], one a sample. The
# usual criterion weighs both labels the wrong way round, and nothing fails.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 kornia==0.9.0 numpy==2.4.6 scipy==1.17.0
"$work/venv/bin/python" - <<'PYTHON'
import scipy.stats
import torch
from kornia.augmentation import RandomMixUpV2

torch.manual_seed(0)
n = 512
labels = torch.arange(n)
images = labels.float()[:, None, None, None].expand(n, 1, 4, 4).clone()
mix = RandomMixUpV2(p=1.0, data_keys=["input", "class"])
mixed, out = mix(images, labels)
own, partner, lam = out.double().T
value = mixed[:, 0, 0, 0].double()
guess = (lam * own + (1 - lam) * partner - value).abs().max()
seen = ((1 - lam) * own + lam * partner - value).abs().max()
uniform = scipy.stats.kstest(lam.numpy(), "uniform").pvalue
print(f"lam * own + (1 - lam) * partner is off by up to {guess:.3g} of {n - 1}")
print(f"(1 - lam) * own + lam * partner is off by up to {seen:.3g}")
print(f"{len(lam.unique())} lambdas for {n} samples; uniform: p = {uniform:.2f}")
assert torch.equal(own, labels.double())
assert guess > 100 and seen < 1e-3
assert len(lam.unique()) == n and uniform > 0.01
PYTHON
