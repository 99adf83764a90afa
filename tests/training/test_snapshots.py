import json
import os
import pickle
import zipfile

import chainer
import numpy as np
import pytest
from chainer.serializers import load_npz
from chainer.serializers.npz import serialize

from chainer_mmix import training
from chainer_mmix.training import (
    SnapshotError,
    find_snapshot,
    load_snapshot,
    load_weights,
    read_snapshot,
)


class Malicious:
    """Runs code when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def snapshot(tmp_path, make_trainer):
    make_trainer(tmp_path / "run", epoch=1).run()
    return find_snapshot(tmp_path / "run")


def rewrite(path, **members):
    """Writes a copy of a snapshot with some members replaced."""
    content = dict(np.load(path, allow_pickle=True)) | members
    copy = path.with_name("copy")
    with open(copy, "wb") as file:
        np.savez(file, **content)
    return copy


def test_newest_snapshot_is_that_of_most_iterations(tmp_path):
    for name in ("snapshot_iter_99", "snapshot_iter_100", "snapshot_iter_20"):
        (tmp_path / name).touch()
    (tmp_path / "snapshot_iter_200.tmp").touch()
    assert find_snapshot(tmp_path).name == "snapshot_iter_100"
    assert find_snapshot(tmp_path / "missing") is None


def test_reads_what_chainer_wrote(tmp_path):
    class Saved:
        def serialize(self, serializer):
            serializer("nothing", None)
            serializer("text", "drôle")
            serializer("scalar", 1.5)
            serializer("large", 2**70)
            serializer("a/array", np.arange(6, dtype=np.float16).reshape(2, 3))

    for compression in (True, False):
        path = str(tmp_path / "saved")
        chainer.serializers.save_npz(path, Saved(), compression=compression)
        members = read_snapshot(path)
        expected = np.load(path, allow_pickle=True)
        assert set(members) == set(expected.files)
        for key in expected.files:
            assert members[key].dtype == expected[key].dtype
            assert members[key].shape == expected[key].shape
            np.testing.assert_array_equal(members[key], expected[key])


def test_pickles_of_numpy_1_are_read(tmp_path):
    path = tmp_path / "old"
    data = pickle.dumps(np.array(None, object), protocol=3)
    data = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    with zipfile.ZipFile(path, "w") as archive, archive.open("x.npy", "w") as file:
        header = {"descr": "|O", "fortran_order": False, "shape": ()}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(data)
    assert read_snapshot(path)["x"][()] is None


def test_no_code_is_run(tmp_path, snapshot, make_trainer):
    canary = tmp_path / "canary"
    harmful = rewrite(snapshot, evil=np.array(Malicious(canary), object))
    # The file does run code through Chainer, so the test can fail.
    load_npz(str(harmful), make_trainer(tmp_path / "a"), strict=False)
    with np.load(harmful, allow_pickle=True) as file:
        file["evil"]
    assert canary.exists()
    canary.rmdir()

    with pytest.raises(SnapshotError, match=r"posix\.mkdir|nt\.mkdir"):
        load_snapshot(harmful, make_trainer(tmp_path / "b"))
    assert not canary.exists()


@pytest.mark.parametrize(
    "name",
    ["builtins eval", "numpy load", "numpy._core.multiarray scalar", "os system"],
)
def test_unneeded_names_are_refused(tmp_path, name):
    path = tmp_path / "evil"
    with zipfile.ZipFile(path, "w") as archive, archive.open("x.npy", "w") as file:
        header = {"descr": "|O", "fortran_order": False, "shape": ()}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(f"c{name.replace(' ', chr(10))}\n.".encode())
    with pytest.raises(SnapshotError, match="could run code"):
        read_snapshot(path)


@pytest.mark.parametrize("kept", [0, 10, 1000, -1, -100])
def test_a_truncated_file(snapshot, make_trainer, tmp_path, kept):
    snapshot.write_bytes(snapshot.read_bytes()[:kept])
    with pytest.raises(SnapshotError, match="cut off or damaged") as e:
        load_snapshot(snapshot, make_trainer(tmp_path / "new"))
    assert str(snapshot) in str(e.value)


def test_a_damaged_file(snapshot):
    data = bytearray(snapshot.read_bytes())
    with zipfile.ZipFile(snapshot) as archive:
        weights = max(map(archive.read, archive.namelist()), key=len)
    data[data.index(weights) + len(weights) // 2] ^= 0xFF
    snapshot.write_bytes(data)
    with pytest.raises(SnapshotError, match="damaged"):
        read_snapshot(snapshot)


@pytest.mark.parametrize("content", [b"", b"{}", b"\x93NUMPY"])
def test_a_file_that_is_no_snapshot(tmp_path, content):
    path = tmp_path / "log"
    path.write_bytes(content)
    with pytest.raises(SnapshotError, match="is not a snapshot"):
        read_snapshot(path)


def test_a_zip_file_that_is_no_snapshot(tmp_path, make_trainer):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(SnapshotError, match="is not a snapshot"):
        load_snapshot(path, make_trainer(tmp_path / "a"))
    np.savez(tmp_path / "y.npz", x=np.zeros(3))
    with pytest.raises(SnapshotError, match="another model or setting"):
        load_snapshot(tmp_path / "y.npz", make_trainer(tmp_path / "a"))


def test_a_missing_file(tmp_path):
    with pytest.raises(SnapshotError, match="there is no snapshot"):
        read_snapshot(tmp_path / "x")
    with pytest.raises(SnapshotError, match="cannot be read"):
        read_snapshot(tmp_path)


def test_a_snapshot_of_another_shape_or_network(tmp_path, make_trainer, snapshot):
    target = make_trainer(tmp_path / "x").updater.get_optimizer("main").target
    net = type(target.predictor)

    class More(net):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.l3 = chainer.links.Linear(8, 3)

    wider = make_trainer(tmp_path / "wider", net=lambda: net(n_unit=9))
    with pytest.raises(SnapshotError, match=r"predictor/.* shape \(.*8.*not \(.*9"):
        load_snapshot(snapshot, wider)
    more = make_trainer(tmp_path / "more", net=More)
    with pytest.raises(SnapshotError, match=r"it lacks .*predictor/l3"):
        load_snapshot(snapshot, more)

    make_trainer(tmp_path / "more", net=More, epoch=1).run()
    with pytest.raises(SnapshotError, match=r"it also has .*predictor/l3"):
        load_snapshot(find_snapshot(tmp_path / "more"), make_trainer(tmp_path / "y"))


def test_a_snapshot_of_a_plain_classifier(tmp_path, make_trainer, snapshot):
    content = dict(np.load(snapshot, allow_pickle=True))
    del content["updater/model:main/policy/rng"]
    plain = tmp_path / "plain.npz"
    np.savez(plain, **content)
    with pytest.raises(SnapshotError, match="it lacks policy/rng"):
        load_snapshot(plain, make_trainer(tmp_path / "x"))


def test_shapes_that_numpy_would_broadcast_are_refused(
    tmp_path, make_trainer, snapshot
):
    key = "updater/model:main/predictor/l2/b"
    broadcast = rewrite(snapshot, **{key: np.zeros(1, np.float32)})
    with pytest.raises(SnapshotError, match=r"l2/b has shape \(1,\), not \(10,\)"):
        load_snapshot(broadcast, make_trainer(tmp_path / "x"))


def test_shapes_that_depend_on_the_input_are_checked(tmp_path, make_trainer, snapshot):
    key = "updater/model:main/predictor/l1/W"
    other = rewrite(snapshot, **{key: np.zeros((8, 32), np.float32)})
    with pytest.raises(SnapshotError, match=r"l1/W has shape \(8, 32\), not \(8, 64\)"):
        load_snapshot(other, make_trainer(tmp_path / "x"))


@pytest.mark.parametrize(
    "change", [{"optimizer": "momentum_sgd"}, {"size": 40}, {"optimizer": "nesterov"}]
)
def test_a_snapshot_of_another_setting(tmp_path, make_trainer, snapshot, change):
    trainer = make_trainer(tmp_path / "x", **change)
    with pytest.raises(SnapshotError, match="another model or setting"):
        load_snapshot(snapshot, trainer)


def train_on(path, make, epoch):
    """Resumes from a snapshot and returns the weights at the end."""
    trainer = make(path.parent / "resumed", epoch=epoch)
    load_snapshot(path, trainer)
    trainer.run()
    return weights(trainer)


def weights(trainer):
    target = trainer.updater.get_optimizer("main").target
    return {name: param.array for name, param in target.namedparams()}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize(
    "optimizer", ["adam", "adamw", "sgd", "momentum_sgd", "nesterov"]
)
@pytest.mark.parametrize("frozen_first", [True, False])
def test_what_was_frozen_may_be_trained_and_the_other_way_round(
    tmp_path, make_trainer, optimizer, frozen_first
):
    def make(out, epoch, frozen):
        trainer = make_trainer(out, epoch=epoch, optimizer=optimizer)
        layer = trainer.updater.get_optimizer("main").target.predictor.l1
        (layer.disable_update if frozen else layer.enable_update)()
        return trainer, layer

    # In one process.
    trainer, layer = make(tmp_path / "a", 2, frozen_first)

    @chainer.training.make_extension(trigger=(1, "epoch"), priority=-1000)
    def switch(_):
        (layer.enable_update if frozen_first else layer.disable_update)()

    trainer.extend(switch)
    trainer.run()
    expected = weights(trainer)
    # In two.
    trainer, _ = make(tmp_path / "b", 1, frozen_first)
    trainer.run()
    first = find_snapshot(tmp_path / "b")
    result = train_on(
        first, lambda *a, **k: make(*a, **k, frozen=not frozen_first)[0], 2
    )
    assert_same(result, expected)


@pytest.mark.parametrize("name", training.OPTIMIZERS)
def test_a_layer_that_is_never_called_needs_no_size(tmp_path, name):
    def make(out, epoch, name=name):
        np.random.seed(0)
        spare = chainer.links.Linear(None, 3)
        model = chainer.links.Classifier(chainer.links.Linear(4, 3))
        model.add_link("spare", spare)
        optimizer = training.make_optimizer(name, model, 0.1)
        x = np.random.rand(20, 4).astype(np.float32)
        data = chainer.datasets.TupleDataset(x, np.arange(20, dtype=np.int32) % 3)
        iterator = chainer.iterators.SerialIterator(data, 10, shuffle=False)
        updater = chainer.training.StandardUpdater(iterator, optimizer)
        trainer = chainer.training.Trainer(updater, (epoch, "epoch"), str(out))
        trainer.extend(chainer.training.extensions.snapshot(), trigger=(1, "epoch"))
        return trainer

    trainer = make(tmp_path / "a", 2)
    trainer.run()
    make(tmp_path / "b", 1).run()
    first = find_snapshot(tmp_path / "b")
    expected, result = weights(trainer), train_on(first, make, 2)
    assert expected.pop("/spare/W") is result.pop("/spare/W") is None
    assert_same(result, expected)
    # Of another optimizer it is told all the same.
    others = {"adam": "sgd", "sgd": "momentum_sgd", "momentum_sgd": "sgd"}
    other = others.get(name, "adam")
    if (name, other) != ("adamw", "adam"):
        with pytest.raises(SnapshotError, match="another model or setting"):
            load_snapshot(first, make(tmp_path / "c", 2, other))


def test_sgd_does_not_pass_for_an_optimizer_with_a_state(
    tmp_path, make_trainer, monkeypatch
):
    with monkeypatch.context() as context:
        context.setattr(
            training,
            "make_optimizer",
            lambda _, model, lr: chainer.optimizers.SGD(lr).setup(model),
        )
        make_trainer(tmp_path / "a", epoch=1).run()
    with pytest.raises(SnapshotError, match="it lacks"):
        load_snapshot(find_snapshot(tmp_path / "a"), make_trainer(tmp_path / "b"))


def test_a_branch_that_was_left_is_not_gone_on_with(tmp_path, make_trainer):
    out = tmp_path / "run"
    make_trainer(out, epoch=4, n_retains=9).run()  # 4 epochs of 50 images
    old = sorted(out.glob("snapshot_iter_*"), key=lambda p: int(p.name[14:]))
    assert find_snapshot(out) == old[-1]
    trainer = make_trainer(out, epoch=3, n_retains=9)
    load_snapshot(old[1], trainer)
    trainer.updater.get_iterator("main").batch_size = 25  # fewer iterations an epoch
    trainer.run()
    newest = find_snapshot(out)
    assert newest not in old
    log = json.loads((out / "log").read_text())
    assert newest.name == f"snapshot_iter_{log[-1]['iteration']}"
    assert log[-1]["iteration"] < int(old[-1].name[14:])
    # Times do not survive a copy.
    os.utime(old[-1])
    assert find_snapshot(out) == newest
    # All are of other runs than this one.
    (out / "log").write_text('[{"epoch": 1}]')
    assert find_snapshot(out) is None
    # Without the log there is nothing to tell it by.
    (out / "log").unlink()
    assert find_snapshot(out) == old[-1]


def test_a_log_that_is_written_less_often_than_snapshots(tmp_path, make_trainer):
    trainer = make_trainer(tmp_path, epoch=3)
    trainer.get_extension("LogReport")._trigger = chainer.training.get_trigger(
        (2, "epoch")
    )
    trainer.run()
    assert len(json.loads((tmp_path / "log").read_text())) == 1
    newest = trainer.updater.iteration
    assert find_snapshot(tmp_path).name == f"snapshot_iter_{newest}"


def test_logs_with_nan_are_compared_too(tmp_path, make_trainer):
    trainer = make_trainer(tmp_path, epoch=2)

    @chainer.training.make_extension(trigger=(1, "epoch"), priority=200)
    def nothing(trainer):
        trainer.observation["nothing"] = float("nan")

    trainer.extend(nothing)
    trainer.run()
    assert find_snapshot(tmp_path).name == f"snapshot_iter_{trainer.updater.iteration}"


@pytest.fixture
def trained(tmp_path, make_trainer):
    """A trained classifier and files of it, its predictor and its Trainer."""
    trainer = make_trainer(tmp_path / "run", epoch=1)
    trainer.run()
    model = trainer.updater.get_optimizer("main").target
    for name, obj in (("model", model), ("predictor", model.predictor)):
        chainer.serializers.save_npz(str(tmp_path / name), obj)
    files = [tmp_path / "model", tmp_path / "predictor"]
    return model, [*files, find_snapshot(tmp_path / "run")]


def test_weights_of_a_predictor_are_found_in_every_file(tmp_path, trained):
    model, files = trained
    expected = serialize(model.predictor)
    for path in files:
        net = type(model.predictor)()  # whose first layer has no size yet
        load_weights(net, path)
        loaded = serialize(net)
        assert loaded.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_array_equal(loaded[key], value)


def test_weights_of_a_classifier(trained):
    model, (whole, part, snapshot) = trained
    for path in (whole, snapshot):
        classifier = chainer.links.Classifier(type(model.predictor)())
        load_weights(classifier, path)
        np.testing.assert_array_equal(
            classifier.predictor.l2.W.array, model.predictor.l2.W.array
        )
    with pytest.raises(SnapshotError, match="do not fit Classifier"):
        load_weights(classifier, part)


def test_weights_that_do_not_fit(tmp_path, trained):
    model, files = trained
    net = type(model.predictor)
    for path in files:
        with pytest.raises(SnapshotError, match=r"fit Net \(its [lb]\w/\w+ has shape"):
            load_weights(net(n_unit=9), path)
        other = net()
        other.add_link("l3", chainer.links.Linear(2, 2))
        with pytest.raises(SnapshotError, match=r"fit Net \(they lack l3/[Wb]\)"):
            load_weights(other, path)
        with pytest.raises(SnapshotError, match=r"fit Chain \(they also have bn/N"):
            chain = chainer.Chain(l1=chainer.links.Linear(None, 8), l2=net().l2)
            load_weights(chain, path)
    with pytest.raises(SnapshotError, match="there is no snapshot"):
        load_weights(net(), tmp_path / "missing")


def test_weights_run_no_code(tmp_path, trained):
    model, (_, path, _) = trained
    canary = tmp_path / "canary"
    harmful = rewrite(path, **{"l2/b": np.array(Malicious(canary), object)})
    with pytest.raises(SnapshotError, match="which could run code"):
        load_weights(type(model.predictor)(), harmful)
    assert not canary.exists()
