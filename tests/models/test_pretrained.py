import pickle
import shutil
import zipfile

import chainer
import chainer.links as L
import chainercv
import numpy as np
import pytest
from chainer.initializers import HeNormal
from chainer.serializers import DictionarySerializer, save_npz

from chainer_mmix import ManifoldMixupClassifier
from chainer_mmix.models import (
    CNN,
    MODELS,
    PreActResNet18,
    ResNet18,
    ResNet50,
    ResNet101,
    WideResNet,
    load_pretrained,
)

UPSTREAM = {
    "chainer": lambda: L.ResNet50Layers(pretrained_model=None),
    "chainer-fb": lambda: L.ResNet50Layers(pretrained_model=None, downsample_fb=True),
    "chainercv-he": lambda: chainercv.links.ResNet50(arch="he"),
    "chainercv-fb": lambda: chainercv.links.ResNet50(arch="fb"),
}


def weights(net):
    serializer = DictionarySerializer()
    serializer.save(net)
    return {name: np.copy(value) for name, value in serializer.target.items()}


def assert_same(weights, others, where=lambda name: True):
    assert weights.keys() == others.keys()
    for name in filter(where, weights):
        np.testing.assert_array_equal(weights[name], others[name], err_msg=name)


def randomize(net):
    """Makes of trivial batch normalisation the one of a trained network."""
    rng = np.random.RandomState(0)
    for link in net.links():
        if isinstance(link, L.BatchNormalization):
            shape = link.gamma.shape
            link.gamma.array[...] = rng.rand(*shape) + 0.5
            link.beta.array[...] = rng.randn(*shape)
            link.avg_mean[...] = rng.randn(*shape)
            link.avg_var[...] = rng.rand(*shape) + 0.5


@pytest.mark.parametrize("name", UPSTREAM)
def test_body_computes_what_the_upstream_network_does(name, tmp_path):
    theirs = UPSTREAM[name]()
    x = np.random.RandomState(0).rand(2, 3, 64, 64).astype(np.float32)
    theirs(x)
    randomize(theirs)
    save_npz(tmp_path / "ResNet-50-model.npz", theirs, compression=False)
    net = ResNet50(n_class=10, downsample_fb=name.endswith("fb"))
    last = weights(net.fc6)

    load_pretrained(net, tmp_path / "ResNet-50-model.npz")

    with chainer.using_config("train", False), chainer.no_backprop_mode():
        if name.startswith("chainercv"):
            theirs.pick = "pool5"
            expected = theirs(x).array
        else:
            expected = theirs(x, layers=["pool5"])["pool5"].array
        h = x
        for stage in net.stages():
            h = stage(h)
        np.testing.assert_allclose(
            h.array.mean((2, 3)), expected, rtol=1e-3, atol=1e-3 * expected.std()
        )
        np.testing.assert_allclose(
            net(x).array, expected @ last["W"].T, rtol=1e-3, atol=1e-3 * expected.std()
        )
    assert_same(weights(net.fc6), last)


@pytest.fixture
def no_random_weights(monkeypatch):
    monkeypatch.setattr(HeNormal, "__call__", lambda self, array: array.fill(0))


@pytest.mark.usefixtures("no_random_weights")
@pytest.mark.parametrize(("depth", "arch"), [(101, "fb"), (152, "he")])
def test_all_names_of_chainercvs_deeper_networks_are_known(depth, arch, tmp_path):
    theirs = getattr(chainercv.links, f"ResNet{depth}")(arch=arch)
    theirs(np.zeros((2, 3, 16, 16), np.float32))
    theirs.res4.b22.conv3.bn.gamma.array[...] = 7
    save_npz(tmp_path / "w.npz", theirs, compression=False)
    net = MODELS[f"resnet{depth}"](10, downsample_fb=arch == "fb")
    load_pretrained(net, tmp_path / "w.npz")
    assert (net.res4.b22.bn3.gamma.array == 7).all()


OWN = {
    "cnn": lambda n_class: CNN(n_class, width=4),
    "wideresnet": lambda n_class: WideResNet(n_class, 10, 2),
    "resnet18": lambda n_class: ResNet18(n_class, stem="cifar"),
    "preactresnet18": PreActResNet18,
}


@pytest.mark.parametrize(
    ("name", "initialized"),
    [("cnn", True), *((name, False) for name in OWN)],
)
def test_weights_of_the_same_class_load(name, initialized, tmp_path):
    x = np.random.RandomState(0).rand(2, 1, 8, 8).astype(np.float32)
    saved, net = OWN[name](3), OWN[name](5)
    saved(x)
    if initialized:
        net(x)
    save_npz(tmp_path / "w.npz", saved, compression=False)
    last = "fc6" if name == "resnet18" else "fc"
    before = weights(net[last])
    load_pretrained(net, str(tmp_path / "w.npz"))
    assert_same(weights(net), weights(saved), lambda name: not name.startswith("fc"))
    assert_same(weights(net[last]), before)


def test_the_last_layer_is_replaced_even_if_it_would_fit(tmp_path):
    saved, net = CNN(3, width=4), CNN(3, width=4)
    saved(np.zeros((2, 1, 8, 8), np.float32))
    last = weights(net.fc)
    save_npz(tmp_path / "w.npz", saved)
    load_pretrained(net, tmp_path / "w.npz")
    assert_same(weights(net.fc), last)


@pytest.mark.parametrize("kind", ["classifier", "trainer"])
def test_a_snapshot_loads(kind, tmp_path):
    model = ManifoldMixupClassifier(WideResNet(3, 10, 1))
    x, t = np.random.rand(4, 3, 8, 8).astype(np.float32), np.arange(4) % 3
    optimizer = chainer.optimizers.Adam().setup(model)
    iterator = chainer.iterators.SerialIterator(list(zip(x, t, strict=True)), 4)
    updater = chainer.training.StandardUpdater(iterator, optimizer)
    trainer = chainer.training.Trainer(updater, (1, "epoch"), out=str(tmp_path))
    trainer.extend(chainer.training.extensions.snapshot(filename="trainer"))
    trainer.run()
    save_npz(str(tmp_path / "classifier"), model)
    net = WideResNet(5, 10, 1)
    load_pretrained(net, tmp_path / kind)
    assert_same(
        weights(net), weights(model.predictor), lambda name: not name.startswith("fc")
    )


def saved(tmp_path, net, channels=3):
    net(np.zeros((2, channels, 16, 16), np.float32))
    save_npz(tmp_path / "w.npz", net, compression=False)
    return tmp_path / "w.npz"


def assert_refused(net, path, match):
    before = weights(net)
    with pytest.raises(ValueError, match=match):
        load_pretrained(net, path)
    assert_same(weights(net), before)


def test_files_that_are_no_weights_are_refused(tmp_path):
    net = WideResNet(3, 10, 1)
    assert_refused(net, tmp_path / "none.npz", r"none\.npz cannot be read \(No such fi")
    assert_refused(net, tmp_path, "cannot be read")
    good = saved(tmp_path, WideResNet(3, 10, 1))
    bad = tmp_path / "bad.npz"
    for content in (b"", b"hello", pickle.dumps([1]), good.read_bytes()[:-1000]):
        bad.write_bytes(content)
        assert_refused(net, bad, r"bad\.npz is no npz file of weights")
    np.save(tmp_path / "array.npy", np.zeros(3))
    assert_refused(net, tmp_path / "array.npy", r"array\.npy is no npz file of weights")
    with zipfile.ZipFile(bad, "w") as archive:
        archive.writestr("word/document.xml", "<xml/>")
    assert_refused(net, bad, r"bad\.npz is no npz file of weights")
    with zipfile.ZipFile(bad, "w") as archive:
        archive.writestr("conv1/W.npy", "not an array")
    assert_refused(net, bad, r"bad\.npz is no npz file of weights")
    np.savez(bad, strange=np.zeros(3))
    assert_refused(net, bad, r"they lack block1/a/bn1/N and 43 more: choose")


def test_a_damaged_file_is_refused_or_harmless(tmp_path):
    net = CNN(2, width=1)
    path = saved(tmp_path, net)
    content = path.read_bytes()
    before = weights(net)
    refused = 0
    for i in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[i] ^= 4
        path.write_bytes(damaged)
        try:
            load_pretrained(net, path)
        except ValueError:
            refused += 1
    assert_same(weights(net), before)
    assert refused > len(content) / 7 / 2


class Bomb:
    def __reduce__(self):
        return (shutil.rmtree, ("/nowhere/to/be/found",))


def test_nothing_is_unpickled(tmp_path):
    content = weights(WideResNet(3, 10, 1))
    content["conv1/W"] = np.array(Bomb(), dtype=object)
    np.savez(tmp_path / "w.npz", **content)
    assert_refused(
        WideResNet(3, 10, 1), tmp_path / "w.npz", "is no npz file of weights"
    )


def test_weights_of_another_type_are_refused(tmp_path):
    path = saved(tmp_path, WideResNet(3, 10, 1))
    content = dict(np.load(path))
    content["block3/a/conv2/W"] = content["block3/a/conv2/W"].astype(str)
    np.savez(path, **content)
    match = "their block3/a/conv2/W is of type <U32, not float32"
    assert_refused(WideResNet(3, 10, 1), path, match)


def test_half_precision_loads(tmp_path):
    path = saved(tmp_path, WideResNet(3, 10, 1))
    content = {
        k: v.astype(np.float16) if v.ndim else v for k, v in np.load(path).items()
    }
    np.savez(path, **content)
    net = WideResNet(3, 10, 1)
    load_pretrained(net, path)
    assert net.conv1.W.dtype == np.float32
    np.testing.assert_array_equal(net.conv1.W.array, content["conv1/W"])


def test_another_depth_is_named(tmp_path):
    match = (
        r"w\.npz do not fit WideResNet: their stages have 1, 1, 1 units, not 2, 2, 2: "
        "choose the model of that depth"
    )
    assert_refused(WideResNet(3, 16, 1), saved(tmp_path, WideResNet(3, 10, 1)), match)


@pytest.mark.usefixtures("no_random_weights")
def test_another_depth_of_resnet_is_named(tmp_path):
    path = saved(tmp_path, ResNet50(3))
    match = "their stages have 3, 4, 6, 3 units, not 3, 4, 23, 3"
    assert_refused(ResNet101(3), path, match)
    # As many units in each stage, but not of the same kind.
    match = "their res2/a/conv1/W has shape .64, 64, 1, 1., not .64, 64, 3, 3.: choose"
    assert_refused(MODELS["resnet34"](3), path, match)
    theirs = chainercv.links.SEResNet50(n_class=3)
    match = r"they also have res2/a/se/down/W and \d+ more: choose the model"
    assert_refused(ResNet50(3, downsample_fb=True), saved(tmp_path, theirs), match)


def test_other_channels_are_named(tmp_path):
    net = WideResNet(3, 10, 1)
    net(np.zeros((2, 1, 8, 8), np.float32))
    match = (
        r"their conv1/W has shape \(16, 3, 3, 3\), not \(16, 1, 3, 3\): they are for "
        "images of 3 channels, the model is for 1"
    )
    assert_refused(net, saved(tmp_path, WideResNet(3, 10, 1)), match)


def test_another_width_is_named(tmp_path):
    match = r"their block1/a/.* has shape .*: choose the model that they were saved"
    assert_refused(WideResNet(3, 10, 1), saved(tmp_path, WideResNet(3, 10, 2)), match)


@pytest.mark.usefixtures("no_random_weights")
@pytest.mark.parametrize("initialized", [True, False])
@pytest.mark.parametrize(
    ("stem", "other"), [("imagenet", "cifar"), ("cifar", "imagenet")]
)
def test_another_stem_is_named(stem, other, initialized, tmp_path):
    net = ResNet50(3, stem=other)
    if initialized:
        net(np.zeros((2, 3, 8, 8), np.float32))
    path = saved(tmp_path, ResNet50(3, stem=stem))
    match = rf"their conv1/W has shape .64, 3, \d, \d.*make it with stem='{stem}'"
    assert_refused(net, path, match)


@pytest.mark.usefixtures("no_random_weights")
@pytest.mark.parametrize(("arch", "is_fb"), [("fb", True), ("he", False)])
def test_the_other_arch_of_chainercvs_resnet50_is_named(arch, is_fb, tmp_path):
    path = saved(tmp_path, chainercv.links.ResNet50(n_class=3, arch=arch))
    match = f"they are of arch='{arch}': make it with downsample_fb={is_fb}"
    assert_refused(ResNet50(3, downsample_fb=not is_fb), path, match)
