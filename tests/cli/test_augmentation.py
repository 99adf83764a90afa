"""Augmentation and standardisation from the command line."""

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chainer_mmix.cli import train
from chainer_mmix.datasets import find, load_splits

ALL = "--flip --flip-vertical --quarter-turn --rotate 10 --width-shift 0.1 "
ALL += "--height-shift 0.1 --shear 5 --brightness 0.8 1.2 --colour-jitter .2 .2 .2 .1 "
ALL += "--pad-crop 1 --cutout 2 --standardise channel"
QUICK = ["--model", "cnn", "--batchsize", "7", "--quiet"]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHAINER_DATASET_ROOT", str(tmp_path / "cache"))
    monkeypatch.setattr(
        "chainer.dataset.download._dataset_root", str(tmp_path / "cache")
    )
    rng = np.random.default_rng(0)
    for name, most in (("dark", 160), ("light", 256)):
        Path("pictures", name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, most, (10, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(f"pictures/{name}/{i}.png")


FOLDER = ["--dataset", "folder:pictures", "--size", "8", "--validation-split", "0.25"]


def log(out):
    entries = json.loads(Path(out, "log").read_text())
    return [{k: v for k, v in e.items() if k != "elapsed_time"} for e in entries]


def data(out):
    return json.loads(Path(out, "run.json").read_text())["data"]


@pytest.mark.parametrize("crop", [[], ["--augment"]])
def test_all_of_it_with_any_number_of_workers_and_after_a_resume(crop):
    run = [*QUICK, *FOLDER, *ALL.split(), *crop]
    for workers in "02":
        words = ["--epoch", "3", "--out", workers, "--workers", workers]
        assert train.main([*run, *words]) == 0
    assert log("2") == log("0")
    assert train.main([*run, "--epoch", "1", "--out", "r", "--workers", "2"]) == 0
    # All that it needs to know is in the record.
    words = ["--resume", "--out", "r", "--epoch", "3", "--workers", "0", "--quiet"]
    assert train.main(words) == 0
    assert log("r") == log("0")
    assert data("r") == data("0")
    assert not multiprocessing.active_children()


def test_a_batch_at_a_time_is_the_same():
    words = [*QUICK, "--train-size", "40", "--epoch", "2", *ALL.split()]
    words.remove("--colour-jitter")
    for value in (".2", ".2", ".2", ".1"):
        words.remove(value)
    for out, more in (("a", []), ("b", ["--data-on-device"])):
        assert train.main([*words, *more, "--out", out]) == 0
    assert log("a") == log("b")


def test_constants_are_of_the_training_share_only_and_recorded():
    run = [*QUICK, *FOLDER, "--epoch", "1", "--standardise", "channel"]
    assert train.main([*run, "--augment", "--out", "run"]) == 0
    splits = load_splits(
        find("folder:pictures", size=8, validation_split=0.25), name="x"
    )
    x = np.float64([image for image, _ in splits.train])
    found = data("run")["standardise"]
    np.testing.assert_allclose(found["mean"], x.mean(axis=(0, 2, 3)), 1e-10)
    np.testing.assert_allclose(found["std"], x.std(axis=(0, 2, 3)), 1e-10)


def test_a_resumed_run_keeps_them_and_does_not_read_the_images_for_them(monkeypatch):
    run = [*QUICK, *FOLDER, "--standardise", "all", "--out", "run"]
    assert train.main([*run, "--epoch", "1"]) == 0
    before = data("run")["standardise"]
    monkeypatch.setattr(train.datasets, "standardisation", None)
    assert train.main([*run, "--resume", "--epoch", "2"]) == 0
    assert data("run")["standardise"] == before


@pytest.mark.parametrize("kind", ["image", "half"])
def test_the_other_kinds(kind):
    run = [*QUICK, *FOLDER, "--epoch", "1", "--standardise", kind]
    assert train.main([*run, "--out", "run"]) == 0
    constants = {"mean": [0.5], "std": [0.5]} if kind == "half" else None
    assert data("run").get("standardise") == constants
    assert train.main([*run, "--out", "run", "--epoch", "2", "--resume"]) == 0


def test_the_preview_shows_the_pictures_as_they_are(monkeypatch):
    shown = []
    plot = "chainer_mmix.training.extensions.mixup_preview.plot_pairs"
    monkeypatch.setattr(plot, lambda pairs, *args: shown.extend(pairs))
    save = "chainer_mmix.training.extensions.mixup_preview.save_figure"
    monkeypatch.setattr(save, lambda *args: None)
    run = [*QUICK, *FOLDER, "--epoch", "1", "--standardise", "channel", "--cutout", "4"]
    assert train.main([*run, "--augment", "--analyse", "--out", "run"]) == 0
    splits = load_splits(
        find("folder:pictures", size=8, validation_split=0.25), name="x"
    )
    images = {image.tobytes() for image, _ in splits.train}
    assert shown and all(p.images[0].tobytes() in images for p in shown)


@pytest.mark.parametrize(
    "words, message",
    [
        ("--cutout 8", "--cutout 8 may leave nothing of images of 8x8"),
        ("--pad-crop 8", "--pad-crop 8 may leave nothing of images of 8x8"),
        ("--cutout 1", "length must be a whole number >= 2, not 1 (--cutout)"),
        ("--brightness 2 1", "the lower first, not 2.0 and 1.0 (--brightness)"),
        (
            "--colour-jitter 0 0 0 0.6",
            "hue must lie in [0, 0.5], not 0.6 (--colour-jitter)",
        ),
        ("--standardise mean", "invalid choice: 'mean'"),
        ("--width-shift 1.5", "must be in [0, 1], not 1.5"),
        ("--rotate -1", "must be a finite number >= 0, not -1"),
        ("--dataset npz:wide.npz --quarter-turn", "5x6 pixels is not of one shape"),
        ("--stem-stride 2", "(--stem-stride) is for preactresnet18 to 152"),
    ],
)
def test_bad_input(words, message, capsys):
    t = np.arange(10) % 2
    both = {"t": t, "t_test": t}
    wide = np.random.default_rng(0).random((10, 5, 6), np.float32)
    np.savez("wide.npz", x=wide, x_test=wide, **both)
    with pytest.raises(SystemExit):
        train.main(["--model", "cnn", "--batchsize", "4", *words.split()])
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not Path("result").exists()
