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


def test_cvmodelz_wraps():
    pytest.importorskip("cvmodelz")
    from cvmodelz.models import ModelFactory

    net = ModelFactory.new("cvmodelz.ResNet50")
    net.reinitialize_clf(7)
    assert net(np.zeros((2, 3, 224, 224), np.float32)).shape == (2, 7)


def test_chainer_addons_runs():
    pytest.importorskip("chainer_addons")
    from chainer_addons.links import Conv2D_BN

    x = np.random.rand(2, 3, 8, 8).astype(np.float32)
    h = Conv2D_BN(3, 4, 3, pad=1)(x)
    assert h.shape == (2, 4, 8, 8) and h.array.min() == 0
