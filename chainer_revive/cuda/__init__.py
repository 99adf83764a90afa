"""Optimizers with one CUDA kernel for all parameters, and one for a loss.

Chainer launches a few kernels for each parameter. Here a step of MomentumSGD,
NesterovAG, Adam or AdamW, with weight decay, is one kernel, and two more with gradient
clipping; so is the check of all gradients that dynamic loss scaling makes. State and
hyperparameters stay where Chainer keeps them, so snapshots may be exchanged. What is
not covered goes to Chainer's code. Gradients stay as they were computed;
Chainer's hooks leave theirs decayed and clipped. The softmax cross entropy of weighted
labels, with its gradient, is one kernel, and accuracy is one.

Used once it has computed right on the card where it is to run, or if the environment
has ``CHAINER_MMIX_CUDA=1`` (docs/graphs.md).
"""

import chainer  # noqa: F401  (Chainer comes first)
