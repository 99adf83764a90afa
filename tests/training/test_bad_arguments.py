"""Arguments that would train wrongly, or end a run late, are refused at once."""

import gc
import random
import sys

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.datasets import (
    DictDataset,
    SubDataset,
    TransformDataset,
    TupleDataset,
)
from chainer.iterators import SerialIterator
from chainer.training.extensions import observe_value

from chainer_mmix import ManifoldMixupClassifier, MixupLayers, models, training
from chainer_mmix.datasets import transforms
from chainer_mmix.training.extensions import (
    CalibrationEvaluator,
    Evaluator,
    LearningRate,
    MixupOff,
    MixupReport,
    MixupShift,
)

IMAGES = np.zeros((6, 1, 8, 8), np.float32)
GOOD = TupleDataset(IMAGES, np.arange(6, dtype=np.int32))


def build(out, train=GOOD, test=GOOD, optimizer=None, **changed):
    if optimizer is None:
        model = ManifoldMixupClassifier(models.CNN(10), seed=0)
        optimizer = chainer.optimizers.SGD().setup(model)
    options = {"epoch": 2, "batchsize": 3, "out": out, "device": "@numpy"} | changed
    return training.build_trainer(optimizer, train, test, quiet=True, **options)


@pytest.mark.parametrize(
    "best",
    [
        "validation/main/accuracy",
        ("validation/main/accuracy", "max"),
        ("validation/main/accuracy", 0),
        ("validation/main/accuracy", True, 1),
        (1, True),
    ],
)
def test_what_is_best_is_a_key_and_a_bool(tmp_path, best):
    with pytest.raises(TypeError, match=r"keep_best must be .*accuracy', False\).*not"):
        build(tmp_path, keep_best=best)


@pytest.mark.parametrize(
    "key, error",
    [
        ("accuracy", "try 'validation/main/accuracy'"),
        ("validation/main/acc", "unknown keep_best .*there are .*main/accuracy"),
    ],
)
def test_a_key_that_validation_does_not_report(tmp_path, key, error):
    with pytest.raises(ValueError, match=error):
        build(tmp_path, keep_best=(key, False))
    build(tmp_path, keep_best=("validation/main/loss", True))
    build(tmp_path, keep_best=("mine/score", False))  # of an extension to come


@pytest.mark.parametrize("key", ["foo", "main/foo", "validation/foo/loss"])
def test_a_key_that_nothing_logs_is_refused_after_a_step(tmp_path, key):
    trainer = build(tmp_path, keep_best=(key, False), epoch=3)
    with pytest.raises(training.MetricError, match=f"no {key} in .*main/lam, .*valid"):
        trainer.run(show_loop_exception_msg=False)
    assert trainer.updater.iteration == 1


@pytest.mark.parametrize(
    "key", ["main/lam", "validation/main/loss", "lr", "mixup/layer/none", "foo"]
)
def test_keys_that_are_logged_are_taken(tmp_path, key):
    trainer = build(tmp_path, keep_best=(key, False))
    if key == "foo":
        trainer.extend(observe_value("foo", lambda _: 1.0), trigger=(1, "epoch"))
    training.run(trainer, None)
    assert [*tmp_path.glob("best_iter_*")]
    resumed = build(tmp_path, keep_best=(key, False), epoch=3)
    if key == "foo":
        resumed.extend(observe_value("foo", lambda _: 1.0), trigger=(1, "epoch"))
    training.load_snapshot(training.find_snapshot(tmp_path), resumed)
    training.run(resumed, None)
    assert resumed.updater.epoch == 3


@pytest.mark.parametrize(
    "name, value",
    [
        *[("epoch", value) for value in (0, 1.5, True, "2")],
        *[("batchsize", value) for value in (0, 2.5)],
        *[("workers", value) for value in (-1, 0.5)],
        *[("n_retains", value) for value in (0, -1)],
        ("early_stopping", 0),
        *[("rate_scale", value) for value in (0, -1, np.nan)],
        *[("warmup", value) for value in (-1, np.nan)],
        *[("snapshot_every", value) for value in (5, "5min", (1, "epochs"))],
        *[("snapshot_every", value) for value in ((0, "minutes"), (1.5, "iterations"))],
    ],
)
def test_numbers_of_a_trainer(tmp_path, name, value):
    best = "validation/main/loss", True
    with pytest.raises(ValueError, match=f"{name} must be .* not "):
        build(tmp_path, **{"keep_best": best, name: value})


def test_a_minibatch_is_no_larger_than_the_training_set(tmp_path):
    with pytest.raises(ValueError, match="batchsize 7 is more than the 6 training"):
        build(tmp_path, batchsize=7)
    build(tmp_path, batchsize=6)


@pytest.mark.parametrize("name", ["train", "test"])
@pytest.mark.parametrize("make", [lambda x: (x,), lambda x: (x, None)])
def test_examples_without_a_label(tmp_path, name, make):
    with pytest.raises(TypeError, match=f"example of {name} has no label: pairs"):
        build(tmp_path, **{name: [make(x) for x in IMAGES]})


@pytest.mark.parametrize("name", ["train", "test"])
def test_examples_that_are_lists(tmp_path, name):
    lists = [list(example) for example in GOOD]
    with pytest.raises(TypeError, match=rf"example of {name} is a list.*tuple\("):
        build(tmp_path, **{name: lists})
    build(tmp_path, **{name: [tuple(example) for example in lists]})


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_refused_iterator_goes_without_a_word():
    with pytest.raises(ValueError, match="n_workers"):
        training.WorkerIterator(GOOD, 2, 0)
    gc.collect()


def test_epochs_of_a_drop_may_be_shares_of_all(tmp_path):
    """As in the papers, at half and three quarters of the training."""
    drops = [0.5 * 4, np.float64(0.75 * 4)]
    trainer = build(tmp_path, epoch=4, lr_drop=drops)
    trainer.run()
    log = trainer.get_extension("LogReport").log
    rates = np.array([entry["lr"] for entry in log])
    np.testing.assert_allclose(rates / rates[0], [1, 1, 0.1, 0.01])


def test_epochs_of_a_drop_come_in_a_list(tmp_path):
    for drops in (1, "1"):
        with pytest.raises(TypeError, match=f"a list of epochs: .{drops!r}"):
            build(tmp_path, lr_drop=drops)


def test_a_folder_that_cannot_be_written(tmp_path):
    file = tmp_path / "file"
    file.touch()
    for out, kind in ((None, TypeError), ("", ValueError), (file, ValueError)):
        with pytest.raises(kind, match=r"out.*(such as|give it one|name another)"):
            build(out)


@pytest.mark.parametrize(
    ("optimizer", "error"),
    [
        (chainer.optimizers.SGD(), r"optimizer, SGD, is not set up: optimizer.setup\("),
        (chainer.optimizers.SGD, "must be one that is set up, not the class SGD: opt"),
        (L.Linear(2, 2), "must be one that is set up, not Linear: optimizer.setup"),
    ],
    ids=["no model", "class", "model"],
)
def test_an_optimizer_without_a_model(tmp_path, optimizer, error):
    with pytest.raises((TypeError, ValueError), match=error):
        build(tmp_path, optimizer=optimizer)
    iterator = SerialIterator(GOOD, 3)
    for given in (optimizer, {"main": optimizer}):
        with pytest.raises((TypeError, ValueError), match=error):
            training.GraphUpdater(iterator, given)


@pytest.mark.parametrize("given", [GOOD, None, SerialIterator, {"main": GOOD}])
def test_data_in_place_of_an_iterator(given):
    model = ManifoldMixupClassifier(models.CNN(10), seed=0)
    optimizer = chainer.optimizers.SGD().setup(model)
    kind = "(TupleDataset|None|the class SerialIterator): chainer.iterators.Serial"
    with pytest.raises(TypeError, match=rf"GraphUpdater takes .* {kind}Iterator\("):
        training.GraphUpdater(given, optimizer)
    for evaluator in (Evaluator, CalibrationEvaluator):
        name = evaluator.__name__
        with pytest.raises(TypeError, match=rf"{name} takes .* {kind}.*repeat=False"):
            evaluator(given, model)


def test_iterators_of_which_none_is_called_main():
    model = ManifoldMixupClassifier(models.CNN(10), seed=0)
    optimizer = chainer.optimizers.SGD().setup(model)
    iterators = {"train": SerialIterator(GOOD, 3, repeat=False)}
    for make in (training.GraphUpdater, Evaluator):
        with pytest.raises(ValueError, match=r"called main, .* \['train'\]: call one"):
            make(iterators, optimizer if make is training.GraphUpdater else model)


@pytest.mark.parametrize("target", [None, lambda x, t: None, models.CNN, {"main": 1}])
def test_what_cannot_be_evaluated(target):
    iterator = SerialIterator(GOOD, 3, repeat=False)
    kind = "None|function|the class CNN|int"
    with pytest.raises(TypeError, match=rf"a link, not ({kind}): give .*Classifier\("):
        Evaluator(iterator, target)


def test_links_of_which_none_is_called_main():
    iterator = SerialIterator(GOOD, 3, repeat=False)
    model = L.Classifier(models.CNN(10))
    with pytest.raises(ValueError, match=r"called main, .*\['net'\]: .*eval_func"):
        Evaluator(iterator, {"net": model})

    def loss(x, t):
        chainer.report({"own": F.sum(model.predictor(x)) * 0 + 2}, model)

    evaluator = Evaluator(iterator, {"net": model}, eval_func=loss)
    assert evaluator() == {"net/own": 2}


@pytest.mark.parametrize("device", ["@cupy:0", 0])
def test_devices_that_are_not_there(monkeypatch, device):
    monkeypatch.setitem(sys.modules, "cupy", None)
    model = ManifoldMixupClassifier(models.CNN(10), seed=0)
    optimizer = chainer.optimizers.SGD().setup(model)
    for call in (
        lambda: Evaluator(SerialIterator(GOOD, 3, False), model, device=device),
        lambda: training.GraphUpdater(
            SerialIterator(GOOD, 3), optimizer, device=device
        ),
        lambda: training.GraphUpdater(
            SerialIterator(GOOD, 3), optimizer, input_device=device
        ),
        lambda: training.DeviceBatches(GOOD, device),
    ):
        with pytest.raises(ValueError, match=r"GPU 0 needs CuPy.*: install .*cuda13"):
            call()


def test_workers_have_nothing_to_do_for_data_on_the_device(tmp_path):
    with pytest.raises(ValueError, match=r"workers=1 .*data_on_device: leave one"):
        build(tmp_path, workers=1, data_on_device=True)


def test_a_device_may_be_named(tmp_path):
    trainer = build(tmp_path, device="@numpy")
    assert trainer.updater.device == chainer.get_device("@numpy")
    with pytest.raises(ValueError, match="there is no device"):
        build(tmp_path, device="@none")


LATE = np.array([0, 1, 2, 3, 4, 10], np.int32)
DATA = TupleDataset(IMAGES, LATE)


@pytest.mark.parametrize("name", ["train", "test"])
@pytest.mark.parametrize("data", [DATA, SubDataset(DATA, 1, 6), list(DATA)])
def test_a_label_out_of_range_at_the_end(tmp_path, name, data):
    with pytest.raises(ValueError, match=rf"{name}: labels must lie in \[0, 10\).*10"):
        build(tmp_path, **{name: data})


@pytest.mark.parametrize("name", ["train", "test"])
def test_a_label_out_of_range_in_a_dict(tmp_path, name):
    model = ManifoldMixupClassifier(models.CNN(10), seed=0, label_key="t")
    optimizer = chainer.optimizers.SGD().setup(model)
    good, bad = (DictDataset(x=IMAGES, t=t) for t in (LATE % 10, LATE))
    part = SubDataset(bad, 0, 6, np.roll(np.arange(6), 2))
    for data in (bad, part):
        given = {"train": good, "test": good, name: data}
        with pytest.raises(ValueError, match=rf"{name}: labels must lie in \[0, 10\)"):
            build(tmp_path, optimizer=optimizer, **given)


def test_labels_that_the_loss_takes_are_taken(tmp_path):
    ignored = TupleDataset(IMAGES, np.where(LATE == 10, -1, LATE))
    build(tmp_path, train=ignored, test=ignored)
    net = L.Linear(64, 1)
    model = ManifoldMixupClassifier(
        net, mixup_hidden=False, lossfun=F.mean_squared_error, accfun=None
    )
    optimizer = chainer.optimizers.SGD().setup(model)
    numbers = TupleDataset(IMAGES.reshape(6, 64), np.full((6, 1), 99, np.float32))
    build(tmp_path, train=numbers, test=numbers, optimizer=optimizer)


@pytest.mark.parametrize(
    "make, error",
    [
        (lambda: LearningRate(warmup=-1), "warmup"),
        (lambda: LearningRate(factor=-1), "factor"),
        (lambda: LearningRate(drops=[2, -1]), "drops"),
        (lambda: LearningRate(drops=[2.5]), "drops"),
        (lambda: LearningRate(scale=0), "scale"),
        (lambda: LearningRate(cosine=-3), "cosine"),
        (lambda: MixupOff(-1), "epoch"),
        (lambda: MixupOff("a"), "epoch"),
        (lambda: MixupShift("alpha", 0.2, (0, 1)), "value_range"),
        (lambda: MixupShift("alpha", (0.2,), (0, 1)), "value_range"),
        (lambda: MixupShift("alpha", (0.2, 1), (0,)), "time_range"),
    ],
)
def test_schedules(make, error):
    with pytest.raises(ValueError, match=f"{error} must be .* not"):
        make()


@pytest.mark.parametrize(
    "name, value",
    [
        *[("lr", value) for value in (-1e-3, 0, np.nan, np.inf, "1")],
        *[("weight_decay", -1), ("momentum", np.nan), ("grad_clip", 0)],
    ],
)
def test_numbers_of_an_optimizer(name, value):
    options = {"lr": 0.1, name: value}
    with pytest.raises(ValueError, match=f"{name} must be .* not"):
        training.make_optimizer("sgd", L.Linear(2, 2), **options)


@pytest.mark.parametrize(
    "make, error",
    [
        (lambda: training.WorkerIterator(GOOD, 0, 1), "batch_size"),
        (lambda: training.WorkerIterator(GOOD, 2, 0), "n_workers"),
        (lambda: transforms.PadCrop(0), "padding"),
        (lambda: transforms.Affine(rotation=-5), "rotation"),
        (lambda: MixupReport(5), "filename"),
    ],
)
def test_what_reads_and_reports(make, error):
    with pytest.raises((TypeError, ValueError), match=f"{error} must be .* not"):
        make()


@pytest.mark.parametrize("name", ["train", "test"])
@pytest.mark.parametrize(
    ("data", "error"),
    [
        (None, r"must be a sequence of examples .*TupleDataset\(x, t\), not None"),
        (
            SerialIterator(GOOD, 2),
            r"must be a sequence of examples .*\(x, t\), not SerialIterator",
        ),
        (
            {"x": IMAGES, "t": GOOD},
            r"must be a sequence of examples .*TupleDataset\(x, t\), not dict",
        ),
        ([], "has no examples: give at least one"),
    ],
)
def test_what_is_no_sequence_of_examples(tmp_path, name, data, error):
    with pytest.raises((TypeError, ValueError), match=f"{name} {error}"):
        build(tmp_path, **{name: data})


LABELS = np.arange(6, dtype=np.int32)


@pytest.mark.parametrize(
    ("train", "error"),
    [
        (TupleDataset(IMAGES.astype(np.uint8), LABELS), r"uint8 \(1, 8, 8\).* / 255"),
        (TupleDataset(IMAGES.astype("d"), LABELS), r"x.astype\(numpy.float32\)"),
        (TupleDataset(IMAGES[:, [0, 0]], LABELS), "takes 1 channels, and the input"),
        (TupleDataset(IMAGES[..., 0], LABELS), r"shape \(N, C, H, W\)"),
        (TupleDataset(IMAGES, LABELS.astype(str)), "a label of train is '0'"),
        (TupleDataset(IMAGES), "an example of train has no label"),
        (TransformDataset(GOOD, lambda pair: list(pair)), "of train is a list"),
        (SubDataset(TupleDataset(IMAGES, IMAGES), 0, 6), "takes an example of test, "),
    ],
    ids=range(8),
)
def test_training_data_are_looked_at_before_anything_is_written(tmp_path, train, error):
    with pytest.raises((TypeError, ValueError), match=error):
        build(tmp_path / "out", train=train)
    assert not (tmp_path / "out").exists()


def test_images_of_another_size_are_taken_if_the_network_takes_them(tmp_path):
    larger = TupleDataset(np.zeros((6, 1, 9, 9), np.float32), LABELS)
    build(tmp_path, train=larger)
    net = MixupLayers(L.Linear(64, 10), ["input"])
    model = ManifoldMixupClassifier(net, seed=0)
    optimizer = chainer.optimizers.SGD().setup(model)
    wanted = r"takes .* test, \(float32 \(1, 8, 8\), int32\), but none of train, .*9\)"
    with pytest.raises(ValueError, match=f"{wanted}.*: give both the same form"):
        build(tmp_path, train=larger, optimizer=optimizer)


class Pairs(chainer.Chain):
    """Takes two views of an image in training, and one in evaluation."""

    def __init__(self):
        super().__init__(fc=L.Linear(64, 10))

    def forward(self, *batch):
        assert len(batch) == (3 if chainer.config.train else 2)
        loss = F.softmax_cross_entropy(self.fc(F.dropout(batch[0])), batch[-1])
        chainer.report({"loss": loss}, self)
        return loss


def test_examples_may_have_other_parts_in_training(tmp_path):
    optimizer = chainer.optimizers.SGD().setup(Pairs())
    train = TupleDataset(IMAGES, IMAGES, LABELS)
    build(tmp_path, train=train, optimizer=optimizer).run()


@pytest.mark.parametrize("position", [1, 5])
@pytest.mark.parametrize("kind", [list, TupleDataset, SubDataset])
def test_images_of_several_shapes(tmp_path, kind, position):
    images = list(IMAGES)
    images[position] = np.zeros((1, 8, 9), np.float32)
    data = TupleDataset(images, LABELS)
    data = SubDataset(data, 0, 6) if kind is SubDataset else data
    data = list(data) if kind is list else data
    for name, changed in (
        (rf"examples 0 and {position} of train", {"train": data}),
        (rf"examples \d and {position} of test", {"test": data}),
    ):
        with pytest.raises(ValueError, match=rf"{name} .*8, 9\).*batchsize=1"):
            build(tmp_path, **changed)
    build(tmp_path, test=data, batchsize=1)
    images[3:] = [np.zeros((1, 8, 9), np.float32)] * 3
    build(tmp_path, test=TupleDataset(images[:1] * 3 + images[3:], LABELS))


@pytest.mark.parametrize("name", ["train", "test"])
@pytest.mark.parametrize(
    ("label", "error"), [(None, "has no label"), ("cat", "is 'cat', but .*numbers")]
)
@pytest.mark.parametrize("make", [list, TupleDataset])
def test_a_label_that_is_no_number_at_the_end(tmp_path, name, label, error, make):
    labels = [0, 1, 2, 3, 4, label]
    data = TupleDataset(IMAGES, labels)
    data = list(data) if make is list else data
    with pytest.raises(TypeError, match=f"of {name} {error}"):
        build(tmp_path, **{name: data})


def test_looking_at_an_example_draws_nothing(tmp_path):
    def jitter(example):
        np.random.rand()
        random.random()
        return example

    own = np.random.default_rng(0)
    state = own.bit_generator.state

    def noise(example):
        image, label = example
        return image + own.random(image.shape, np.float32), label

    states = []
    for transform in (None, transforms.Affine(rotation=5), jitter, noise):
        random.seed(0)
        np.random.seed(0)
        data = TransformDataset(GOOD, transform) if transform else GOOD
        build(tmp_path, train=data, test=data)
        states.append((random.getstate(), np.random.get_state()[1:3]))
    np.testing.assert_equal(states[1:], states[:1] * 3)
    assert own.bit_generator.state == state


class Opened(chainer.dataset.DatasetMixin):
    """Opens a file when it is first read, which processes must not share."""

    def __init__(self):
        self.is_open = False

    def __len__(self):
        return 6

    def get_example(self, i):
        self.is_open = True
        return GOOD[i]


def test_workers_are_the_first_to_read_a_file(tmp_path):
    for workers in (0, 1):
        data = Opened()
        build(tmp_path, train=data, workers=workers)
        assert data.is_open == (workers == 0)
