"""Recipes: what they set, what wins over them, and that each trains."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from chainer.datasets import TupleDataset
from PIL import Image

from chainer_mmix import datasets, models
from chainer_mmix.cli import recipes, train
from chainer_mmix.cli.prepare import prepare
from chainer_mmix.cli.recipes import RECIPES
from chainer_mmix.training.multinode import Ranks

PARSER = train.get_parser()
PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"


def parsed(*words):
    return vars(recipes.parse(PARSER, words))


def test_the_page_says_what_they_set():
    rows = re.findall(r"^\| `([\w-]+)` \| `(--[^`]+)` \|$", PAGE.read_text(), re.M)
    assert [name for name, _ in rows] == list(RECIPES)
    for name, words in rows:
        expected = vars(PARSER.parse_args(words.split())) | {"recipe": name}
        assert parsed("--recipe", name) == expected


def test_the_list_is_that_of_the_page(capsys):
    assert train.main(["--recipe", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    text = PAGE.read_text()
    for name, (first, second) in zip(
        RECIPES, zip(lines[::2], lines[1::2], strict=True), strict=True
    ):
        assert first == f"{name} ({RECIPES[name].source})"
        assert f"| `{name}` | `{second.strip()}` |" in text


def test_what_is_given_wins_even_if_it_is_a_default():
    words = "--recipe paper-cifar10-preactresnet18 --alpha 0.2 --no-published "
    words += "--pad-crop 4 --optimizer adam --epoch 3 --loss ce"
    args = parsed(*words.split())
    assert (args["alpha"], args["published"], args["pad_crop"]) == (0.2, False, 4)
    assert (args["epoch"], args["loss"], args["flip"]) == (3, "ce", True)
    # The rate and the momentum go with the optimizer, which is another one.
    assert (args["lr"], args["nesterov"], args["optimizer"]) == (None, False, "adam")
    same = parsed("--recipe", "keras-notebook", "--optimizer", "rmsprop")
    assert same["lr"] == 1e-3


def test_what_does_not_go_with_what_is_given_is_left_out():
    args = parsed("--recipe", "keras-folder", "--mixup", "none")
    assert (args["mixup"], args["per"]) == ("none", "batch")
    args = parsed("--recipe", "chainer-cifar10-resnet50", "--mixup", "input")
    assert args["layer_mix"] is None
    args = parsed("--recipe", "paper-svhn-wideresnet28_10", "--model", "cnn")
    assert (args["published"], args["layer_mix"], args["loss"]) == (False, None, "bce")
    args = parsed("--recipe", "keras-folder", "--dataset", "cifar10")
    assert (args["size"], args["shear"]) == (None, 0.05)


def test_drops_of_the_rate_move_with_the_epochs():
    paper = "--recipe", "paper-cifar10-preactresnet18"
    assert parsed(*paper, "--epoch", "120")["lr_drop"] == [40, 80]
    assert parsed(*paper, "--epoch", "2")["lr_drop"] == [1]
    assert parsed(*paper, "--epoch", "2", "--lr-drop", "1")["lr_drop"] == [1]
    assert not parsed(*paper, "--cosine")["lr_drop"]


def test_an_unknown_one_is_named(capsys):
    with pytest.raises(SystemExit):
        train.main(["--recipe", "keras-notbook"])
    assert "did you mean keras-notebook" in capsys.readouterr().err


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """Tiny data in place of the named sets, and narrow networks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHAINER_DATASET_ROOT", str(tmp_path / "cache"))
    monkeypatch.setattr(
        "chainer.dataset.download._dataset_root", str(tmp_path / "cache")
    )
    rng = np.random.default_rng(0)
    for name, size in (
        *(("cifar10", 32), ("cifar100", 32), ("svhn", 32)),
        ("tiny-imagenet", 64),
    ):
        x = rng.random((12, 3, size, size), np.float32)
        pair = [TupleDataset(x, np.arange(12, dtype=np.int32) % 6) for _ in range(2)]
        found = datasets.DATASETS[name]._replace(load=lambda pair=pair: tuple(pair))
        monkeypatch.setitem(datasets.DATASETS, name, found)
    for name in "ab":
        Path("data", name).mkdir(parents=True)
        for i in range(10):
            pixels = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(f"data/{name}/{i}.png")

    def narrow(base, **width):
        def __init__(self, n_class, **options):
            base.__init__(self, n_class, **width, **options)

        return type(base.__name__, (base,), {"__init__": __init__})

    for name in ("preactresnet18", "preactresnet34"):
        made = narrow(models.MODELS[name], width=4)
        monkeypatch.setitem(models.MODELS, name, made)
    wide = narrow(models.WideResNet, depth=28, width=1)
    monkeypatch.setitem(models.MODELS, "wideresnet28_10", wide)


@pytest.mark.parametrize("name", RECIPES)
def test_each_trains_a_step(stand_ins, name):
    words = ["--recipe", name, "--batchsize", "4", "--quiet"]
    args = recipes.parse(PARSER, words)
    trainer, record, lock = prepare(args, "", Ranks())
    classifier = trainer.updater.get_optimizer("main").target
    before = {k: p.array.copy() for k, p in classifier.namedparams()}
    trainer.updater.update()
    lock.close()
    assert args.out.startswith(f"result/{name}_{args.mixup}_alpha{args.alpha:g}_")
    assert record.content["arguments"]["recipe"] == name
    moved = [k for k, p in classifier.namedparams() if np.any(p.array != before[k])]
    assert len(moved) > len(before) // 2
    assert all(np.isfinite(p.array).all() for p in classifier.params())


def test_a_resumed_run_goes_on_with_what_was_given(stand_ins):
    words = ["--recipe", "keras-notebook", "--no-flip", "--rotate", "0", "--quiet"]
    words += ["--batchsize", "6", "--out", "run"]
    assert train.main([*words, "--epoch", "1"]) == 0
    first = json.loads(Path("run/run.json").read_text())
    for again in (["--out", "run"], words):
        epoch = str(2 + (again is words))
        assert train.main([*again, "--resume", "--epoch", epoch, "--quiet"]) == 0
        record = json.loads(Path("run/run.json").read_text())
        assert record["setting"]["values"] == first["setting"]["values"]
        assert record["data"]["standardise"] == first["data"]["standardise"]
    assert record["arguments"]["recipe"] == "keras-notebook"
    assert (record["arguments"]["flip"], record["arguments"]["rotate"]) == (False, 0.0)
