"""The extensions find the classifier and the optimizer that they are about."""

import functools

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.iterators import SerialIterator
from chainer.training import StandardUpdater, Trainer
from chainer.training.extensions import LogReport

from chainer_mmix import ManifoldMixupClassifier, MixupLayers
from chainer_mmix.training import extensions
from chainer_mmix.training.trainer_parts import classifiers_of

IMAGES = np.random.default_rng(0).random((8, 1, 2, 2), np.float32)
DATA = chainer.datasets.TupleDataset(IMAGES, np.arange(8, dtype=np.int32) % 2)


class Net(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.l1, self.l2 = L.Linear(4, 3), L.Linear(3, 2)

    def forward(self, x):
        return self.l2(F.relu(self.l1(x)))


def make_classifier(**kwargs):
    return ManifoldMixupClassifier(MixupLayers(Net(), ["l1"]), seed=0, **kwargs)


class Task(chainer.Chain):
    def __init__(self, model):
        super().__init__()
        with self.init_scope():
            self.model = model

    def forward(self, x, t):
        return self.model(x, t)


def as_target(model):
    return model, None


def as_child(model):
    return Task(model), None


def as_loss(model):
    return model.predictor, model


def as_method(model):
    return model.predictor, model.forward


def in_partial(model):
    return model.predictor, functools.partial(model.forward)


def in_closure(model):
    return model.predictor, lambda *args: 2 * model(*args)


def in_list(model):
    models = [model]
    return model.predictor, lambda *args: sum(one(*args) for one in models)


def hidden(model):
    table = type("Table", (), {"model": model})()
    return model.predictor, lambda *args: table.model(*args)


WAYS = [as_target, as_child, as_loss, as_method, in_partial, in_closure, in_list]


def make_trainer(model, way, out, n_epoch=2):
    target, loss_func = way(model)
    optimizer = chainer.optimizers.SGD(0.1).setup(target)
    updater = StandardUpdater(SerialIterator(DATA, 4), optimizer, loss_func=loss_func)
    trainer = Trainer(updater, (n_epoch, "epoch"), str(out))
    if way is not as_child:
        trainer.reporter.add_observer("main", model)
    return trainer


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_classifier_is_found_wherever_it_is(tmp_path, way):
    model = make_classifier()
    trainer = make_trainer(model, way, tmp_path)
    assert classifiers_of(trainer) == [model]
    trainer.extend(extensions.MixupOff(1))
    trainer.extend(extensions.MixupReport())
    trainer.extend(extensions.MixupPreview(DATA, n_pair=2), trigger=(3, "iteration"))
    trainer.extend(LogReport())
    trainer.run(show_loop_exception_msg=False)
    mixed, plain = trainer.get_extension("LogReport").log
    assert (mixed["mixup/layer/l1"], mixed["mixup/layer/none"]) == (1, 0)
    assert (plain["mixup/layer/l1"], plain["mixup/layer/none"]) == (0, 1)
    name = "main/model" if way is as_child else "main"
    assert mixed["mixup/loss/l1"] == pytest.approx(mixed[f"{name}/loss"])
    assert plain["mixup/loss/none"] == pytest.approx(plain[f"{name}/loss"])


def test_one_that_is_out_of_sight_is_passed(tmp_path):
    for make, error in (
        (lambda **kwargs: extensions.MixupOff(1, **kwargs), TypeError),
        (lambda **kwargs: extensions.MixupPreview(DATA, **kwargs), TypeError),
        (extensions.MixupReport, RuntimeError),
    ):
        model = make_classifier()
        trainer = make_trainer(model, hidden, tmp_path)
        trainer.extend(make())
        with pytest.raises(error, match=r"Mixup\w+\(\.\.\., classifier=model\)"):
            trainer.run(show_loop_exception_msg=False)
        assert trainer.updater.iteration == (error is RuntimeError)
        trainer = make_trainer(model, hidden, tmp_path)
        trainer.extend(make(classifier=model))
        trainer.run(show_loop_exception_msg=False)
    trainer = make_trainer(make_classifier(mixup_hidden=False), hidden, tmp_path)
    trainer.extend(extensions.MixupReport())
    trainer.run(show_loop_exception_msg=False)


class Gan(StandardUpdater):
    """Trains two classifiers in place of a generator and a discriminator."""

    def __init__(self, gen, dis):
        adam = chainer.optimizers.Adam(0.01).setup(gen)
        optimizers = {"gen": adam, "dis": chainer.optimizers.SGD(0.1).setup(dis)}
        super().__init__(SerialIterator(DATA, 4), optimizers)

    def update_core(self):
        x, t = self.converter(self.get_iterator("main").next())
        for optimizer in self.get_all_optimizers().values():
            optimizer.update(optimizer.target, x, t)


def make_gan(out, gen):
    trainer = Trainer(Gan(gen, make_classifier()), (2, "epoch"), str(out))
    trainer.extend(LogReport())
    return trainer


def test_optimizers_of_other_names(tmp_path):
    trainer = make_gan(tmp_path, L.Classifier(Net()))
    gen, dis = trainer.updater.get_all_optimizers().values()
    trainer.extend(extensions.LearningRate([1], optimizer=dis))
    trainer.extend(extensions.LearningRate([1], 0.5, optimizer=gen))
    trainer.extend(extensions.MixupReport())
    trainer.extend(extensions.MixupOff(1))
    trainer.extend(extensions.FailOnNonNumber())
    trainer.run()
    log = trainer.get_extension("LogReport").log
    np.testing.assert_allclose([entry["lr/dis"] for entry in log], [0.1, 0.01])
    np.testing.assert_allclose([entry["lr/gen"] for entry in log], [0.01, 0.005])
    assert [entry["mixup/layer/l1"] for entry in log] == [1, 0]
    assert log[0]["mixup/loss/l1"] == pytest.approx(log[0]["dis/loss"])


@pytest.mark.parametrize(
    "make, remedy",
    [
        (extensions.LearningRate, r"'gen', 'dis'.*optimizer=optimizer\)"),
        (extensions.MixupReport, r"2 classifiers.*classifier=model\)"),
        (lambda: extensions.MixupPreview(DATA), r"2 classifiers.*classifier=model\)"),
    ],
)
def test_which_of_several_is_asked_before_the_training(tmp_path, make, remedy):
    trainer = make_gan(tmp_path, make_classifier())
    trainer.extend(make())
    with pytest.raises(ValueError, match=remedy):
        trainer.run(show_loop_exception_msg=False)
    assert trainer.updater.iteration == 0


def test_a_report_each_and_one_switch_for_all(tmp_path):
    trainer = make_gan(tmp_path, make_classifier(mixup_alpha=2))
    gen, dis = (o.target for o in trainer.updater.get_all_optimizers().values())
    trainer.extend(extensions.MixupReport(classifier=gen))
    trainer.extend(extensions.MixupReport("dis.json", classifier=dis), name="dis")
    trainer.extend(extensions.MixupOff(1))
    trainer.run()
    first, second = trainer.get_extension("LogReport").log
    assert first["mixup/loss/l1"] == pytest.approx(first["gen/loss"])
    assert first["dis/mixup/loss/l1"] == pytest.approx(first["dis/loss"])
    assert second["mixup/layer/none"] == second["dis/mixup/layer/none"] == 1
    assert {"mixup.json", "dis.json"} <= {path.name for path in tmp_path.iterdir()}


def test_one_optimizer_needs_no_name(tmp_path):
    model = make_classifier()
    optimizers = {"other": chainer.optimizers.SGD(0.1).setup(model)}

    class Updater(StandardUpdater):
        def update_core(self):
            batch = self.converter(self.get_iterator("main").next())
            self.get_optimizer("other").update(model, *batch)

    updater = Updater(SerialIterator(DATA, 4), optimizers)
    trainer = Trainer(updater, (1, "epoch"), str(tmp_path))
    trainer.extend(extensions.LearningRate())
    trainer.extend(LogReport())
    trainer.run()
    assert trainer.get_extension("LogReport").log[0]["lr"] == 0.1
