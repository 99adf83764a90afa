"""What can be trained on from the command line, and what it is told of it."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import chainer
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from chainer_mmix.cli import main, options, recipes, train
from chainer_mmix.cli.prepare import prepare
from chainer_mmix.datasets import DATASETS, KINDS, PictureDataset, find, load_splits
from chainer_mmix.inference import load_predictor
from chainer_mmix.models import CNN
from chainer_mmix.runs.compare import compare_groups
from chainer_mmix.runs.groups import find_flaws, group_runs
from chainer_mmix.runs.run import read_run
from chainer_mmix.runs.table import format_text
from chainer_mmix.training import find_snapshot, load_weights
from chainer_mmix.training.multinode import Ranks

QUICK = ["--model", "cnn", "--batchsize", "8", "--epoch", "1", "--quiet"]
FOLDER = [*QUICK, "--dataset", "folder:pictures", "--size", "8"]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHAINER_DATASET_ROOT", str(tmp_path / "cache"))
    monkeypatch.setattr(
        "chainer.dataset.download._dataset_root", str(tmp_path / "cache")
    )


@pytest.fixture(scope="module")
def digits():
    return load_digits()


@pytest.fixture
def pictures(digits):
    """A folder of zeros and ones, in three parts or with its classes only."""

    def write(parts, root="pictures"):
        for label, name in enumerate(("nought", "one")):
            images = iter(digits.images[digits.target == label])
            for part, n in parts.items():
                folder = Path(root, part, name)
                folder.mkdir(parents=True)
                for i in range(n):
                    image = Image.fromarray(np.uint8(next(images) * 255 / 16))
                    image.resize((12, 10)).save(folder / f"{i}.png")

    return write


def record(out):
    return json.loads(Path(out, "run.json").read_text())


def log(out):
    entries = json.loads(Path(out, "log").read_text())
    return [{k: v for k, v in e.items() if k != "elapsed_time"} for e in entries]


def error_of(capsys, *words):
    with pytest.raises(SystemExit) as e:
        train.main([*QUICK, *words])
    assert e.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_a_folder_of_three_parts(pictures, capsys):
    pictures({"train": 12, "val": 5, "test": 6})
    words = [*FOLDER, "--epoch", "2", "--augment", "--analyse", "--out", "run"]
    assert train.main(words) == 0
    out = capsys.readouterr().out
    assert "cnn on pictures (24 training and 10 validation images)" in out
    assert record("run")["data"] == {
        "n_train": 24,
        "n_held_out": 10,
        "held_out": "validation",
        "class_names": ["nought", "one"],
        "input_shape": [3, 8, 8],
        "input_range": [0, 1],
    }
    # The test set is looked at once, at the end; by hand, from the weights:
    first, last = log("run")
    assert "test/main/accuracy" not in first
    net = CNN(2)
    test = load_splits(find("folder:pictures", size=8), name="x").test
    net(np.stack([x for x, _ in test]))
    load_weights(net, find_snapshot("run"))
    scores = net(np.stack([x for x, _ in test])).array.astype(np.float64)
    truth = np.array([t for _, t in test])
    loss = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(12), truth]
    assert last["test/main/accuracy"] == np.mean(scores.argmax(axis=1) == truth)
    assert last["test/main/loss"] == pytest.approx(loss.mean(), rel=1e-5)
    assert record("run")["test_accuracy"] == last["test/main/accuracy"]
    assert f"on the test set {last['test/main/accuracy']:.2%}" in out

    assert main.main(["report", "run", "--out", "page.html"]) == 0
    page = Path("page.html").read_text()
    for text in ("nought, one", "10 images of the validation set", "cnn on pictures"):
        assert text in page
    assert "On the validation set, mean" in page


def test_the_test_set_apart_changes_nothing_in_the_training(pictures):
    pictures({"train": 12, "val": 5})
    pictures({"train": 12, "val": 5, "test": 6}, "more/pictures")
    for out, folder in (("a", "pictures"), ("b", "more/pictures")):
        words = ["--dataset", f"folder:{folder}", "--augment", "--out", out]
        assert train.main([*FOLDER, *words]) == 0
    (a,), (b,) = log("a"), log("b")
    assert a == {k: v for k, v in b.items() if not k.startswith("test/")}


def test_compare_says_which_set_it_was():
    words = [*QUICK, "--train-size", "40"]
    assert train.main([*words, "--out", "test"]) == 0
    assert train.main([*words, "--validation-split", "0.1", "--out", "val"]) == 0
    assert record("test")["data"]["held_out"] == "test"
    assert record("val")["data"]["held_out"] == "validation"
    assert record("val")["data"]["n_held_out"] == 145
    assert record("val")["data"]["class_names"] == list("0123456789")
    for names, text in (
        (["test"], "All numbers are from the test set;"),
        (["val"], "picked on the validation set itself"),
        (["test", "val"], "All numbers are from the validation data;"),
    ):
        groups = group_runs([read_run(name) for name in names])
        comparison = compare_groups(groups)
        assert text in format_text(comparison)
        flaws = " ".join(find_flaws(groups, comparison.metric))
        told = "validated on other data: the test set (test), the validation set (val)"
        assert (told in flaws) == (len(names) == 2)


def test_the_test_set_is_evaluated_once_after_a_resume_too():
    run = [*QUICK, "--train-size", "40", "--validation-split", "0.1"]
    assert train.main([*run, "--epoch", "2", "--out", "a"]) == 0
    assert train.main([*run, "--out", "b"]) == 0
    assert "test/main/accuracy" in log("b")[0]
    assert train.main([*run, "--epoch", "2", "--out", "b", "--resume"]) == 0
    assert log("b")[-1] == log("a")[-1]


def test_arrays(digits):
    x = digits.images[:100].astype(np.float32) / 16
    np.savez("own.npz", x=x, t=digits.target[:100])
    words = ["--dataset", "npz:own.npz", "--validation-split", "0.2"]
    assert train.main([*QUICK, *words]) == 0
    (out,) = Path("result").iterdir()
    assert out.name == "own_cnn_manifold_alpha0.2_validation-split-0.2_seed0"
    assert record(out)["data"]["class_names"] == []


def test_an_attack_on_inputs_of_any_range(digits):
    x = digits.images[:100].astype(np.float32) / 8 - 1
    t = digits.target[:100].astype(np.int32)
    np.savez("own.npz", x=x, t=t, x_test=x, t_test=t)
    words = ["--dataset", "npz:own.npz", "--analyse", "--out", "run"]
    train.main([*QUICK, *words])
    network = load_predictor("run", "final").network
    inputs = chainer.Variable(x[:, None])
    with chainer.using_config("train", False):
        chainer.functions.softmax_cross_entropy(network(inputs), t).backward()
        y = network(inputs.array + np.float32(0.1) * np.sign(inputs.grad)).array
    expected = (y.argmax(axis=1) == t).mean()
    found = log("run")[-1]["validation/main/fgsm_accuracy/0.1"]
    assert found == pytest.approx(expected, abs=1e-6)


def test_rows_of_a_table_are_refused_before_a_run(capsys):
    np.savez("table.npz", x=np.ones((60, 5)), t=np.arange(60) % 3)
    words = ["--dataset", "npz:table.npz", "--validation-split", "0.2", "--out", "run"]
    error = error_of(capsys, *words)
    assert "rows of a table, x of shape (N, 5)" in error and "from Python" in error
    assert not Path("run").exists()


def test_a_folder_is_the_same_wherever_it_is_named_from(pictures, monkeypatch):
    pictures({"": 10})
    run = [*FOLDER, "--validation-split", "0.2"]
    assert train.main([*run, "--out", "run"]) == 0
    monkeypatch.chdir("pictures")
    run[run.index("folder:pictures")] = "folder:."
    assert train.main([*run, "--out", "../run", "--resume", "--epoch", "2"]) == 0
    assert record("../run")["status"] == "finished"


def test_broken_pictures(pictures, capsys):
    pictures({"": 10})
    Path("pictures/one/3.png").write_bytes(b"nothing")
    run = ["--dataset", "folder:pictures", "--size", "8", "--validation-split", "0.2"]
    error = error_of(capsys, *run)
    assert "one/3.png (of no known format)" in error and "--skip-corrupt" in error
    assert train.main([*QUICK, *run, "--skip-corrupt", "--out", "run"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{train.SCRIPT}: warning: 1 of 20 pictures below ")
    assert "one/3.png" in line
    data = record("run")["data"]
    assert data["n_train"] + data["n_held_out"] == 19


def test_images_that_are_too_small_are_refused_before_a_run(capsys):
    np.savez("tiny.npz", x=np.zeros((20, 2, 2), np.uint8), t=np.arange(20) % 2)
    words = "--model resnet50 --dataset npz:tiny.npz --validation-split 0.2 --out run"
    error = error_of(capsys, *words.split())
    assert "images of 2x2 pixels are too small" in error
    assert not Path("run").exists()


BAD = [
    ("--dataset fashion", "unknown dataset 'fashion': did you mean fashion-mnist"),
    ("--dataset fashion", "tiny-imagenet, folder:PATH, npz:FILE"),
    ("--dataset zip:x", "unknown kind of dataset 'zip'"),
    ("--dataset pictures", "pictures is a path: did you mean folder:pictures?"),
    ("--dataset file", "file is a path: did you mean npz:file?"),
    ("--dataset folder:none", "name one that has a folder for each class (--dataset)"),
    ("--dataset folder:pictures", "split (--validation-split), such as 0.2"),
    ("--dataset folder:pictures/one", "has no folders: give each class a folder"),
    ("--dataset npz:file", "is not what numpy.savez writes, or was cut short"),
    ("--dataset folder:pictures --validation-split 0.01", "none for validation"),
    (
        "--dataset folder:pictures --validation-split 1.5",
        "must be above 0 and below 1, not 1.5",
    ),
    ("--dataset folder:pictures --size 0", "must be a whole number >= 1, not 0"),
    ("--validation-split 0", "must be above 0 and below 1, not 0"),
    ("--size 32", "size (--size) is not for digits: leave it out"),
    ("--skip-corrupt", "skip_corrupt (--skip-corrupt) is not for digits"),
    ("--data-root .", "digits comes with a package"),
    (
        "--dataset folder:pictures --size 8 --validation-split 0.2 --batchsize 17",
        "--batchsize 17 is more than the 16 training examples",
    ),
]


@pytest.mark.parametrize("words, message", BAD)
def test_bad_input(pictures, capsys, words, message):
    pictures({"": 10})
    Path("file").write_text("x")
    if words.endswith("pictures/one"):
        words += " --validation-split 0.2"
    assert message in error_of(capsys, *words.split())
    assert not Path("result").exists()


def test_defaults_are_known_for_all_datasets():
    known = {*DATASETS, *KINDS.values()}
    assert options.EPOCH.keys() == options.BATCHSIZE.keys() == known


WORK = [*FOLDER, "--validation-split", "0.2", "--augment"]


def test_any_number_of_workers_trains_the_same_to_the_bit(pictures):
    pictures({"": 20})
    # 32 images in batches of 7: no epoch but the seventh ends with a batch.
    run = [*WORK, "--batchsize", "7"]
    for workers in "0123":
        words = ["--epoch", "3", "--out", workers, "--workers", workers]
        assert train.main([*run, *words]) == 0
        assert log(workers) == log("0")
    # A run goes on with another number of them.
    assert train.main([*run, "--workers", "3", "--out", "r"]) == 0
    for epoch, workers in (("2", "0"), ("3", "2")):
        words = ["--epoch", epoch, "--workers", workers]
        assert train.main([*run, *words, "--out", "r", "--resume"]) == 0
    assert log("r") == log("0")
    assert not multiprocessing.active_children()


def test_workers_and_images_on_the_device_exclude_each_other(capsys):
    error = error_of(capsys, "--workers", "1", "--data-on-device")
    assert "leave one of them out" in error
    assert "a whole number >= 0, not -1" in error_of(capsys, "--workers", "-1")


@pytest.fixture
def breaking(monkeypatch):
    """Lets a picture turn bad after it has been checked."""
    find = train.datasets.find

    def find_and_break(*args, **kwargs):
        found = find(*args, **kwargs)
        Path("pictures/one/3.png").write_bytes(b"nothing")
        return found

    monkeypatch.setattr(train.datasets, "find", find_and_break)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_picture_that_turns_bad_stops_the_run_with_one_sentence(
    pictures, breaking, capsys, workers
):
    pictures({"": 10})
    assert train.main([*WORK, "--out", "run", "--workers", workers]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "the training stopped" in line and "one/3.png" in line
    assert record("run")["status"] == "failed"


@pytest.mark.parametrize("workers", ["0", "2"])
def test_or_another_takes_its_place(pictures, breaking, capfd, workers):
    pictures({"": 10})
    words = ["--skip-corrupt", "--out", "run", "--workers", workers]
    assert train.main([*WORK, *words]) == 0
    assert "takes its place" in capfd.readouterr().err
    assert record("run")["status"] == "finished"


def test_a_resumed_run_wants_its_pictures(pictures, capsys):
    pictures({"": 10})
    assert train.main([*WORK, "--out", "run"]) == 0
    Path("pictures/one/3.png").unlink()
    error = error_of(capsys, *WORK, "--out", "run", "--resume", "--epoch", "2")
    assert "n_train was 16 and is 15" in error


def test_a_run_that_leaves_pictures_out_is_resumed_so(pictures):
    pictures({"": 10})
    Path("pictures/one/3.png").write_bytes(b"nothing")
    run = [*WORK, "--skip-corrupt"]
    assert train.main([*run, "--epoch", "2", "--out", "a"]) == 0
    assert train.main([*run, "--out", "b"]) == 0
    # What the run was told, it knows.
    words = ["--out", "b", "--resume", "--epoch", "2", "--quiet"]
    assert train.main(words) == 0
    assert log("b") == log("a")
    assert record("b")["arguments"]["skip_corrupt"] is True


def test_a_killed_worker_stops_the_run_with_one_sentence(pictures, capfd, monkeypatch):
    pictures({"": 10})
    read = PictureDataset._read

    def read_or_die(dataset, i):
        # The validation comes after the first epoch, which is saved.
        is_worker = multiprocessing.parent_process() is not None
        if is_worker and Path("run/log").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return read(dataset, i)

    monkeypatch.setattr(PictureDataset, "_read", read_or_die)
    words = ["--workers", "2", "--epoch", "3", "--out", "run"]
    assert train.main([*WORK, *words]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert "was ended by SIGKILL; where memory is short" in line
    assert "the last good snapshot is run/snapshot_iter_2" in line
    assert "--resume, if need be with fewer --workers" in line
    assert record("run")["status"] == "failed"
    monkeypatch.setattr(PictureDataset, "_read", read)
    assert train.main([*WORK, *words, "--resume"]) == 0


def test_pretrained_weights_on_a_folder(pictures, capsys):
    pictures({"": 10})
    assert train.main([*WORK, "--out", "first", "--standardise", "channel"]) == 0
    saved = find_snapshot("first")
    third = Path("pictures/three")
    third.mkdir()
    for i in range(10):
        Image.new("RGB", (12, 10), (25 * i, 9, 9)).save(third / f"{i}.png")
    words = [*WORK, "--pretrained", str(saved), "--out", "run"]
    assert "too (--standardise)" in error_of(capsys, *words)
    args = recipes.parse(train.get_parser(), [*words, "--standardise", "channel"])
    trainer, started, lock = prepare(args, "", Ranks())
    lock.close()
    net = trainer.updater.get_optimizer("main").target.predictor
    with np.load(saved) as file:
        weights = file["updater/model:main/predictor/block2/conv2/W"]
    np.testing.assert_array_equal(net.block2.conv2.W.array, weights)
    assert net.fc.W.shape[0] == 3  # which are drawn anew
    # The constants are of these pictures, not of those.
    mean = started.content["data"]["standardise"]["mean"]
    np.testing.assert_allclose(np.ravel(net.mean), mean, 1e-6)
    assert mean != record("first")["data"]["standardise"]["mean"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes there")
def test_an_interrupt_ends_the_workers(pictures):
    pictures({"": 10})
    script = Path(train.__file__).parents[2] / train.SCRIPT
    words = [*WORK, "--epoch", "10000", "--workers", "2", "--out", "run"]
    run = subprocess.Popen([sys.executable, script, *words], stderr=subprocess.PIPE)
    while not Path("run/log").exists():
        assert run.poll() is None
        time.sleep(0.1)
    children = [
        path
        for path in Path("/proc").glob("[0-9]*/stat")
        if path.read_text().rpartition(")")[2].split()[1] == str(run.pid)
    ]
    assert len(children) == 4  # two to train, two to validate
    run.send_signal(signal.SIGINT)
    _, error = run.communicate(timeout=60)
    assert run.returncode == 130 and b"--resume run" in error
    assert not any(path.exists() for path in children)
