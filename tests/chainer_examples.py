"""Runs Chainer's own examples with Chainer's code and with the fast CPU paths.

    python tests/chainer_examples.py [--rounds N] CHECKOUT [name ...]

CHECKOUT is a git checkout of Chainer, tag v7.8.1. The examples train for some steps on
random data from the same seeds. A third run, with Chainer's code and all numbers moved
by 1e-7, tells how far float32 lets losses agree: the fast paths may be ten times as far
off. Prints a table of the differences and of how many times as fast a step is, by the
best of N alternating runs (three), and exits with 1 if one is too far off.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

EXAMPLES = {
    "mnist": "mnist/train_mnist.py",
    "mnist, custom loop": "mnist/train_mnist_custom_loop.py",
    "mnist, static graph": "static_graph_optimizations/mnist/train_mnist.py",
    "cifar": "cifar/train_cifar.py",
    "cifar, custom loop": "cifar/train_cifar_custom_loop.py",
    "dcgan": "dcgan/train_dcgan.py",
    "ptb": "ptb/train_ptb.py -u 200",
    "ptb, static graph": (
        "static_graph_optimizations/ptb/train_ptb_custom_loop.py -d -1 -u 200"
    ),
    **{
        f"imagenet, {arch}": f"imagenet/train_imagenet.py list list -m {{mean}} "
        f"-a {arch} -B 4 -j 1"
        for arch in ("nin", "alex", "googlenetbn", "resnet50", "resnext50")
    },
    "wavenet": (
        "wavenet/train.py -i speech -b 2 -l 2048 --n_loop 1 --n_layer 6 --s_channels 64"
    ),
    "pix2pix": "pix2pix/train_facade.py",
}
STEPS = 8


class Done(BaseException):
    """Ends an example after enough steps; Trainers let it through."""


def run_one(script: str, arguments: list[str], moved: float) -> None:
    """Runs an example in this process, and prints its losses and times."""
    import chainer
    import numpy as np

    rng, signs = np.random.RandomState(0), np.random.RandomState(1)

    def move(x: np.ndarray) -> np.ndarray:
        return (x * (1 + moved * signs.choice([-1, 1], x.shape))).astype(np.float32)

    def images(n: int, *shape: int, n_class: int = 10):
        labels = rng.randint(0, n_class, n).astype(np.int32)
        noise = rng.rand(n, *shape).astype(np.float32)
        x = (noise + labels.reshape(-1, *[1] * len(shape)) / n_class) / 2
        return move(x), labels

    def get_mnist(ndim: int = 1, **_):
        x, t = images(2000, *((784,) if ndim == 1 else (1, 28, 28)))
        return (chainer.datasets.TupleDataset(x, t),) * 2

    def get_cifar10(withlabel: bool = True, scale: float = 1.0, **_):
        x, t = images(1000, 3, 32, 32)
        x = x * np.float32(scale)
        return (chainer.datasets.TupleDataset(x, t) if withlabel else x,) * 2

    def get_ptb_words():
        return (rng.zipf(1.5, 20000).clip(max=999).astype(np.int32),) * 3

    chainer.datasets.get_mnist = get_mnist
    chainer.datasets.get_cifar10 = get_cifar10
    chainer.datasets.get_ptb_words = get_ptb_words

    class Facades(chainer.dataset.DatasetMixin):
        def __init__(self, *_, **__):
            self.x = move(rng.rand(16, 3, 256, 256) * 2 - 1)
            self.t = rng.randint(0, 12, (16, 1, 256, 256))

        def __len__(self):
            return len(self.x)

        def get_example(self, i):
            return (self.t[i] == np.arange(12)[:, None, None]).astype("i"), self.x[i]

    def mel(raw, *_, hop_length, n_mels, **__):
        frames = raw[: len(raw) // hop_length * hop_length].reshape(-1, hop_length)
        return np.abs(np.fft.rfft(frames)).T[:n_mels]

    # Of the files of pix2pix and the package of WaveNet.
    sys.modules["facade_dataset"] = SimpleNamespace(FacadeDataset=Facades)
    sys.modules["librosa"] = SimpleNamespace(
        load=lambda path, *_, **__: (images(1, 4096)[0][0] - 0.5, 16000),
        effects=SimpleNamespace(trim=lambda raw, *_: (raw, None)),
        feature=SimpleNamespace(melspectrogram=mel),
        power_to_db=lambda power, **_: move(10 * np.log10(power + 1e-10)),
    )

    backward, setup = chainer.Variable.backward, chainer.Optimizer.setup
    losses, times = [], []

    def watched(variable, *args, **kwargs):
        losses.append(float(variable.array))
        times.append(time.perf_counter())
        if len(losses) == STEPS:
            raise Done
        return backward(variable, *args, **kwargs)

    def moving(optimizer, link):
        for param in link.params(include_uninit=False):
            param.array[...] = move(param.array)
        return setup(optimizer, link)

    chainer.Variable.backward, chainer.Optimizer.setup = watched, moving
    if "speech" in arguments:
        Path("speech/wav48/p1").mkdir(parents=True)
        for k in range(40):
            Path(f"speech/wav48/p1/{k}.wav").touch()
    if arguments[:2] == ["list", "list"]:
        from PIL import Image

        os.mkdir("pictures")
        for k, (x, t) in enumerate(zip(*images(64, 256, 256, 3), strict=True)):
            Image.fromarray((x * 255).astype(np.uint8)).save(f"pictures/{k}.png")
            with open("list", "a") as file:
                file.write(f"pictures/{k}.png {t}\n")
    random.seed(0)
    np.random.seed(0)
    sys.path.insert(0, str(Path(script).parent))
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
    except Done:
        step = (times[-1] - times[2]) / (STEPS - 3)  # the first ones compile
        print("\n" + json.dumps([losses, step]), flush=True)
        os._exit(0)  # whatever workers it has


def start(script: Path, arguments: list[str], cpu: str, moved: float = 0) -> list:
    command = [sys.executable, "-W", "ignore", __file__, "--one", str(moved), script]
    mean = script.parent / "mean.npy"
    words = [word.format(mean=mean) for word in arguments]
    env = {**os.environ, "CHAINER_MMIX_CPU": cpu, "MPLBACKEND": "Agg"}
    root = str(Path(__file__).parents[1])
    env["PYTHONPATH"] = os.pathsep.join([root, env.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*command, *words], cwd=folder, env=env, capture_output=True, text=True
        )
    if done.returncode:
        sys.exit(f"{script}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def apart(losses: list[float], others: list[float]) -> float:
    return max(
        abs(a - b) / max(abs(a), 1e-3) for a, b in zip(losses, others, strict=True)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path)
    parser.add_argument("names", nargs="*", metavar="name")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if unknown := [name for name in args.names if name not in EXAMPLES]:
        parser.error(f"no such example: {unknown}; there are {[*EXAMPLES]}")
    print("| example | with Numba | changed by 1e-7 | times as fast |")
    print("|---|---|---|---|")
    failed = False
    for name in args.names or EXAMPLES:
        path, *arguments = EXAMPLES[name].split()
        script = args.checkout.resolve() / "examples" / path
        own, fast = [], []
        for _ in range(args.rounds):
            own.append(start(script, arguments, "0"))
            fast.append(start(script, arguments, "numba"))
        moved, _ = start(script, arguments, "0", 1e-7)
        off, may_be = apart(own[0][0], fast[0][0]), apart(own[0][0], moved)
        failed |= off > max(10 * may_be, 1e-6)
        slow, quick = (min(step for _, step in runs) for runs in (own, fast))
        print(f"| {name} | {off:.0e} | {may_be:.0e} | {slow / quick:.2f} |", flush=True)
    return int(failed)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        run_one(sys.argv[3], sys.argv[4:], float(sys.argv[2]))
    else:
        sys.exit(main())
