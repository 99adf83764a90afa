import math

import chainer
import numpy as np
import pytest

from chainer_mmix.training import find_snapshot, load_snapshot
from chainer_mmix.training.extensions import LearningRate


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "momentum_sgd", "nesterov"])
def test_rate_in_force_is_logged(tmp_path, make_trainer, log_of, optimizer):
    trainer = make_trainer(
        tmp_path, epoch=4, lr=0.01, lr_drop=[1, 3], optimizer=optimizer
    )
    trainer.run()
    rates = [entry["lr"] for entry in log_of(trainer)]
    np.testing.assert_allclose(rates, [0.01, 0.001, 0.001, 0.0001])


def test_a_resumed_run_takes_a_new_rate(tmp_path, make_trainer, log_of):
    make_trainer(tmp_path, epoch=2, lr=0.1, lr_drop=[1]).run()
    trainer = make_trainer(tmp_path, epoch=3, lr=0.01, lr_drop=[1])
    load_snapshot(find_snapshot(tmp_path), trainer)
    trainer.run()
    rates = [entry["lr"] for entry in log_of(trainer)]
    np.testing.assert_allclose(rates, [0.1, 0.01, 0.001])


def test_weight_decay_of_adamw_drops_too(tmp_path, make_trainer):
    trainer = make_trainer(tmp_path, epoch=2, lr_drop=[1], optimizer="adamw")
    trainer.run()
    optimizer = trainer.updater.get_optimizer("main")
    assert isinstance(optimizer, chainer.optimizers.AdamW)
    assert optimizer.eta == pytest.approx(0.1)


def rates_of(trainer):
    """Collects the rate that each update takes."""
    optimizer, rates = trainer.updater.get_optimizer("main"), []
    update = optimizer.update

    def noting(*args, **kwargs):
        name = "eta" if isinstance(optimizer, chainer.optimizers.AdamW) else "lr"
        rates.append(getattr(optimizer, name))
        return update(*args, **kwargs)

    optimizer.update = noting
    return rates


STEP = 16 / 50  # of an epoch


def expected(i, epochs, warmup, cosine):
    """The rate of iteration i, from 0."""
    at = i * STEP
    if at + STEP < warmup:
        return (at + STEP) / warmup
    share = max(0, at - warmup) / (epochs - warmup)
    return (1 + math.cos(math.pi * min(1, share))) / 2 if cosine else 1.0


@pytest.mark.parametrize(
    ("warmup", "cosine"), [(2, False), (0, True), (2, True), (1, True)]
)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_warm_up_and_cosine_are_functions_of_the_time(
    tmp_path, make_trainer, log_of, optimizer, warmup, cosine
):
    setting = {"optimizer": optimizer, "warmup": warmup, "cosine": cosine}
    trainer = make_trainer(tmp_path, epoch=4, lr=1, **setting)
    rates = rates_of(trainer)
    trainer.run()
    wanted = [expected(i, 4, warmup, cosine) for i in range(len(rates))]
    np.testing.assert_allclose(rates, wanted, atol=1e-12)
    assert min(rates) > 0
    ends = [math.ceil(epoch / STEP) for epoch in range(1, 5)]
    logged = [entry["lr"] for entry in log_of(trainer)]
    np.testing.assert_allclose(logged, [wanted[end - 1] for end in ends], atol=1e-12)


def test_a_resumed_schedule_goes_on(tmp_path, make_trainer):
    setting = {"lr": 0.5, "optimizer": "sgd", "warmup": 1, "cosine": True, "epoch": 3}
    whole = make_trainer(tmp_path / "whole", **setting)
    wanted = rates_of(whole)
    whole.run()
    part = make_trainer(tmp_path / "part", **setting)
    part.stop_trigger = chainer.training.get_trigger((5, "iteration"))
    part.extend(chainer.training.extensions.snapshot(), trigger=(5, "iteration"))
    part.run()
    rest = make_trainer(tmp_path / "part", **setting)
    load_snapshot(find_snapshot(tmp_path / "part"), rest)
    rates = rates_of(rest)
    rest.run()
    assert rest.updater.iteration == len(wanted) == 5 + len(rates)
    np.testing.assert_array_equal(rates, wanted[5:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factor": 0.5}, "factor 0.5 changes nothing without drops: name"),
        ({"drops": [2], "cosine": 4}, r"drops \(lr_drop\) and cosine .*: leave out"),
    ],
)
def test_an_option_that_goes_without_effect(options, message):
    with pytest.raises(ValueError, match=message):
        LearningRate(**options)


def test_a_warm_up_that_takes_all_is_refused():
    with pytest.raises(ValueError, match="leaves nothing of 3"):
        LearningRate(warmup=3, cosine=3)
