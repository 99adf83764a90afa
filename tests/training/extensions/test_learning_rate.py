import chainer
import numpy as np
import pytest

from chainer_mmix.training import find_snapshot, load_snapshot


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
    trainer = make_trainer(tmp_path, epoch=1, lr_drop=[1], optimizer="adamw")
    trainer.run()
    optimizer = trainer.updater.get_optimizer("main")
    assert isinstance(optimizer, chainer.optimizers.AdamW)
    assert optimizer.eta == pytest.approx(0.1)
