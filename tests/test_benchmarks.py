"""What the benchmark against PyTorch on a GPU stands on, as far as a CPU can tell."""

import pathlib

import chainer
import chainer.links as L
import numpy as np
import pytest

from chainer_mmix import models
from chainer_mmix.mixing.draw import MixupDraw, using_draw

NETWORKS = {
    "preactresnet18": lambda: models.PreActResNet18(10),
    "resnet50-cifar": lambda: models.ResNet50(10, stem="cifar"),
    "resnet50-imagenet": lambda: models.ResNet50(10),
    "wideresnet28_10": lambda: models.WideResNet28_10(10),
}


@pytest.fixture
def benchmark(monkeypatch):
    folder = pathlib.Path(__file__).parents[1] / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    import gpu_vs_pytorch

    return gpu_vs_pytorch


def test_every_network_is_compared(benchmark):
    assert set(benchmark.NETWORKS) == set(NETWORKS)


def in_order(link):
    """Yields the layers in the order in which they were made."""
    if isinstance(link, (L.Convolution2D, L.BatchNormalization, L.Linear)):
        yield link
    for child in vars(link).values():
        if isinstance(child, chainer.Link):
            yield from in_order(child)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_the_networks_in_pytorch_are_ours(name, benchmark):
    size = 64 if "imagenet" in name else 16  # enough for the batch statistics
    torch = pytest.importorskip("torch")
    x = np.random.RandomState(0).standard_normal((2, 3, size, size)).astype("f")
    target = np.arange(2, dtype="i")
    ours, theirs = NETWORKS[name](), benchmark.torch_network(name)
    ours(x)
    links = list(in_order(ours))
    layers = [layer for layer in theirs.modules() if hasattr(layer, "weight")]
    with torch.no_grad():
        for link, layer in zip(links, layers, strict=True):
            is_bn = isinstance(link, L.BatchNormalization)
            weight, bias = (link.gamma, link.beta) if is_bn else (link.W, link.b)
            layer.weight.copy_(torch.from_numpy(weight.array))
            assert (bias is None) == (layer.bias is None)
            if bias is not None:
                layer.bias.copy_(torch.from_numpy(bias.array))
        for layer_mix in benchmark.layers_of(name):
            perm = np.array([1, 0])
            with using_draw(MixupDraw(layer_mix, 0.3, perm)):
                wanted, _, _ = ours(x, target, True, 0.3, layer_mix)
            actual = theirs(torch.from_numpy(x), layer_mix, 0.3, torch.from_numpy(perm))
            np.testing.assert_allclose(actual, wanted.array, 1e-2, 1e-3)
    n_parameter = sum(p.numel() for p in theirs.parameters())
    assert n_parameter == ours.count_params()


def test_traffic_of_a_network_by_hand(benchmark):
    nn = pytest.importorskip("torch").nn
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(128, 10)
    )
    assert benchmark.traffic(net, (5, 3, 8, 8)) == [
        ("conv", 5 * 3 * 64, 5 * 8 * 16, 5 * 8 * 16 * 27),
        ("bn", 5 * 8 * 16, 5 * 8 * 16, 0),
        ("conv", 5 * 128, 5 * 10, 5 * 10 * 128),
    ]


def test_multiplications_of_preactresnet18_are_the_published_ones(benchmark):
    pytest.importorskip("torch")
    net = benchmark.torch_network("preactresnet18")
    layers = benchmark.traffic(net, (1, 3, 32, 32))
    # kuangliu's pytorch-cifar and the many who counted it: 0.56 G.
    assert sum(n for *_, n in layers) == pytest.approx(0.56e9, rel=0.01)


def test_estimate_is_the_slower_of_arithmetic_and_memory(benchmark, monkeypatch):
    layers = [("conv", 10, 20, 500), ("bn", 20, 20, 0)]
    monkeypatch.setattr(benchmark, "traffic", lambda net, shape: layers)
    monkeypatch.setattr(benchmark, "torch_network", lambda name: None)
    rates = {"copy": 100.0, "tf32": 1000.0, "fp16": 1e9}
    # 6 * 500 operations, or 4 bytes * 3 * 30 elements; 8 passes over 20 elements.
    seconds = benchmark.estimate_seconds("", "tf32", (), rates)
    assert seconds == pytest.approx(max(3.0, 3.6) + 6.4)
    seconds = benchmark.estimate_seconds("", "fp16", (), rates)
    assert seconds == pytest.approx(1.8 + 3.2)
    rates["tf32"] = 300.0
    seconds = benchmark.estimate_seconds("", "tf32", (), rates)
    assert seconds == pytest.approx(10 + 6.4)


def test_table(benchmark):
    times = {"PyTorch": [0.1, 0.2, 0.4], "chainer-mmix": [0.05, 0.2, 0.1]}
    notes = {"PyTorch": (2**30, ""), "chainer-mmix": (2**20, "without graphs: why")}
    head, first, second, last = benchmark.table(times, notes, 128, 0.064)
    assert head.split() == ["images/s", "ms", "MiB", "ratio"]
    assert first.split() == ["PyTorch", "640", "200.00", "1024", "1.00"]
    assert second.split()[:5] == ["chainer-mmix", "1280", "100.00", "1", "2.00"]
    assert second.endswith("without graphs: why")
    assert last.split() == ["estimate", "2000", "64.00"]


def test_without_pytorch_or_a_gpu_it_says_what_is_missing(benchmark, monkeypatch):
    monkeypatch.setattr(benchmark, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"GPU 0 (cannot be used|needs CuPy)"):
        benchmark.main([])
    with pytest.raises(SystemExit, match="nothing is left to measure"):
        benchmark.main(["--device", "cpu", "--candidate", "PyTorch"])


@pytest.mark.slow
def test_without_pytorch_ours_are_measured(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "find_spec", lambda name: None)
    monkeypatch.setattr(benchmark, "call", lambda function, *args: function(*args))
    options = "--device cpu --network preactresnet18 --precision tf32 --batchsize 4"
    benchmark.main([*options.split(), "--size", "8", "--turns", "1", "--steps", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "PyTorch is missing: only chainer-mmix is measured"
    assert lines[-2].startswith("chainer-mmix") and lines[-2].split()[-1] == "1.00"
    assert lines[-1].startswith("chainer-mmix, no mixing")


def test_without_a_gpu_it_says_so(benchmark):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(SystemExit, match="finds no GPU: this benchmark needs"):
        benchmark.main([])


def test_the_input_pipeline_makes_normalised_batches(monkeypatch, tmp_path, benchmark):
    import pipeline

    monkeypatch.setattr(pipeline, "N_IMAGE", 64)
    folder = tmp_path / "photographs"
    pipeline.write_photographs(folder)
    assert len(list(folder.glob("*/*.jpg"))) == 80  # a fifth is for validation
    read = pipeline.ours(folder, 1)
    batch = read()
    assert batch.shape == (32, 3, 224, 224) and batch.dtype == np.float32
    low, high = (
        (bound - np.array(pipeline.MEAN)) / np.array(pipeline.STD) for bound in (0, 1)
    )
    assert (batch.min(axis=(0, 2, 3)) >= low - 1e-5).all()
    assert (batch.max(axis=(0, 2, 3)) <= high + 1e-5).all()
    speeds = pipeline.measure({"ours": read}, 1)
    assert len(speeds["ours"]) == 1
