import json

import chainer
import chainer.functions as F
import chainer.links as L
import chainercv
import numpy as np
import pytest

from chainer_mmix import MixupLayers, datasets, models
from chainer_mmix.cli.main import main
from chainer_mmix.inference import load_predictor
from chainer_mmix.inference.export import ExportError, export_onnx

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")


def run(path, *xs):
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return session.run(None, dict(zip(names, xs, strict=True)))


def images(n, size, channels=3, seed=0):
    rng = np.random.RandomState(seed)
    return rng.rand(n, channels, size, size).astype(np.float32)


def trained(net, x):
    """Gives batch normalisation statistics that are not those of the beginning."""
    net(x)
    rng = np.random.RandomState(1)
    for link in net.links():
        if isinstance(link, L.BatchNormalization):
            for array in (link.gamma.array, link.avg_var):
                array[...] = rng.uniform(0.5, 1.5, array.shape)
            for array in (link.beta.array, link.avg_mean):
                array[...] = rng.uniform(-0.1, 0.1, array.shape)
    return net


def in_float64(net, x):
    """What the network computes, in double precision, through Chainer's own code."""
    net = net.copy(mode="copy")
    for param in net.params():
        param.array = param.array.astype(np.float64)
    for link in net.links():
        for name in ("avg_mean", "avg_var"):
            if hasattr(link, name):
                setattr(link, name, getattr(link, name).astype(np.float64))
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        return net(x.astype(np.float64)).array


class Own(chainer.Chain):
    """Reshapes as L.Linear does, and pools."""

    def __init__(self):
        super().__init__(
            conv=L.Convolution2D(3, 8, 3, nobias=True),
            bn=L.BatchNormalization(8),
            fc=L.Linear(8 * 9 * 9, 20),
            out=L.Linear(20, 5),
        )

    def forward(self, x):
        h = F.max_pooling_2d(F.relu(self.bn(self.conv(x))), 2)
        return self.out(F.leaky_relu(self.fc(F.dropout(h))))


def cnn():
    return models.CNN(10)


def preactresnet18():
    return models.PreActResNet18(10, published=True, width=8)


def wideresnet():
    return models.WideResNet(10, depth=10, width=1)


def mixup_layers():
    return MixupLayers(Own(), ["input", "conv"])


def chainercvs_resnet50():
    net = chainercv.links.ResNet50(n_class=10)
    net.pick = "fc6"
    return net


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("make", "folds"),
    [
        (cnn, True),
        (mixup_layers, True),
        (preactresnet18, False),  # normalises before it convolves
        (wideresnet, False),
        pytest.param(chainercvs_resnet50, True, marks=SLOW),
        *(
            pytest.param(lambda c=c: c(10), c.__name__.startswith("ResNet"), marks=SLOW)
            for c in models.MODELS.values()
            if c.__name__ not in ("CNN", "ResNet152", "PreActResNet152")
        ),
    ],
)
def test_files_compute_what_chainer_does(make, folds, tmp_path):
    net = trained(make(), images(2, 20))
    x = images(5, 20, seed=1)
    difference = export_onnx(net, x[:3], tmp_path / "net.onnx")
    expected = in_float64(net, x)
    (y,) = run(tmp_path / "net.onnx", x)  # of another number of samples
    scale = np.abs(expected).max()
    assert np.abs(y - expected).max() < 3e-5 * scale
    assert 0 <= difference < 3e-5 * scale
    model = onnx.load(tmp_path / "net.onnx")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert model.ir_version == 8  # the oldest with opset 17
    ops = {node.op_type for node in model.graph.node}
    assert ("BatchNormalization" in ops) != folds
    assert "Dropout" not in ops
    assert [value.name for value in model.graph.input] == ["x"]
    first = model.graph.input[0].type.tensor_type.shape.dim[0]
    assert first.dim_param == "N"


def test_several_inputs_and_outputs(tmp_path):
    class Two(chainer.Chain):
        def __init__(self):
            super().__init__(fc=L.Linear(5, 4))

        def forward(self, a, b):
            return self.fc(F.concat((a, b))), F.sum(a, axis=1)

    net = Two()
    a, b = images(4, 3)[:, 0, 0], images(4, 2)[:, 1, 0]
    export_onnx(net, (a, b), tmp_path / "net.onnx")
    y, total = run(tmp_path / "net.onnx", a[:1], b[:1])
    np.testing.assert_allclose(y, net(a[:1], b[:1])[0].array, 1e-5)
    np.testing.assert_allclose(total, a[:1].sum(1), 1e-5)


@pytest.mark.parametrize(("opset", "ir"), [(11, 6), (13, 7), (21, 10)])
def test_other_opsets(opset, ir, tmp_path):
    net, x = cnn(), images(2, 8)
    export_onnx(net, x, tmp_path / "net.onnx", opset=opset)
    model = onnx.load(tmp_path / "net.onnx")
    assert (model.opset_import[0].version, model.ir_version) == (opset, ir)


def test_a_classifier_stands_for_its_predictor(tmp_path):
    net, x = cnn(), images(2, 8)
    export_onnx(L.Classifier(net), x, tmp_path / "net.onnx")
    with chainer.using_config("train", False):
        expected = net(x).array
    np.testing.assert_allclose(run(tmp_path / "net.onnx", x)[0], expected, 0, 1e-5)


class OfTheBatch(chainer.Chain):
    def forward(self, x):
        return x - F.broadcast_to(F.mean(x, axis=0, keepdims=True), x.shape)


class Grid(chainer.Chain):
    def forward(self, x):
        return F.spatial_transformer_grid(x, (3, 3))


class OfArrays(chainer.Chain):
    def forward(self, x):
        return F.relu(x.astype(np.float32))


class NotFinite(chainer.Chain):
    def forward(self, x):
        return F.log(F.relu(x) - 1)


@pytest.mark.parametrize(
    ("net", "x", "error"),
    [
        (OfArrays(), images(2, 4), "cannot export OfArrays: .* no attribute 'astype'"),
        (NotFinite(), images(2, 4), "outputs of NotFinite are not finite"),
        (Grid(), np.ones((2, 2, 3), "f"), "SpatialTransformerGrid is not supported"),
        (OfTheBatch(), images(3, 4), "computes something else than Chainer's"),
    ],
)
def test_what_cannot_be_exported_writes_nothing(net, x, error, tmp_path):
    with pytest.raises(ExportError, match=error):
        export_onnx(net, x, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("net", "x", "error"),
    [
        (cnn(), images(0, 8), "x has 0 samples: pass some real inputs"),
        (cnn(), [images(3, 8), images(1, 8)], "x has 3 and 1 samples"),
        (cnn(), chainer.Variable(images(2, 8)), "not of type Variable"),
        (cnn(), images(2, 8).tolist(), "not of type list"),
        (cnn(), [], "not of type list"),
        (type(cnn()), images(2, 8), "a chainer.Link, not <class .*: make one"),
    ],
)
def test_inputs_that_check_nothing_are_refused(net, x, error, tmp_path):
    with pytest.raises((TypeError, ValueError), match=error):
        export_onnx(net, x, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_a_wrong_file_is_noticed(tmp_path, monkeypatch):
    from onnx_chainer import functions
    from onnx_chainer.mapping import converters

    wrong = functions.convert_Tanh
    monkeypatch.setattr(converters["ReLU"], "converter", wrong)
    with pytest.raises(ExportError, match=r"outputs up to .* differ by up to"):
        export_onnx(cnn(), images(2, 8), tmp_path / "net.onnx")


def test_opsets_that_are_none(tmp_path):
    with pytest.raises(ExportError, match="opset must be 11 to"):
        export_onnx(cnn(), images(2, 8), tmp_path / "net.onnx", opset=7)


def test_the_command_checks_with_real_images(digits_run, tmp_path, capsys):
    out = tmp_path / "digits.onnx"
    assert main(["export", str(digits_run), str(out), "--which", "final"]) == 0
    captured = capsys.readouterr()
    assert "for 16 images of the test set of digits" in captured.out
    assert captured.err == ""
    x = np.stack([image for image, _ in datasets.get_digits()[1]])
    predictor = load_predictor(digits_run, "final")
    np.testing.assert_allclose(run(out, x)[0], predictor.scores(list(x)), 0, 1e-4)
    properties = {p.key: json.loads(p.value) for p in onnx.load(out).metadata_props}
    assert properties["class_names"] == [str(i) for i in range(10)]
    assert properties["input_shape"] == [1, 8, 8]


def test_without_the_data_random_images_serve(folder_run, tmp_path, capsys, pictures):
    import shutil

    run_ = tmp_path / "run"
    shutil.copytree(folder_run, run_)
    record = json.loads((run_ / "run.json").read_text())
    record["arguments"]["dataset"] = f"folder:{tmp_path / 'gone'}"
    (run_ / "run.json").write_text(json.dumps(record))
    assert main(["export", str(run_), str(tmp_path / "net.onnx")]) == 0
    captured = capsys.readouterr()
    assert "checked with random images" in captured.err
    x = np.stack([load_predictor(folder_run).preprocess.picture(p) for p in
                  sorted((pictures / "red").iterdir())])  # fmt: skip
    expected = load_predictor(folder_run).scores(list(x))
    np.testing.assert_allclose(run(tmp_path / "net.onnx", x)[0], expected, 0, 1e-4)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["net.pb"], "net.pb: give a name that ends in .onnx or .safetensors"),
        (["no/net.onnx"], "make no first"),
        (["net.onnx", "--opset", "99"], "opset must be 11 to"),
        (["net.safetensors", "--names", "torchvision"], "CNN is no network of"),
    ],
)
def test_bad_input(digits_run, words, error, tmp_path, monkeypatch, capsys):
    pytest.importorskip("safetensors")
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(digits_run), *words]) == 2
    assert error in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
