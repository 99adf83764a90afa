from __future__ import annotations

from chainer.optimizer import GradientMethod


def update_after_backward(optimizer, lossfun, args, kwds):
    """Computes the gradients of a loss as Chainer does, and updates by them.

    Args:
        optimizer (~chainer.optimizer.GradientMethod): The optimizer.
        lossfun, args, kwds: As its ``update`` was called.
    """
    loss = lossfun(*args, **kwds)
    if getattr(optimizer, "_use_cleargrads", True):
        optimizer.target.cleargrads()
    else:
        optimizer.target.zerograds()
    loss.backward(loss_scale=optimizer._loss_scale)
    del loss
    return GradientMethod.update(optimizer)
