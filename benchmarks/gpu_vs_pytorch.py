"""A training step of Manifold Mixup on a GPU, here and in PyTorch, in one run.

Each step mixes at a random layer of the network's default set. Candidates run in turns,
each in a process of its own. The estimate is what the convolutions need at the rates
of matrix products and copies that PyTorch reaches on this GPU, measured before. Where
PyTorch is missing, there is none, and ratios are to the first of ours.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec

NETWORKS = ("preactresnet18", "resnet50-cifar", "resnet50-imagenet", "wideresnet28_10")
PRECISIONS = ("tf32", "fp16")
# Name: the library, whether it mixes, how it runs.
CANDIDATES = {
    "PyTorch": ("torch", True, "eager"),
    "PyTorch, no mixing": ("torch", False, "eager"),
    "PyTorch, torch.compile": ("torch", True, "compile"),
    "PyTorch, CUDA graphs": ("torch", True, "graph"),
    "chainer-mmix": ("chainer", True, "eager"),
    "chainer-mmix, no mixing": ("chainer", False, "eager"),
    "chainer-mmix, CUDA graphs": ("chainer", True, "graph"),
}
LR, MOMENTUM, DECAY = 0.1, 0.9, 5e-4
N_EXAMPLE = 5120  # of the pipeline: like CIFAR, but random


def main(argv: list[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    check_device(args.device)
    if not find_spec("torch"):
        print("PyTorch is missing: only chainer-mmix is measured")
        own = [name for name in args.candidate if CANDIDATES[name][0] == "chainer"]
        args.candidate = own or sys.exit("nothing is left to measure: install PyTorch")
    print(versions(args.device))
    rates = call(measure_rates, args.device) if find_spec("torch") else None
    if rates:
        tf32, fp16 = (rates[name] / 1e12 for name in PRECISIONS)
        print(f"copies: {rates['copy'] / 1e9:.0f} GB/s")
        print(f"matrix products: {tf32:.0f} TFLOP/s in TF32, {fp16:.0f} in float16")
    if rates and args.device == "cuda":
        share = call(measure_mix) / rates["copy"]
        print(f"mix, (128, 256, 32, 32) in float16: {share:.0%} of the rate of copies")
    for network in args.network:
        for precision in args.precision:
            compare(args, network, precision, rates)


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument(
        "--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS
    )
    parser.add_argument(
        "--candidate", nargs="+", choices=CANDIDATES, default=tuple(CANDIDATES)
    )
    parser.add_argument(
        "--data",
        choices=("device", "pipeline"),
        default="device",
        help="one batch that stays on the device, or images from a dataset in host "
        "memory (default: device)",
    )
    parser.add_argument("--batchsize", type=int, default=128)
    parser.add_argument("--size", type=int, default=32, help="of the images, in pixels")
    parser.add_argument("--steps", type=int, default=50, help="in each turn")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument(
        "--device",
        choices=("cuda", "cpu"),
        default="cuda",
        help="cpu is to try this script, without graphs, in float32 (default: cuda)",
    )
    return parser


def check_device(device: str) -> None:
    """Ends the process if what is to be compared cannot run here."""
    if device == "cpu":
        return
    if find_spec("torch"):
        import torch

        if not torch.cuda.is_available():
            sys.exit(
                f"PyTorch {torch.__version__} finds no GPU: this benchmark needs an "
                "NVIDIA GPU, its driver and a build of PyTorch for CUDA"
            )
    from chainer_mmix.training import get_device

    try:
        get_device("@cupy:0")
    except ValueError as e:
        sys.exit(str(e))


def versions(device: str) -> str:
    """Describes where the figures come from."""
    name = call(gpu_name) if device == "cuda" else "CPU"
    packages = ["torch", "chainer", "chainer-mmix", "cupy-cuda12x", "cupy-cuda13x"]
    packages += ["nvidia-cudnn-cu12", "nvidia-cudnn-cu13", "nvidia-cudnn-frontend"]
    found = []
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{package} {importlib.metadata.version(package)}")
    return f"{name}; {', '.join(found)}"


def gpu_name() -> str:
    import cupy

    return cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()


def compare(args, network: str, precision: str, rates: dict | None) -> None:
    """Prints the table of one network and precision."""
    context = multiprocessing.get_context("spawn")
    ends = {}
    for name in args.candidate:
        library, mixes, way = CANDIDATES[name]
        if args.device == "cpu" and way != "eager":
            continue
        ends[name], end = context.Pipe()
        setting = library, network, precision, mixes, way, vars(args)
        context.Process(target=work, args=(end, setting)).start()
        end.close()  # so that each side notices when the other one has ended
    times: dict[str, list[float]] = {name: [] for name in ends}
    notes = {}
    try:
        for turn in range(args.turns + 1):
            for name, end in ends.items():
                # The first turn compiles, and captures each layer.
                end.send(args.steps if turn else 30 if args.device == "cuda" else 1)
                seconds = end.recv()
                if turn:
                    times[name].append(seconds)
        for name, end in ends.items():
            end.send(0)
            notes[name] = end.recv()
    except (EOFError, OSError):
        sys.exit(f"{name} on {network} ended early; its error is above")
    finally:
        for end in ends.values():
            end.close()
    shape = (args.batchsize, 3, args.size, args.size)
    estimate = None
    if rates:
        estimate = call(estimate_seconds, network, precision, shape, rates)
    print(f"\n{network}, {precision}, input {shape}, data from the {args.data}")
    print("\n".join(table(times, notes, args.batchsize, estimate)))


def table(
    times: dict, notes: dict, batchsize: int, estimate: float | None
) -> list[str]:
    """Returns the lines of a table; ratios are to the first candidate's speed."""
    base = next(iter(times.values()))
    lines = [f"{'':<27}{'images/s':>10}{'ms':>9}{'MiB':>8}{'ratio':>7}"]
    for name, seconds in times.items():
        median = statistics.median(seconds)
        ratio = statistics.median(b / s for b, s in zip(base, seconds, strict=True))
        peak, note = notes[name]
        lines.append(
            f"{name:<27}{batchsize / median:>10.0f}{1e3 * median:>9.2f}"
            f"{peak / 2**20:>8.0f}{ratio:>7.2f}  {note}".rstrip()
        )
    if estimate is not None:
        speed = batchsize / estimate
        lines.append(f"{'estimate':<27}{speed:>10.0f}{1e3 * estimate:>9.2f}")
    return lines


def work(connection, setting) -> None:
    """Makes as many steps as it is told to, and says how long one took."""
    library, *rest = setting
    make = torch_step if library == "torch" else chainer_step
    step, wait, finish = make(*rest)
    while steps := received(connection):
        wait()
        start = time.perf_counter()
        for _ in range(steps):
            step()
        wait()
        connection.send((time.perf_counter() - start) / steps)
    with contextlib.suppress(OSError):
        connection.send(finish())


def received(connection) -> int:
    """Returns how many steps to make; 0 also if nobody asks any more."""
    try:
        return connection.recv()
    except EOFError:
        return 0


def call(function: Callable, *args):
    """Calls a function in a process of its own, which leaves the GPU empty."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(function, args)


def random_data(n: int, size: int):
    import numpy as np

    random = np.random.default_rng(0)
    x = random.random((n, 3, size, size), np.float32)
    return x, random.integers(0, 10, n).astype(np.int32)


def chainer_step(network, precision, mixes, way, args):
    """Returns a step, what waits for its end, and what says memory and a remark."""
    import chainer

    dtype = chainer.mixed16 if precision == "fp16" else "float32"
    chainer.global_config.dtype = dtype

    import numpy as np
    from chainer.datasets import TupleDataset
    from chainer.training.updaters import StandardUpdater

    from chainer_mmix import ManifoldMixupClassifier, models, training

    name, _, stem = network.partition("-")
    net = models.MODELS[name](n_class=10, **({"stem": stem} if stem else {}))
    device = chainer.get_device("@cupy:0" if args["device"] == "cuda" else "@numpy")
    device.use()
    model = ManifoldMixupClassifier(net, mixes, mixup_alpha=2, accfun=None, seed=0)
    model.to_device(device)
    optimizer = chainer.optimizers.MomentumSGD(LR, MOMENTUM).setup(model)
    optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(DECAY))
    training.scale_loss(optimizer)
    n = args["batchsize"] if args["data"] == "device" else N_EXAMPLE
    dataset = TupleDataset(*random_data(n, args["size"]))
    iterator = chainer.iterators.SerialIterator(dataset, args["batchsize"])
    converter = training.convert_examples
    if args["data"] == "device":
        batch = converter(dataset[:], device)

        @chainer.dataset.converter()
        def converter(examples, device):
            return batch

    updater = training.GraphUpdater if way == "graph" else StandardUpdater
    updater = updater(iterator, optimizer, converter=converter, device=device)

    def wait():
        if device.xp is not np:
            device.xp.cuda.Device().synchronize()

    def finish():
        reason = getattr(updater, "reason", None)
        if device.xp is np:
            return 0, ""
        used = device.xp.get_default_memory_pool().total_bytes()
        if way == "graph":
            used += updater._graphs._pool.total_bytes()
        return used, f"without graphs: {reason}" if reason else ""

    return updater.update, wait, finish


def torch_step(network, precision, mixes, way, args):
    """Returns what :func:`chainer_step` does."""
    import torch

    device, size = torch.device(args["device"]), args["batchsize"]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    net = torch_network(network).to(device).to(memory_format=torch.channels_last)
    forward = torch.compile(net) if way == "compile" else net
    optimizer = torch.optim.SGD(net.parameters(), LR, MOMENTUM, weight_decay=DECAY)
    half = precision == "fp16" and device.type == "cuda"
    scaler = torch.amp.GradScaler("cuda", enabled=half)
    beta = torch.distributions.Beta(2.0, 2.0)
    loss_of = torch.nn.functional.cross_entropy
    layers = layers_of(network)

    def compute(x, t, layer, lam, perm):
        with torch.autocast(device.type, torch.float16, enabled=half):
            y = forward(x, layer, lam, perm)
        y = y.float()
        loss = loss_of(y, t)
        if layer is not None:
            loss = lam * loss + (1 - lam) * loss_of(y, t[perm])
        scaler.scale(loss).backward()

    batches = torch_batches(args, device)
    graphs: dict = {}
    x, t = next(batches)
    static = x.clone(memory_format=torch.channels_last), t.clone()
    lam, perm = torch.ones((), device=device), torch.arange(size, device=device)

    def captured(layer):
        """Captures a step of a layer, with gradients of its own."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                optimizer.zero_grad(set_to_none=True)
                compute(*static, layer, lam, perm)
        torch.cuda.current_stream().wait_stream(stream)
        optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        pool = next(iter(graphs.values()))[0].pool() if graphs else None
        with torch.cuda.graph(graph, pool=pool):
            compute(*static, layer, lam, perm)
        return graph, [p.grad for p in net.parameters()]

    def step():
        x, t = next(batches)
        layer = layers[torch.randint(len(layers), ()).item()] if mixes else None
        value = beta.sample()  # on the host
        if way == "graph":
            for own, new in zip(static, (x, t), strict=True):
                own.copy_(new)
            lam.copy_(value, non_blocking=True)
            torch.randperm(size, out=perm)
            if layer not in graphs:
                graphs[layer] = captured(layer)
            graph, grads = graphs[layer]
            graph.replay()
            for p, grad in zip(net.parameters(), grads, strict=True):
                p.grad = grad
        else:
            optimizer.zero_grad(set_to_none=True)
            drawn = torch.randperm(size, device=device) if mixes else None
            compute(x, t, layer, value.to(device, non_blocking=True), drawn)
        scaler.step(optimizer)
        scaler.update()

    def wait():
        if device.type == "cuda":
            torch.cuda.synchronize()

    def finish():
        if device.type != "cuda":
            return 0, ""
        return torch.cuda.max_memory_reserved(), ""

    return step, wait, finish


def torch_network(network: str):
    import torch_models

    name, _, stem = network.partition("-")
    return getattr(torch_models, name)(*[stem] if stem else [])


def layers_of(network: str) -> tuple[int, ...]:
    """Returns the mixing points that a network draws from."""
    from chainer_mmix import models

    return models.MODELS[network.partition("-")[0]].default_layer_mix


def torch_batches(args: dict, device):
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    on_device = args["data"] == "device"
    n = args["batchsize"] if on_device else N_EXAMPLE
    x, t = map(torch.from_numpy, random_data(n, args["size"]))
    t = t.long()
    layout = {"memory_format": torch.channels_last}
    if on_device:
        x, t = x.to(device, **layout), t.to(device)
        while True:
            yield x, t
    pin = device.type == "cuda"
    loader = DataLoader(
        TensorDataset(x, t), args["batchsize"], shuffle=True, drop_last=True,
        pin_memory=pin, num_workers=2, persistent_workers=True,
    )  # fmt: skip
    while True:
        for x, t in loader:
            yield (
                x.to(device, non_blocking=pin, **layout),
                t.to(device, non_blocking=pin),
            )


def measure_rates(device: str) -> dict[str, float]:
    """Measures bytes a second of copies, and operations of matrix products."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = True
    cuda = device == "cuda"

    def seconds(function) -> float:
        found = []
        for _ in range(8):
            if cuda:
                torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(5):
                function()
            if cuda:
                torch.cuda.synchronize()
            found.append((time.perf_counter() - start) / 5)
        return min(found)

    n = 1 << (28 if cuda else 22)
    source = torch.ones(n, device=device)
    target = torch.empty_like(source)
    rates = {"copy": 8 * n / seconds(lambda: target.copy_(source))}
    side = 8192 if cuda else 256
    for name, dtype in (("tf32", torch.float32), ("fp16", torch.float16)):
        a = torch.ones((side, side), device=device, dtype=dtype if cuda else None)
        rates[name] = 2 * side**3 / seconds(lambda a=a: a @ a)
    return rates


def measure_mix() -> float:
    """Returns bytes a second that the mixing kernel reads and writes."""
    import cupy
    import numpy as np

    from chainer_mmix.mixing import kernels

    x = cupy.ones((128, 256, 32, 32), np.float16)
    perm = cupy.random.permutation(128).astype(np.int32)
    a = np.float32(0.3)
    found = []
    for _ in range(20):
        cupy.cuda.Device().synchronize()
        start = time.perf_counter()
        for _ in range(10):
            kernels.mix(x, a, 1 - a, perm)
        cupy.cuda.Device().synchronize()
        found.append((time.perf_counter() - start) / 10)
    return 3 * x.nbytes / min(found)


def estimate_seconds(network: str, precision: str, shape: tuple, rates: dict) -> float:
    """Sums, over the layers, the time of their arithmetic or their memory traffic.

    A layer's output and its gradient are as large as each other. A convolution reads
    its input and writes its output, and twice as much backwards. Batch normalisation
    with ReLU passes over its input three times, and five times backwards.
    """
    size = 2 if precision == "fp16" else 4
    seconds = 0.0
    for kind, n_in, n_out, n_multiply in traffic(torch_network(network), shape):
        if kind == "conv":
            moved, operations = 3 * (n_in + n_out), 3 * 2 * n_multiply
        else:
            moved, operations = 8 * n_in, 0
        seconds += max(size * moved / rates["copy"], operations / rates[precision])
    return seconds


def traffic(net, shape: tuple) -> list[tuple[str, int, int, int]]:
    """Returns kind, elements in and out, and multiplications of each layer."""
    import torch
    from torch import nn

    found = []

    def note(layer, inputs, output):
        (x,) = inputs
        if isinstance(layer, nn.BatchNorm2d):
            found.append(("bn", x.numel(), output.numel(), 0))
        else:
            multiply = output.numel() * layer.weight[0].numel()
            found.append(("conv", x.numel(), output.numel(), multiply))

    for layer in net.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)):
            layer.register_forward_hook(note)
    with torch.no_grad():
        net.to("meta")(torch.empty(shape, device="meta"))
    return found


if __name__ == "__main__":
    main()
