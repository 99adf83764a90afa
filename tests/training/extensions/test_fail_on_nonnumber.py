from types import SimpleNamespace

import chainer
import chainer.links as L
import numpy as np
import pytest

from chainer_mmix.training.extensions import DivergedError, FailOnNonNumber


def trainer(loss, iteration=1, is_new_epoch=False, weight=0.0, key="main/loss"):
    link = chainer.Sequential(L.Linear(1, 1, initialW=weight), L.Linear(None, 1))
    optimizer = chainer.optimizers.SGD().setup(link)
    updater = SimpleNamespace(
        iteration=iteration,
        is_new_epoch=is_new_epoch,
        epoch=1,
        get_all_optimizers=lambda: {"other": optimizer},
    )
    return SimpleNamespace(updater=updater, observation={key: loss})


@pytest.mark.parametrize("loss", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("wrap", [float, np.float32, chainer.Variable])
def test_loss_is_checked(loss, wrap):
    loss = wrap(np.array(loss, np.float32))
    with pytest.raises(DivergedError, match=r"loss became -?(nan|inf) in epoch 2"):
        FailOnNonNumber()(trainer(loss))


def test_loss_is_checked_at_the_interval_and_at_the_end_of_an_epoch():
    extension = FailOnNonNumber(interval=20)
    extension(trainer(np.nan, iteration=19))
    with pytest.raises(DivergedError, match="iteration 20"):
        extension(trainer(np.nan, iteration=20))
    with pytest.raises(DivergedError, match=r"epoch 1 \(iteration 21"):
        extension(trainer(np.nan, iteration=21, is_new_epoch=True))


def test_parameters_are_checked_at_the_end_of_an_epoch():
    FailOnNonNumber()(trainer(1.0, weight=np.nan))
    with pytest.raises(DivergedError, match="parameter"):
        FailOnNonNumber()(trainer(1.0, weight=np.nan, is_new_epoch=True))


def test_good_numbers_pass():
    FailOnNonNumber()(trainer(1e30, is_new_epoch=True))


@pytest.mark.parametrize("key", ["dis/loss", "gen/loss_adv", "main/net/l2_loss"])
def test_other_losses_are_checked(key):
    with pytest.raises(DivergedError, match=f"{key} became nan in epoch 2"):
        FailOnNonNumber()(trainer(np.float32(np.nan), key=key))


@pytest.mark.parametrize("key", ["main/accuracy", "loss/share"])
def test_what_is_no_loss_may_be_infinite(key):
    FailOnNonNumber()(trainer(np.inf, key=key))
