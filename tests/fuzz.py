"""What files of strangers may do: raise the documented error, and nothing else.

    pip install atheris
    python tests/fuzz.py snapshot [--seconds 60]

Each target reads one kind of file. atheris looks for one that ends in another error,
runs code, or takes much memory or time. ``test_fuzz.py`` gives the same targets
examples of hypothesis. docs/reliability.md has the counts.
"""

import argparse
import contextlib
import io
import json
import pathlib
import pickle
import sys
import tempfile
import zipfile

import chainer
import chainer.links as L
import numpy as np
from chainer.iterators import SerialIterator
from chainer.serializers import load_hdf5, save_hdf5, save_npz
from chainer.training import StandardUpdater, Trainer
from chainer.training.extensions import LogReport
from numpy.lib import format as npy

if __name__ == "__main__":
    import atheris

    instrumented = atheris.instrument_imports(
        include=["chainer_mmix.training", "chainer_mmix.runs", "chainer_mmix.models"]
    )
else:
    instrumented = contextlib.nullcontext()
with instrumented:
    from chainer_mmix import ManifoldMixupClassifier, MixupSequential
    from chainer_mmix.cli.command import load
    from chainer_mmix.cli.main import main as command
    from chainer_mmix.models import CNN, load_pretrained
    from chainer_mmix.runs.files import RunError
    from chainer_mmix.runs.mixup import MixupCounts
    from chainer_mmix.runs.reliability import read_reliability
    from chainer_mmix.runs.table import FORMATS
    from chainer_mmix.training import (
        SnapshotError,
        load_snapshot,
        load_weights,
        read_snapshot,
    )
    from chainer_mmix.training.extensions import RandomState

# What no reading of a file does.
FORBIDDEN = {
    *("os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"),
    *("pickle.find_class", "socket.connect", "subprocess.Popen", "shutil.rmtree"),
}
_watched: list | None = None


def _audit(event, args):
    if _watched is not None and event in FORBIDDEN:
        _watched.append((event, args))


sys.addaudithook(_audit)


@contextlib.contextmanager
def nothing_runs():
    """Fails if what is in the block starts a process, loads a name from a pickle ..."""
    global _watched
    _watched = events = []
    try:
        yield
    finally:
        _watched = None
    assert not events, events


def make_link():
    return MixupSequential((L.Linear(3, 2), True), (L.Linear(2, 2), True))


def make_trainer(out="result"):
    model = ManifoldMixupClassifier(make_link(), seed=0)
    optimizer = chainer.optimizers.MomentumSGD().setup(model)
    x = np.eye(3, dtype=np.float32)
    examples = [(row, np.int32(i % 2)) for i, row in enumerate(x)]
    updater = StandardUpdater(SerialIterator(examples, 2), optimizer)
    trainer = Trainer(updater, (1, "epoch"), out)
    trainer.extend(LogReport())
    trainer.extend(RandomState())
    return trainer


def saved_members():
    """Returns the members of a Trainer's snapshot, by name."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(folder)
        trainer.run()
    file = io.BytesIO()
    save_npz(file, trainer)
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(members, compression=zipfile.ZIP_STORED):
    """Returns an archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def objects(content):
    """Returns an array's file whose items are a pickle."""
    file = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    npy.write_array_header_1_0(file, header)
    return file.getvalue() + content


def old_pickles():
    """Returns pickles of arrays as NumPy has written them.

    Up to 1.16 by protocol 2, then 3 and 4; NumPy 2 has another name for a module.
    """
    arrays = [np.array(None, object), np.array(["a", 1, None], object)]
    found = [pickle.dumps(array, protocol=n) for array in arrays for n in (2, 3)]
    renamed = [content.replace(b"numpy._core", b"numpy.core") for content in found]
    return renamed + found + [pickle.dumps(array, protocol=4) for array in arrays]


# Each takes a folder and the content of a file, and tells whether that was accepted.


def _read(folder, content, read, error):
    path = folder / "file"
    path.write_bytes(content)
    try:
        read(path)
    except error as e:
        assert not has_control_characters(str(e)), str(e)
        return False
    return True


def has_control_characters(text):
    return any(c < " " or "\x7f" <= c < "\xa0" for c in text)


def snapshot(folder, content):
    return _read(folder, content, read_snapshot, SnapshotError)


def member(folder, content):
    return snapshot(folder, pack({"x.npy": content}))


def pickled(folder, content):
    return member(folder, objects(content))


def resume(folder, content):
    def read(path):
        load_snapshot(path, make_trainer())

    return _read(folder, content, read, SnapshotError)


def weights(folder, content):
    def read(path):
        load_weights(make_link(), path)

    return _read(folder, content, read, SnapshotError)


def pretrained(folder, content):
    def read(path):
        load_pretrained(CNN(2, width=2), path)

    return _read(folder, content, read, ValueError)


def hdf5(folder, content):
    """Reads it by Chainer's own function, whose errors are those of h5py."""

    path = folder / "file"
    path.write_bytes(content)
    try:
        load_hdf5(path, make_link())
    except Exception:
        return False
    return True


LOG = [
    {
        **{"epoch": n, "iteration": 3 * n, "elapsed_time": 0.5 * n, "lr": 0.1},
        **{"main/loss": 2.0 / n, "main/accuracy": 0.5, "validation/main/loss": 1.5 / n},
        **{"validation/main/accuracy": 0.6, "validation/main/ece": 0.1},
        **{"validation/main/fgsm_accuracy/0.1": 0.2},
    }
    for n in (1, 2)
]
FILES = {
    "log": LOG,
    "run.json": {
        **{"command": "train", "seed": 0, "status": "finished", "reason": None},
        "arguments": {"model": "cnn", "mixup": "manifold", "alpha": 2, "epoch": 2},
        "setting": {
            **{"values": {"model": "cnn", "alpha": 2}, "epoch": 2, "title": "cnn"},
            **{"mixing": ["alpha"], "mixes": True, "main": ["model"], "follows": {}},
        },
        "data": {"n_train": 3, "held_out": "test", "class_names": ["a", "b"]},
        "versions": {"python": "3.11"},
        "starts": [{"command": "train", "from_epoch": 0, "to_epoch": 2}],
    },
    "mixup.json": {
        **{"settings": {"alpha": 2}, "layer": {"0": 3}, "loss": {"0": 1.5}},
        "method": {"mixup": 3},
        "lam": {"bin_edges": [n / 20 for n in range(21)], "counts": [1] * 20},
    },
    "reliability.json": {
        **{"edges": [0, 0.5, 1], "count": [0, 20], "confidence": [None, 0.9]},
        "accuracy": [None, 0.8],
    },
}


def write_run(folder, files):
    """Writes a run's folder. Files that are not named are good ones."""
    for name, content in FILES.items():
        good = json.dumps(content).encode()
        (folder / name).write_bytes(files.get(name, good))


def run_folder(folder, files, commands=("compare", "report")):
    """Compares and reports a run whose files have this content, bytes by name."""
    write_run(folder, files)
    codes = set()
    for name, out in zip(("compare", "report"), ("a.png", "a.html"), strict=True):
        if name not in commands:
            continue
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
            codes.add(command([name, str(folder), "--out", str(folder / out)]))
        text = shown.getvalue()
        assert not has_control_characters(text.replace("\n", " "))
        if codes == {2}:
            assert text.startswith("chainer-mmix") and text.count("\n") == 1, text
    assert codes <= {0, 2}
    return codes == {0}


def _run_file(name):
    """Returns what reads and compares a run, but draws nothing, which takes long."""

    def read(folder):
        args = argparse.Namespace(runs=[str(folder)], metric=None, best=None)
        _, comparison = load(args)
        for write in FORMATS.values():
            assert not has_control_characters(write(comparison).replace("\n", " "))
        MixupCounts.read(folder)
        read_reliability(folder)

    def target(folder, content):
        write_run(folder, {name: content})
        return _read(folder, b"", lambda _: read(folder), RunError)

    return target


TARGETS = {
    **{"snapshot": snapshot, "member": member, "pickled": pickled, "resume": resume},
    **{"weights": weights, "pretrained": pretrained, "hdf5": hdf5},
    **{name: _run_file(name) for name in FILES},
}


def seeds(target):
    """Returns good files, from which atheris begins."""
    members = saved_members()
    if target in FILES:
        return [json.dumps(FILES[target]).encode()]
    if target == "member":
        return list(members.values())
    if target == "pickled":
        return old_pickles()
    if target == "pretrained":
        model = CNN(2, width=2)
        model(np.zeros((1, 1, 8, 8), np.float32))
        file = io.BytesIO()
        save_npz(file, model)
        return [file.getvalue()]
    if target == "hdf5":
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "file")
            save_hdf5(path, make_link())
            return [path.read_bytes()]
    return [pack(members), pack(members, zipfile.ZIP_DEFLATED)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    args = parser.parse_args()
    read = TARGETS[args.target]
    counts = {True: 0, False: 0}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        corpus = folder / "corpus"
        corpus.mkdir()
        for n, content in enumerate(seeds(args.target)):
            (corpus / str(n)).write_bytes(content)
        work = folder / "work"
        work.mkdir()

        def once(content):
            with nothing_runs():
                counts[read(work, content)] += 1
            if sum(counts.values()) % 1000 == 0:
                print(
                    f"{args.target}: {counts[True]} accepted, {counts[False]} refused"
                )

        options = [
            f"-max_total_time={args.seconds}",
            "-timeout=20",
            "-rss_limit_mb=2000",
        ]
        options += [f"-artifact_prefix={pathlib.Path.cwd()}/", "-max_len=100000"]
        atheris.Setup([sys.argv[0], *options, str(corpus)], once)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
