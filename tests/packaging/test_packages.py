"""Packages around Chainer at their main job: ``nox -s packages``.

Each is in an environment of its own, and skipped where it is not installed.
"""

import os
import struct
import subprocess
import sys
import time
from urllib.request import urlopen

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
import scipy.signal
from PIL import Image

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def single_precision():
    with chainer.using_config("dtype", np.float32):
        yield


def test_no_package_downgrades_numpy():
    assert int(np.__version__.split(".")[0]) >= 2


def test_chainerrl_learns():
    chainerrl = pytest.importorskip("chainerrl")
    from chainerrl.agents.a3c import A3CSeparateModel
    from chainerrl.envs.abc import ABC

    np.random.seed(0)
    env = ABC(discrete=True)
    n_in, n_out = env.observation_space.low.size, env.action_space.n
    policy = chainerrl.policies.FCSoftmaxPolicy(n_in, n_out, 1, 50)
    model = A3CSeparateModel(policy, chainerrl.v_functions.FCVFunction(n_in, 1, 50))
    optimizer = chainer.optimizers.Adam(1e-2).setup(model)
    agent = chainerrl.agents.PPO(
        model, optimizer, gamma=0.9, update_interval=50, minibatch_size=25, epochs=3
    )
    rewards = []
    for _ in range(400):
        x, reward, done, total = env.reset(), 0, False, 0
        while not done:
            x, reward, done, _ = env.step(agent.act_and_train(x, reward))
            total += reward
        agent.stop_episode_and_train(x, reward, done)
        rewards.append(total)
    assert np.mean(rewards[:50]) < 0.8 and np.mean(rewards[-50:]) == 1


def test_chainerrl_of_an_array_of_one_element():
    pytest.importorskip("chainerrl")
    from chainerrl.agents import dqn

    assert dqn.float(np.ones((1, 1), np.float32)) == 1
    with pytest.raises(TypeError):
        dqn.float(np.ones(2))


def test_chainer_chemistry_trains():
    pytest.importorskip("chainer_chemistry")
    from chainer_chemistry.dataset.converters import concat_mols
    from chainer_chemistry.dataset.parsers import SmilesParser
    from chainer_chemistry.dataset.preprocessors import GGNNPreprocessor
    from chainer_chemistry.models import GGNN, Classifier, Regressor

    np.random.seed(0)
    metrics = F.binary_accuracy
    smiles = ["CCO", "c1ccccc1O", "CC(=O)O", "CCN"]
    parsed = SmilesParser(GGNNPreprocessor()).parse(smiles)["dataset"]
    atoms, adjacency = concat_mols(parsed)
    assert atoms.shape == (4, 7)
    for make, target in (
        (lambda net: Regressor(net, F.mean_squared_error), np.float32),
        (lambda net: Classifier(net, F.sigmoid_cross_entropy, metrics), np.int32),
    ):
        model = make(GGNN(out_dim=1, hidden_channels=8, n_update_layers=2))
        optimizer = chainer.optimizers.Adam(1e-2).setup(model)
        t = np.array([[0], [1], [1], [0]], target)
        losses = []
        for _ in range(60):
            optimizer.update(model, atoms, adjacency, t)
            losses.append(float(model.loss.array))
        assert losses[-1] < losses[0] / 2


def test_chainer_mask_rcnn_trains(tmp_path):
    rcnn = pytest.importorskip("chainer_mask_rcnn")
    from chainer_mask_rcnn.functions.roi_pooling_2d import roi_pooling_2d

    np.random.seed(0)
    chainer.dataset.set_dataset_root(str(tmp_path))
    weights = tmp_path / "pfnet/chainer/models/ResNet-50-model.npz"
    resnet = L.ResNet50Layers(pretrained_model=None)
    for name, link in resnet.namedlinks():
        if name.endswith("bn3"):
            link.gamma.array[...] = 0.1
    weights.parent.mkdir(parents=True)
    chainer.serializers.save_npz(weights, resnet)
    proposals = ("min_size", 0), ("n_train_pre_nms", 200), ("n_train_post_nms", 50)
    proposals += ("n_test_pre_nms", 200), ("n_test_post_nms", 4)
    net = rcnn.models.MaskRCNNResNet(
        50,
        n_fg_class=2,
        pooling_func=roi_pooling_2d,
        **{"min_size": 64, "anchor_scales": (2, 4), "rpn_hidden": 64},
        proposal_creator_params=dict(proposals),
    )
    creator = rcnn.models.utils.ProposalTargetCreator(n_sample=8)
    chain = rcnn.models.MaskRCNNTrainChain(net, proposal_target_creator=creator)
    optimizer = chainer.optimizers.Adam(1e-4).setup(chain)

    image = np.random.rand(3, 64, 64).astype("f") * 50
    image[:, 8:40, 10:50] += 150
    mask = np.zeros((1, 64, 64), np.int32)
    mask[0, 8:40, 10:50] = 1
    box, label = np.float32([[8, 10, 40, 50]]), np.int32([0])
    (x,), _, scales = net.prepare([image])
    losses = []
    for _ in range(4):
        loss = chain(x[None], [box], [label], [mask], np.array(scales))
        chain.cleargrads()
        loss.backward()
        optimizer.update()
        losses.append(float(loss.array))
    assert losses[-1] < losses[0] / 2
    net.score_thresh = 0
    (boxes,), (masks,), (labels,), _ = net.predict([image])
    assert masks.shape == (len(boxes), 64, 64) and {0, 1} >= set(labels)


def test_tensorboard_chainer_writes_what_tensorboard_reads(tmp_path):
    tb_chainer = pytest.importorskip("tb_chainer")
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")

    writer = tb_chainer.SummaryWriter(str(tmp_path))
    for i in range(3):
        writer.add_scalar("loss", 1 / (i + 1), i)
    model = L.Classifier(L.Linear(4, 3))
    loss = model(np.zeros((2, 4), np.float32), np.zeros(2, np.int32))
    writer.add_all_parameter_histograms([loss], 0)
    writer.add_image("image", np.random.rand(3, 8, 8), 0)
    writer.add_graph([loss])
    writer.close()

    (file,) = tmp_path.glob("events*")
    data, events = file.read_bytes(), []
    while data:
        (length,) = struct.unpack("Q", data[:8])
        events.append(event_pb2.Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    values = [(e.step, v) for e in events for v in e.summary.value]
    scalars = {step: v.simple_value for step, v in values if v.tag == "loss"}
    assert scalars == pytest.approx({0: 1, 1: 1 / 2, 2: 1 / 3})
    assert any(v.HasField("histo") for _, v in values)
    assert any(v.image.width == 8 for _, v in values)
    assert any(e.graph_def for e in events)


def test_chainer_computational_cost_counts():
    cost = pytest.importorskip("chainer_computational_cost")
    x = chainer.Variable(np.zeros((2, 3, 9, 8), np.float32))
    with cost.ComputationalCostHook(fma_1flop=False) as hook:
        F.max_pooling_2d(L.Convolution2D(3, 4, (3, 2))(x), (3, 2), (3, 2), (1, 0))
    convolution, pooling, total = hook.layer_report.values()
    assert convolution["flops"] == 2 * 4 * 7 * 7 * 3 * 3 * 2 * 2  # one with the bias
    assert pooling["flops"] == 2 * 4 * 3 * 4 * (3 * 2 - 1)
    assert total["flops"] == convolution["flops"] + pooling["flops"]
    assert pooling["params"] == {"k": (3, 2), "s": (3, 2), "p": (1, 0)}


def test_chainerui_serves(tmp_path):
    pytest.importorskip("chainerui")
    env = {**os.environ, "CHAINERUI_ROOT": str(tmp_path)}
    command = [os.path.join(os.path.dirname(sys.executable), "chainerui")]
    for words in (["db", "create"], ["db", "upgrade"]):
        subprocess.run([*command, *words], check=True, env=env)
    with subprocess.Popen([*command, "server", "-p", "5137"], env=env) as server:
        try:
            for _ in range(60):
                time.sleep(1)
                try:
                    url = "http://localhost:5137/api/v1/projects"
                    answer = urlopen(url).read()
                    break
                except OSError:
                    assert server.poll() is None
        finally:
            server.terminate()
    assert answer.strip() == b'{"projects":[]}'


def test_chainercv2_finds_maxima_of_heatmaps():
    pytest.importorskip("chainercv2")
    from chainercv2.models.common import HeatmapMaxDetBlock

    heatmap = np.zeros((1, 2, 6, 5), np.float32)
    heatmap[0, 0, 2, 3], heatmap[0, 0, 2, 4] = 3, 1  # half a pixel's half to the right
    heatmap[0, 1, 0, 0] = 2
    found = HeatmapMaxDetBlock()(chainer.Variable(heatmap))
    np.testing.assert_array_equal(found, [[[3.25, 2, 3], [0, 0, 2]]])


def test_chainercv2_listens():
    pytest.importorskip("chainercv2")
    librosa = pytest.importorskip("librosa")
    from chainercv2.model_provider import get_model

    sound = np.random.RandomState(0).randn(16000)
    net = get_model("quartznet5x5_en_ls")
    with chainer.using_config("train", False):
        y, lengths = net(sound[None].copy(), np.int32([0]))
    assert y.shape == (1, 29, 56) and lengths == [50]

    features, _ = net.preprocessor([sound.copy()])
    mel = librosa.feature.melspectrogram(
        y=np.append(sound[0], sound[1:] - 0.97 * sound[:-1]),
        **{"sr": 16000, "n_fft": 512, "win_length": 320, "hop_length": 160},
        **{"n_mels": 64, "window": scipy.signal.windows.hann(320)},
    )
    expected = np.log(mel + 2**-24)
    expected -= expected.mean(axis=1, keepdims=True)
    expected /= expected.std(axis=1, keepdims=True) + 1e-5
    np.testing.assert_allclose(features[0, :, :100], expected[:, :100], rtol=1e-4)


@pytest.mark.parametrize("name", ["regnetx002", "ntsnet_cub"])
def test_chainercv2_makes_networks(name):
    pytest.importorskip("chainercv2")
    from chainercv2.model_provider import get_model

    assert get_model(name).count_params() > 1e6


def test_nnoir_chainer_computes_the_same(tmp_path):
    nnoir_chainer = pytest.importorskip("nnoir_chainer")

    class Net(chainer.Chain):
        def __init__(self):
            super().__init__(
                conv=L.Convolution2D(3, 4, 3),
                bn=L.BatchNormalization(4),
                fc=L.Linear(36, 5),
            )

        def forward(self, x):
            return self.fc(F.max_pooling_2d(F.relu(self.bn(self.conv(x))), 2))

    net, x = Net(), chainer.Variable(np.random.rand(2, 3, 8, 8).astype(np.float32))
    with chainer.using_config("train", False):
        y = net(x)
        path = tmp_path / "net.nnoir"
        path.write_bytes(nnoir_chainer.Graph(net, (x,), (y,)).to_nnoir())
        again = nnoir_chainer.NNOIRFunction(str(path))(x)
    np.testing.assert_allclose(again.array, y.array, rtol=1e-6)


def test_cvmodelz_fine_tunes():
    pytest.importorskip("cvmodelz")
    from cvmodelz.classifiers import Classifier
    from cvmodelz.models import ModelFactory

    np.random.seed(0)
    net = ModelFactory.new("cvmodelz.ResNet35")
    net.reinitialize_clf(3)
    t = np.int32([0, 1, 2, 0, 1, 2])
    x = np.random.rand(6, 3, 64, 64).astype("f") + t[:, None, None, None].astype("f")
    model = Classifier(net)
    optimizer = chainer.optimizers.SGD(0.01).setup(model)
    for _ in range(6):
        optimizer.update(model, x, t)
    assert float(net.accuracy(net(x, layer_name=net.clf_layer_name), t).array) == 1


@pytest.mark.parametrize("arch", ["VGG7", "UpConv7", "ResNet10", "UpResNet10"])
def test_waifu2x_enlarges(arch, tmp_path, monkeypatch):
    waifu2x = pytest.importorskip("waifu2x")

    def picture(scale):  # sampled at the centres of its pixels
        y, x = (np.mgrid[: 40 * scale, : 48 * scale] + 0.5) / scale
        waves = np.sin(x / 6), np.cos(y / 5), np.sin((x + y) / 9)
        return 127 + 100 * np.stack(waves, axis=2)

    small, large = tmp_path / "small.png", tmp_path / "large.png"
    Image.fromarray(picture(1).astype(np.uint8)).save(small)
    words = ["waifu2x", "-i", small, "-o", large, "-a", arch, "-l", 32]
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    waifu2x.main()
    error = np.asarray(Image.open(large)) - picture(2)
    assert (error**2).mean() ** 0.5 < 2.5


def test_chainer_addons_runs():
    pytest.importorskip("chainer_addons")
    from chainer_addons.links import Conv2D_BN

    x = np.random.rand(2, 3, 8, 8).astype(np.float32)
    h = Conv2D_BN(3, 4, 3, pad=1)(x)
    assert h.shape == (2, 4, 8, 8) and h.array.min() == 0
