import chainer
import numpy as np
import pytest
from chainer.training import extensions

from chainer_mmix import MixupPolicy
from chainer_mmix.training import find_snapshot, load_snapshot
from chainer_mmix.training.extensions import MixupShift


def policy_of(trainer):
    return trainer.updater.get_optimizer("main").target.policy


def watch(trainer, attr):
    values = []

    def note(trainer):
        values.append(getattr(policy_of(trainer), attr))

    trainer.extend(note, trigger=(1, "iteration"), priority=500, name="watch")
    return values


@pytest.mark.parametrize("given", [True, False])
def test_it_shifts_the_policy_and_leaves_the_learning_rate(
    tmp_path, make_trainer, given
):
    trainer = make_trainer(tmp_path, epoch=2, optimizer="adam")
    policy = policy_of(trainer)
    shift = MixupShift("alpha", (0.0, 0.8), (0, 4), policy if given else None)
    trainer.extend(shift)
    values = watch(trainer, "alpha")
    trainer.run()
    # What the updates took: the first is before any call.
    np.testing.assert_allclose(values[:6], [0, 0.2, 0.4, 0.6, 0.8, 0.8])
    assert policy.alpha == 0.8
    assert trainer.updater.get_optimizer("main").alpha == 0.01


def test_it_goes_on_after_a_resume_as_chainers_does(tmp_path, make_trainer):
    def make(out, epoch, shift):
        trainer = make_trainer(out, epoch=epoch)
        trainer.extend(shift(policy_of(trainer)), name="shift")
        return trainer

    def ours(_):
        return MixupShift("prob", (1, 0), (0, 10))

    def chainers(policy):
        return extensions.LinearShift("prob", (1, 0), (0, 10), optimizer=policy)

    whole = make(tmp_path / "whole", 3, chainers)
    expected = watch(whole, "prob")
    whole.run()
    make(tmp_path / "part", 1, ours).run()
    rest = make(tmp_path / "part", 3, ours)
    load_snapshot(find_snapshot(tmp_path / "part"), rest)
    done = rest.updater.iteration
    values = watch(rest, "prob")
    rest.run()
    assert 0 < done < len(expected)
    np.testing.assert_allclose(values, expected[done:])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("lr", (0, 1), (0, 9)), "attr must be one of alpha, prob, .* not 'lr'"),
        (("alpha", (0, -1), (0, 9)), "alpha must be a finite number >= 0"),
        (("prob", (0, 2), (0, 9)), r"prob must lie in \[0, 1\], not 2"),
        (("prob", (0, 1), (9, 9)), "time_range must be"),
    ],
)
def test_bad_arguments(arguments, error):
    with pytest.raises(ValueError, match=error):
        MixupShift(*arguments)


@pytest.mark.parametrize("attr", ["alpha", "cutmix_alpha", "fmix_alpha"])
def test_a_fixed_lambda_leaves_no_alpha_to_shift(tmp_path, make_trainer, attr):
    trainer = make_trainer(tmp_path)
    policy_of(trainer).fixed_lam = 0.7
    for first, is_without_effect in ((0, False), (1, True)):
        shift = MixupShift(attr, (first, 2), (0, 9))  # an alpha of 0 switches off
        if not is_without_effect:
            shift.initialize(trainer)
            continue
        with pytest.raises(ValueError, match=f"{attr} changes nothing with fixed_lam"):
            shift.initialize(trainer)


def test_a_trainer_without_a_classifier_of_ours_needs_the_policy():
    model = chainer.links.Classifier(chainer.links.Linear(3, 2))
    optimizer = chainer.optimizers.Adam().setup(model)
    data = [(np.ones(3, "f"), np.int32(0))]
    iterator = chainer.iterators.SerialIterator(data, 1)
    trainer = chainer.training.Trainer(
        chainer.training.StandardUpdater(iterator, optimizer), (1, "iteration")
    )
    trainer.extend(MixupShift("alpha", (0, 1), (0, 1)))
    with pytest.raises(ValueError, match="finds no ManifoldMixupClassifier"):
        trainer.run()
    assert optimizer.alpha == 0.001
    trainer.extend(MixupShift("alpha", (0, 1), (0, 1), MixupPolicy()), name="own")
