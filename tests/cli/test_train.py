import json
import math
import os
import pathlib
import subprocess
import sys

import numpy
import pytest

from chainer_mmix.mixing import Remix

SCRIPT = pathlib.Path(__file__).parents[2] / "train_manifoldmixup.py"
QUICK = ["--model", "cnn", "--train-size", "40", "--batchsize", "16", "--epoch", "1"]


@pytest.fixture
def main(tmp_path, monkeypatch):
    """The command line in this process, in an empty folder."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    monkeypatch.chdir(tmp_path)
    from chainer_mmix.cli import train

    return train.main


def log(out):
    entries = json.loads((pathlib.Path(out) / "log").read_text())
    return [{k: v for k, v in e.items() if k != "elapsed_time"} for e in entries]


@pytest.mark.slow
def test_a_process_trains_resumes_and_tells_where_things_are(tmp_path):
    def train(*args):
        return subprocess.run(
            [sys.executable, SCRIPT, *QUICK, "--augment", *args],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    done = train("--out", "run")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [k for k in done.stdout.splitlines() if not k.startswith("compiling")]
    assert lines[0].startswith("device: @numpy")
    assert "cnn on digits (40 training and 355 test images" in lines[1]
    assert lines[2].split()[:2] == ["epoch", "main/loss"]
    assert lines[3].split()[0] == "1"
    accuracy = log(tmp_path / "run")[-1]["validation/main/accuracy"]
    assert f"final {accuracy:.2%}" in lines[-1]
    assert lines[-1].endswith(" run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["arguments"]["layer_mix"] == [0, 1, 2]
    assert record["final_accuracy"] == accuracy

    done = train("--out", "run")
    assert done.returncode == 2
    assert "holds another run" in done.stderr

    done = train("--out", "run", "--resume", "--epoch", "2")
    assert (done.returncode, done.stderr) == (0, "")
    done = train("--out", "straight", "--epoch", "2")
    assert log(tmp_path / "run") == log(tmp_path / "straight")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["resumed_from"] == "snapshot_iter_3"


BAD_INPUT = [
    ("--dataset digit", "unknown dataset 'digit': did you mean digits?"),
    ("--dataset cifar", "did you mean cifar"),
    ("--model resnet", "unknown model 'resnet': did you mean resnet"),
    ("--model cmn", "did you mean cnn?"),
    ("--alpha -0.1", "must be a finite number >= 0, not -0.1"),
    ("--alpha nan", "must be a finite number >= 0, not nan"),
    ("--alpha inf", "must be a finite number >= 0, not inf"),
    ("--alpha much", "must be a finite number >= 0, not much"),
    ("--model cnn --layer-mix 7", "7 is no mixing point of cnn: choose from 0, 1, 2"),
    ("--layer-mix 0,1", "must be whole numbers with spaces, as in 0 1, not 0,1"),
    ("--gpu zero", "must be a whole number, negative for the CPU, not zero"),
    ("--gpus=", "such as 0,1,2,3, not nothing"),
    ("--dataset folder:", "must be a name, folder:PATH or npz:FILE, not folder:"),
    ("--validation-split 1", "must be above 0 and below 1, not 1"),
    ("--size 16", "size (--size) is not for digits: leave it out\n"),
    ("--layer-mix 2 9", "--layer-mix 9 is no mixing point of resnet50: choose"),
    ("--mixup input --layer-mix 1", "not input"),
    ("--mixup none --layer-mix 1", "not none"),
    ("--mixup cut", "invalid choice: 'cut'"),
    ("--mixup none --cutmix-alpha 1", "--cutmix-alpha is for --mixup manifold"),
    ("--mixup none --fold", "--fold is for --mixup manifold"),
    ("--switch-prob 0.9", "is for --alpha above 0 and CutMix, FMix or ResizeMix"),
    ("--cutmix-alpha 1 --cutmix-minmax 0.2 0.8", "is in place of --cutmix-alpha"),
    ("--cutmix-minmax 0.8 0.2", "the smaller one first, not (0.8, 0.2)"),
    ("--cutmix-minmax 0.2 0.8 --fold", "leave out fold"),
    ("--resizemix-minmax 0.1 2", "must be in [0, 1], not 2"),
    ("--resizemix-minmax 0.1 0.8 --model cnn", "(layer 2, --resizemix-minmax)"),
    ("--fmix-alpha 0", "must be a finite number > 0, not 0"),
    ("--fmix-alpha 1", "FMix takes places from maps of shape (N, C, H, W)"),
    ("--clean-weight -1", "must be in [0, 1], not -1"),
    ("--clean-weight 1", "must be above 0 and below 1, not 1"),
    ("--clean-weight 0.5 --alpha 0", "--clean-weight changes nothing where nothing"),
    ("--remix-kappa 3 --mixup-prob 0", "--remix-kappa changes nothing where nothing"),
    ("--model cnn --remix-kappa 3", "class has 1.05 times as many"),
    ("--remix-kappa 0.5", "must be a finite number >= 1, not 0.5"),
    ("--remix-tau 0.5", "--remix-tau is for --remix-kappa"),
    ("--top-k 10", "not below the 10 classes: choose at most 9"),
    ("--mixup-off-epoch 3 --epoch 3", "is not before the end, --epoch 3"),
    ("--cutmix-alpha 1 --alpha 0", "3 or longer, but x has shape (2, 256, 2, 2)"),
    ("--cutmix-alpha 1 --model cnn", "(layer 2, --cutmix-alpha); --layer-mix 0 1 will"),
    ("--model cnn --keep-best valid/main/acc", "did you mean validation/main/accuracy"),
    ("--model cnn --keep-best val/acc", "did you mean validation/main/accuracy?"),
    ("--model cnn --keep-best main/clean_loss", "main/loss, main/accuracy, main/lam"),
    ("--model cnn --analyse --keep-best validation/main/ece", "(--keep-best)"),
    ("--per image", "invalid choice: 'image'"),
    ("--mixup-prob 1.5", "must be in [0, 1], not 1.5"),
    ("--fixed-lam 1.5", "must be in [0, 1], not 1.5"),
    ("--fixed-lam 0.5 --alpha-end 1", "--alpha-end changes nothing with --fixed-lam"),
    ("--mixup none --fixed-lam 0.5", "--fixed-lam is for --mixup manifold"),
    ("--mixup-off-epoch 0", "must be a whole number >= 1, not 0"),
    ("--label-smoothing 2", "must be in [0, 1], not 2"),
    ("--loss mse", "invalid choice: 'mse'"),
    ("--model cnn --stem cifar", "are for resnet18 to resnet152, not for cnn"),
    ("--model cnn --pretrained missing.npz", "file or directory): check the path"),
    ("--model cnn --pretrained missing.npz", "permissions (--pretrained)"),
    ("--model cnn --pretrained file", "no npz file of weights"),
    ("--epoch 0", "must be a whole number >= 1, not 0"),
    ("--epoch 1.5", "must be a whole number >= 1, not 1.5"),
    ("--batchsize -3", "must be a whole number >= 1, not -3"),
    ("--model cnn --batchsize 2000", "more than the 1442 training examples"),
    ("--lr 0", "must be a finite number > 0, not 0"),
    ("--lr inf", "must be a finite number > 0, not inf"),
    ("--lr-drop 0", "must be a whole number >= 1, not 0"),
    ("--lr-drop 3 --epoch 3", "--lr-drop 3 never comes, for --epoch is 3"),
    ("--lr-drop 1 9 --epoch 3", "--lr-drop 9 never comes, for --epoch is 3"),
    ("--lr-drop 1 --cosine", "--cosine and --lr-drop both lower the rate"),
    ("--warmup 2 --epoch 2", "--warmup 2 takes all of --epoch 2"),
    ("--warmup -1", "must be a whole number >= 0, not -1"),
    ("--grad-clip 0", "must be a finite number > 0, not 0"),
    ("--grad-clip 1 --dtype mixed16", "--grad-clip is for --dtype float32"),
    ("--weight-decay -1", "must be a finite number >= 0, not -1"),
    ("--momentum 0.8", "--momentum is for --optimizer sgd, momentum_sgd and nesterov"),
    ("--momentum 1.5", "must be in [0, 1], not 1.5"),
    ("--nesterov --optimizer nesterov", "--nesterov is for --optimizer sgd, not nest"),
    ("--nesterov --optimizer sgd --momentum 0", "--nesterov needs a --momentum above"),
    ("--model cnn --published", "is for preactresnet18 to 152 and wideresnet28_10"),
    ("--optimizer lamb", "invalid choice: 'lamb'"),
    ("--seed -1", "must be a whole number in [0, 4294967295], not -1"),
    ("--label-noise 1.5", "must be in [0, 1], not 1.5"),
    ("--label-noise nan", "must be in [0, 1], not nan"),
    ("--model cnn --train-size 2000", "the training set has 1442"),
    ("--gpu 0 --device @numpy", "not allowed with argument --gpu"),
    ("--device @nonsense", "there is no device '@nonsense' here"),
    ("--device @nonsense", "the first GPU (--gpu, --device)"),
    ("--resume", "there is no snapshot to resume from in result"),
    ("--model cnn --resume missing", "there is no snapshot missing"),
    ("--model cnn --resume file", "file is not a snapshot"),
    ("--model cnn --resume file", "take another one (--resume)"),
    ("--model cnn --out file", "is a file: name another (--out, --resume)"),
    ("--dtype float8", "invalid choice: 'float8'"),
    ("--dtype float16", "--dtype float16 is not for --optimizer adam"),
    ("--loss-scale 8", "--loss-scale is for --dtype float16 or mixed16"),
    ("--dtype mixed16 --loss-scale 0", "must be a finite number > 0, not 0"),
]


@pytest.mark.parametrize("arguments, message", BAD_INPUT)
def test_bad_input_ends_with_one_sentence_and_leaves_nothing(
    tmp_path, main, capsys, arguments, message
):
    (tmp_path / "file").write_text("x")
    with pytest.raises(SystemExit) as e:
        main(arguments.split())
    assert e.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert "error: " in error.splitlines()[-1]  # a single line, after the usage
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_bad_input_as_a_process(tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPT, "--model", "cnn", "--layer-mix", "5"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("gpu", [["--gpu", "0"], ["--gpus", "0,1"]])
def test_without_cupy_a_gpu_is_refused_first(main, capsys, monkeypatch, gpu):
    def start(*args):
        pytest.fail("mpiexec would have taken the place of this process")

    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr("chainer_mmix.training.multinode.start", start)
    with pytest.raises(SystemExit):
        main([*gpu, "--dataset", "nonsense"])
    assert "chainer-mmix[cuda13]" in capsys.readouterr().err


def test_a_failure_names_the_folder_that_was_chosen(main, capsys, monkeypatch):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("chainer_mmix.training.run", fail)
    assert main([*QUICK, "--quiet"]) == 1
    assert "--resume result/digits_cnn_manifold_" in capsys.readouterr().err


def test_an_older_run_goes_on_as_it_was(main, capsys):
    run = [*QUICK, "--quiet", "--out", "run"]
    assert main(run) == 0
    path = pathlib.Path("run", "run.json")
    record = json.loads(path.read_text())
    for arguments in (record["arguments"], record["starts"][0]["arguments"]):
        del arguments["flip"], arguments["remix_kappa"]
    path.write_text(json.dumps(record))
    for option in (["--flip"], ["--remix-kappa", "3"]):
        with pytest.raises(SystemExit):
            main([*run, "--epoch", "2", "--resume", *option])
        assert f"{option[0]} was " in capsys.readouterr().err
    assert main([*run, "--epoch", "2", "--resume"]) == 0


def test_analysis_in_half_precision(main):
    run = [*QUICK, "--quiet", "--dtype", "mixed16", "--epoch", "1", "--analyse"]
    assert main([*run, "--out", "run"]) == 0
    [entry] = log("run")
    loss = entry["validation/main/loss"]
    assert entry["validation/main/nll"] == pytest.approx(loss, rel=2e-3)
    assert 0 <= entry["validation/main/fgsm_accuracy/0.01"] <= 1


def test_analysis_at_the_end(main):
    run = [*QUICK, "--quiet", "--epoch", "2"]
    assert main([*run, "--out", "plain"]) == 0
    assert main([*run, "--out", "run", "--analyse"]) == 0
    first, last = log("run")
    own = last.keys() - log("plain")[-1].keys()
    assert not own & first.keys()
    assert {key.split("/")[2].split("_")[0] for key in own} == {
        *("ece", "nll", "brier", "fgsm", "deformed")
    }
    assert [first, {k: v for k, v in last.items() if k not in own}] == log("plain")
    for name in ("reliability.json", "mixup_preview.png"):
        assert pathlib.Path("run", name).exists()
    # A run may begin with it or without.
    assert main([*run, "--out", "plain", "--resume", "--epoch", "3", "--analyse"]) == 0
    assert main([*run, "--out", "run", "--resume", "--epoch", "3"]) == 0
    assert "validation/main/ece" in log("plain")[-1]


def test_tensorboard(main, capsys, monkeypatch):
    with monkeypatch.context() as context:
        context.setitem(sys.modules, "tensorboardX", None)
        with pytest.raises(SystemExit):
            main(["--tensorboard", "--dataset", "nonsense"])
        assert "chainer-mmix[tensorboard]" in capsys.readouterr().err
    pytest.importorskip("tensorboardX", reason="the extra tensorboard")
    run = [*QUICK, "--quiet", "--out", "run"]
    assert main([*run, "--tensorboard"]) == 0
    (path,) = pathlib.Path("run/tensorboard").iterdir()
    assert b"validation/main/accuracy" in path.read_bytes()
    assert main([*QUICK, "--quiet", "--out", "plain"]) == 0
    assert log("run") == log("plain")
    assert main([*run, "--resume", "--epoch", "2"]) == 0


def test_without_network_cifar_names_the_archive(main, capsys, monkeypatch, tmp_path):
    from urllib.error import URLError

    from chainer.dataset import download

    def urlretrieve(url, path):
        raise URLError("no route to host")

    monkeypatch.setattr(download.request, "urlretrieve", urlretrieve)
    monkeypatch.setattr(download, "_dataset_root", str(tmp_path / "cache"))
    with pytest.raises(SystemExit):
        main(["--model", "cnn", "--dataset", "cifar10", "--out", "run"])
    error = capsys.readouterr().err.splitlines()[-1]
    assert "CHAINER_DATASET_ROOT" in error
    assert str(tmp_path / "cache") in error
    assert not (tmp_path / "run").exists()


def test_same_seed_same_log(main):
    for out, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        assert main([*QUICK, "--quiet", "--out", out, "--seed", seed]) == 0
    assert log("a") == log("b")
    assert log("a") != log("c")


def test_data_on_the_device_changes_nothing_and_may_come_and_go(main):
    run = [*QUICK, "--quiet", "--augment"]
    assert main([*run, "--out", "a", "--epoch", "2"]) == 0
    assert main([*run, "--out", "b", "--data-on-device"]) == 0
    assert main([*run, "--out", "b", "--resume", "--epoch", "2"]) == 0
    for entry, expected in zip(log("b"), log("a"), strict=True):
        assert entry == pytest.approx(expected, rel=1e-3)


def test_replayed_steps_change_nothing_and_may_come_and_go(main, monkeypatch):
    pytest.importorskip("numba")
    from chainer_revive.cpu.recording import Plan

    replayed = []
    run = Plan.run
    monkeypatch.setattr(
        Plan, "run", lambda self, *args: (replayed.append(self), run(self, *args))
    )
    steps = [*QUICK, "--quiet", "--train-size", "400", "--epoch", "2"]
    assert main([*steps, "--out", "a"]) == 0
    assert main([*steps[:-1], "1", "--out", "b", "--graph"]) == 0
    assert len(set(replayed)) == 3 + 1  # layers, and the evaluation
    assert len(replayed) > 9
    assert main([*steps, "--out", "b", "--resume"]) == 0
    assert main([*steps, "--out", "c", "--graph"]) == 0
    assert log("a") == log("b") == log("c")


@pytest.mark.parametrize(
    "arguments, folder, layers",
    [
        ("", "digits_cnn_manifold_alpha0.2_n40_seed0", {"0", "1", "2"}),
        (
            "--layer-mix 1 2",
            "digits_cnn_manifold_alpha0.2_layer1-2_n40_seed0",
            {"1", "2"},
        ),
        ("--mixup input --alpha 1", "digits_cnn_input_alpha1_n40_seed0", {"0"}),
        ("--mixup none", "digits_cnn_none_n40_seed0", set()),
        ("--alpha 0", "digits_cnn_manifold_alpha0_n40_seed0", {"0", "1", "2"}),
    ],
)
def test_mixing_and_default_folder(main, arguments, folder, layers):
    assert main([*QUICK, "--quiet", *arguments.split()]) == 0
    (out,) = pathlib.Path("result").iterdir()
    assert out.name == folder
    report = json.loads((out / "mixup.json").read_text())
    assert report["layer"].keys() == layers | {"none"}
    is_mixed = "none" not in arguments and "--alpha 0" not in arguments
    assert (log(out)[0]["main/lam"] < 1) == is_mixed


def test_every_mode_of_mixing_reaches_the_policy(main):
    modes = "--per pair --fold --mixup-prob 0.8 --cutmix-alpha 1 --switch-prob 0.4"
    modes += " --layer-mix 0 1 --fmix-alpha 2 --resizemix-minmax 0.3 0.8"
    assert main([*QUICK, "--quiet", "--epoch", "4", *modes.split()]) == 0
    (out,) = pathlib.Path("result").iterdir()
    assert out.name == (
        "digits_cnn_manifold_alpha0.2_layer0-1_per-pair_fold_mixup-prob-0.8_cutmix-alpha-1.0_"
        "fmix-alpha-2.0_resizemix-minmax-0.3-0.8_switch-prob-0.4_n40_seed0"
    )
    report = json.loads((out / "mixup.json").read_text())
    assert report["settings"] == {
        "alpha": 0.2,
        "layer_mix": [0, 1],
        "per": "pair",
        "fold": True,
        "prob": 0.8,
        "cutmix_alpha": 1,
        "fmix_alpha": 2,
        "resizemix_minmax": [0.3, 0.8],
        "switch_prob": 0.4,
    }
    methods = {"mixup", "cutmix", "fmix", "resizemix"}
    assert all(report["method"].values()) and report["method"].keys() == methods
    assert not any(report["lam"]["counts"][:10])  # folded


def test_clean_loss_remix_and_top_k_are_logged(main, monkeypatch):
    options = "--clean-weight 0.4 --remix-kappa 1 --remix-tau 0.9 --top-k 3"
    words = [*QUICK, "--quiet", "--augment", *options.split()]
    seen, weights = [], Remix.weights
    monkeypatch.setattr(Remix, "weights", lambda *a: seen.append(a[0]) or weights(*a))
    assert main(words) == 0
    (out,) = pathlib.Path("result").iterdir()
    assert "clean-weight-0.4_remix-kappa-1.0_remix-tau-0.9" in out.name
    (entry,) = log(out)[-1:]
    for name in ("main/", "main/clean_", "validation/main/"):
        assert 0 <= entry[f"{name}accuracy"] <= entry[f"{name}top3_accuracy"] <= 1
    assert entry["main/loss"] > 0.4 * entry["main/clean_loss"] > 0
    (remix,) = set(seen)
    assert (remix.kappa, remix.tau) == (1, 0.9)
    assert remix.class_counts.sum() == 40 and len(remix.class_counts) == 10


def test_options_of_ranks_are_said_to_be_idle_in_one_process(main, capsys):
    given = "--sync-bn --common-draw --lr-scaling linear --epoch 4 --rank-timeout 9"
    with pytest.raises(SystemExit):
        main(["--model", "cnn", *given.split(), "--batchsize", "2000"])
    lines = capsys.readouterr().err.splitlines()
    said = [line.partition("warning: ")[2] for line in lines if "warning" in line]
    assert [line.split(" in one process: ")[0] for line in said] == [
        "--common-draw does nothing",
        "--sync-bn does nothing",
        "--rank-timeout 9 does nothing",
        "--lr-scaling linear does no more than its warm-up (--warmup 2)",
    ]


def test_mixing_changes_with_time(main, capsys):
    arguments = "--epoch 4 --alpha 2 --alpha-end 0 --mixup-prob-end 0.5"
    run = [*QUICK, "--quiet", *arguments.split(), "--mixup-off-epoch", "3"]
    assert main([*run, "--out", "run"]) == 0
    entries = log("run")
    # The values of the third and the tenth of 10 iterations.
    assert entries[0]["mixup/alpha"] == pytest.approx(2 * 0.8)
    assert entries[-1]["mixup/prob"] == pytest.approx(1 - 0.5 * 0.9)
    with pytest.raises(SystemExit):
        main([*run, "--out", "run", "--resume", "--epoch", "5"])
    assert "--epoch was 4 and is 5" in capsys.readouterr().err
    off = [entry["mixup/layer/none"] for entry in entries]
    assert off[0] < 1 and off[3] == 1 and entries[3]["main/lam"] == 1


def test_options_of_resnets_reach_the_model(main, monkeypatch):
    from chainer_mmix import models

    class Seen(Exception):
        pass

    def record(self, n_class, **options):
        raise Seen(options)

    monkeypatch.setattr(models.ResNet18, "__init__", record)
    with pytest.raises(Seen, match="'stem': 'cifar', 'downsample_fb': True"):
        main(["--model", "resnet18", "--stem", "cifar", "--downsample-fb"])


def test_options_of_the_papers_code_reach_model_optimizer_and_record(
    main, monkeypatch, capsys
):
    from chainer_mmix import models, training

    class Small(models.PreActResNet18):
        def __init__(self, n_class, **options):
            super().__init__(n_class, width=2, **options)

    monkeypatch.setitem(models.MODELS, "preactresnet18", Small)
    made = []
    make = training.make_optimizer
    monkeypatch.setattr(
        training, "make_optimizer", lambda *args: made.append(make(*args)) or made[-1]
    )
    run = ["--model", "preactresnet18", "--train-size", "100", "--epoch", "1"]
    run += ["--quiet", "--out", "run", "--optimizer", "sgd", "--nesterov"]
    run += ["--weight-decay", "0.1", "--momentum", "0.8"]
    assert main([*run, "--published"]) == 0
    optimizer = made[0]
    assert type(optimizer) is training.SGD
    hp = optimizer.hyperparam
    assert (hp.lr, hp.momentum, hp.weight_decay, hp.nesterov) == (0.1, 0.8, 0.1, True)
    assert optimizer.target.predictor.block1.a.bn1.eps == 1e-5
    values = json.loads(pathlib.Path("run/run.json").read_text())["setting"]["values"]
    assert values["published"] and values["nesterov"] and values["momentum"] == 0.8
    os.remove("run/run.json")
    # Without the record, the snapshot itself tells them apart.
    with pytest.raises(SystemExit):
        main([*run, "--resume", "--epoch", "2"])
    assert "it also has predictor/published" in capsys.readouterr().err


def test_loss_and_label_smoothing(main):
    for loss in ("ce", "bce"):
        for smoothing in ("0", "0.3"):
            out = f"{loss}{smoothing}"
            arguments = ["--loss", loss, "--label-smoothing", smoothing, "--out", out]
            assert main([*QUICK, "--quiet", "--mixup", "none", *arguments]) == 0
    first = {out: log(out)[0]["main/loss"] for out in ("ce0", "ce0.3", "bce0")}
    # Of nearly even probabilities.
    assert first["ce0"] == pytest.approx(math.log(10), rel=0.2)
    bce = -(math.log(0.1) + 9 * math.log(0.9)) / 10
    assert first["bce0"] == pytest.approx(bce, rel=0.2)
    assert (
        len({log(o)[0]["main/loss"] for o in ("ce0", "ce0.3", "bce0", "bce0.3")}) == 4
    )


def test_pretrained_weights_are_where_it_begins(main, capsys):
    assert main([*QUICK, "--quiet", "--out", "first", "--epoch", "3"]) == 0
    weights = "first/snapshot_iter_8"
    run = [
        *QUICK,
        "--quiet",
        "--pretrained",
        weights,
        "--mixup",
        "none",
        "--lr",
        "1e-9",
    ]
    assert main([*run, "--out", "second"]) == 0
    before, after = (
        numpy.load(f"{out}/snapshot_iter_{n}")[
            "updater/model:main/predictor/block1/conv1/W"
        ]
        for out, n in (("first", 8), ("second", 3))
    )
    numpy.testing.assert_allclose(before, after, atol=1e-6)
    with pytest.raises(SystemExit):
        main(["--model", "resnet18", "--pretrained", weights, "--out", "third"])
    assert "do not fit ResNet18" in capsys.readouterr().err
    assert not pathlib.Path("third").exists()


@pytest.mark.filterwarnings("error:The previous value:UserWarning")
def test_a_quiet_run_can_be_resumed_with_a_table(main, capsys, monkeypatch):
    assert main([*QUICK, "--quiet", "--out", "run"]) == 0
    capsys.readouterr()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main([*QUICK, "--out", "run", "--resume", "--epoch", "2"]) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if "0.001" in line]
    assert len(table) == 3  # the setting and two epochs


def test_divergence_exits_with_1_and_names_the_snapshot(main, capsys):
    assert main([*QUICK, "--quiet", "--out", "run"]) == 0
    capsys.readouterr()
    arguments = [*QUICK, "--quiet", "--out", "run", "--resume", "--epoch", "50"]
    assert main([*arguments, "--lr", "1e30"]) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert "the last good snapshot is run/snapshot_iter_3" in error
    assert "lower --lr than 1e+30" in error
    record = json.loads(pathlib.Path("run/run.json").read_text())
    assert record["status"] == "failed"
    assert "nan" in record["reason"] or "NaN" in record["reason"]

    # And the way out of it works.
    assert main(["--quiet", "--resume", "run", "--epoch", "2", "--lr", "0.001"]) == 0
    assert log("run")[-1]["lr"] == 0.001


def test_resuming_another_run_is_refused(main, capsys):
    assert main([*QUICK, "--quiet", "--out", "run"]) == 0
    before = sorted(
        (p.name, p.stat().st_mtime_ns) for p in pathlib.Path("run").iterdir()
    )
    for arguments, message in (
        ("--out run --resume --mixup none", "--mixup was manifold and is none"),
        ("--resume run/snapshot_iter_3 --seed 1", "--seed was 0 and is 1"),
        ("--out run --resume --epoch 2 --model resnet50", "--model was cnn"),
    ):
        with pytest.raises(SystemExit) as e:
            main([*QUICK, *arguments.split()])
        assert e.value.code == 2
        assert message in capsys.readouterr().err
    after = sorted(
        (p.name, p.stat().st_mtime_ns) for p in pathlib.Path("run").iterdir()
    )
    assert after == before


@pytest.mark.parametrize(
    ("options", "recorded"),
    [
        ([], {"clean_weight": 1.0}),
        ([], {"remix_kappa": 3.0}),
        (["--alpha", "0"], {"clean_weight": 0.5}),
    ],
)
def test_a_run_goes_on_with_options_that_a_new_one_may_not_have(
    main, options, recorded
):
    run = [*QUICK, *options, "--out", "run"]
    assert main(run) == 0
    record = json.loads(pathlib.Path("run/run.json").read_text())
    record["arguments"] |= recorded
    pathlib.Path("run/run.json").write_text(json.dumps(record))
    assert main(["--resume", "run", "--epoch", "2"]) == 0
    with pytest.raises(SystemExit):
        words = [f"--{k.replace('_', '-')}={v}" for k, v in recorded.items()]
        main([*run[:-1], "new", *words])


@pytest.mark.parametrize("resume", ["--resume --out run", "--resume run"])
def test_resuming_a_finished_run_does_nothing(main, capsys, resume):
    assert main([*QUICK, "--quiet", "--out", "run"]) == 0
    before = {p.name: p.read_bytes() for p in pathlib.Path("run").iterdir()}
    capsys.readouterr()
    assert main([*QUICK, *resume.split(), "--epoch", "1"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert "run/snapshot_iter_3 is from the end of epoch 1" in line
    assert "higher --epoch" in line
    assert {p.name: p.read_bytes() for p in pathlib.Path("run").iterdir()} == before
    assert [p.name for p in pathlib.Path().iterdir()] == ["run"]


def test_the_console_script_trains_as_the_script_does(main, capsys):
    from chainer_mmix.cli.main import main as console

    assert main([*QUICK, "--quiet", "--out", "a"]) == 0
    assert console(["train", *QUICK, "--quiet", "--out", "b"]) == 0
    assert log("a") == log("b")
    capsys.readouterr()
    helps = []
    for command, prog in (
        (main, "train_manifoldmixup.py"),
        (lambda words: console(["train", *words]), "chainer-mmix train"),
    ):
        for words in (["--epoch", "0"], ["--model", "cmn"]):
            with pytest.raises(SystemExit) as e:
                command(words)
            assert e.value.code == 2
            error = capsys.readouterr().err.splitlines()[-1]
            assert error.startswith(f"{prog}: error: ")
        with pytest.raises(SystemExit):
            command(["--help"])
        text = capsys.readouterr().out
        assert f"{prog} --resume --epoch 40" in text
        helps.append(text.split("what to train:")[1].split("main/accuracy in")[0])
    assert helps[0] == helps[1]
    record = json.loads(pathlib.Path("b/run.json").read_text())
    assert record["command"].startswith("chainer-mmix train --model cnn")


def test_what_a_damaged_or_lost_record_asks_for(main, capsys):
    assert main([*QUICK, "--quiet", "--out", "run"]) == 0
    record = pathlib.Path("run/run.json")
    words = [*QUICK, "--model", "elucnn", "--resume", "run", "--epoch", "2"]
    record.write_text("{")
    with pytest.raises(SystemExit):
        main(words)
    assert "remove it and give --model" in capsys.readouterr().err
    record.unlink()
    with pytest.raises(SystemExit):
        main([*words, "--out", "new"])
    error = capsys.readouterr().err
    assert "another model or setting" in error
    assert "run has no run.json from which to take them: give --model" in error
    assert not pathlib.Path("new").exists()


def test_without_a_value_resume_is_no_path(main, capsys, monkeypatch):
    isdir = os.path.isdir

    def check(path):
        assert not isinstance(path, bool)  # of which Python 3.13 warns
        return isdir(path)

    monkeypatch.setattr(os.path, "isdir", check)
    with pytest.raises(SystemExit):
        main([*QUICK, "--resume"])
    assert "no snapshot to resume from" in capsys.readouterr().err


def test_resuming_goes_on_with_the_branch_that_was_gone_back_to(main, monkeypatch):
    from chainer.training.updaters import StandardUpdater

    run = [*QUICK, "--quiet", "--out", "run"]
    assert main([*run, "--epoch", "3"]) == 0
    back = ["--resume", "run/snapshot_iter_5", "--epoch", "3", "--batchsize", "40"]
    with monkeypatch.context() as context:
        # Killed before the first epoch of the branch is done.
        context.setattr(StandardUpdater, "update", lambda self: sys.exit(9))
        with pytest.raises(SystemExit):
            main([*run, *back])
    assert [entry["iteration"] for entry in log("run")] == [3, 5]
    again = ["--resume", "--batchsize", "40"]
    assert main([*run, *again, "--epoch", "3"]) == 0
    before = log("run")
    assert [entry["iteration"] for entry in before] == [3, 5, 6]
    assert main([*run, *again, "--epoch", "4"]) == 0
    assert log("run")[:3] == before
    record = json.loads(pathlib.Path("run/run.json").read_text())
    assert record["resumed_from"] == "snapshot_iter_6"
    assert [
        (s["from_epoch"], s["to_epoch"], s["arguments"]["batchsize"])
        for s in record["starts"]
    ] == [(0, 2, 16), (2, 3, 40), (3, 4, 40)]


def test_interruption_is_recorded(main, capsys, monkeypatch):
    from chainer.training.updaters import StandardUpdater

    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(StandardUpdater, "update", interrupt)
    assert main([*QUICK, "--quiet", "--out", "run"]) == 130
    assert "Traceback" not in capsys.readouterr().err
    record = json.loads(pathlib.Path("run/run.json").read_text())
    assert (record["status"], record["reason"]) == ("failed", "KeyboardInterrupt")


@pytest.mark.parametrize(
    "base, name, text, remedy",
    [
        (MemoryError, "OutOfMemoryError", "Out of memory", "choose a smaller batch"),
        (RuntimeError, "CUDARuntimeError", "cudaErrorIllegalAddress", "--resume auto"),
        (RuntimeError, "RuntimeError", "a bug", None),
    ],
)
def test_a_fault_of_the_gpu_is_one_sentence(
    main, capsys, monkeypatch, base, name, text, remedy
):
    from chainer.training.updaters import StandardUpdater

    fault = type(name, (base,), {})(text)

    def fail(self):
        raise fault

    monkeypatch.setattr(StandardUpdater, "update", fail)
    if remedy is None:
        with pytest.raises(RuntimeError, match="a bug"):
            main([*QUICK, "--quiet", "--out", "run"])
        return
    assert main([*QUICK, "--quiet", "--out", "run"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "the training failed: the GPU" in error and remedy in error


def test_half_precision(main):
    import chainer

    run = [*QUICK, "--quiet", "--dtype", "mixed16", "--loss-scale", "16"]
    assert main(run) == 0
    (out,) = pathlib.Path("result").iterdir()
    assert "dtype-mixed16_loss-scale-16" in out.name
    assert log(out)[0]["loss_scale"] == 16
    with numpy.load(out / "snapshot_iter_3") as snapshot:
        weights = snapshot["updater/model:main/predictor/block1/conv1/W"]
    assert weights.dtype == numpy.float16
    assert chainer.get_dtype() == numpy.float32


def test_help_has_all_options_with_their_defaults(main, capsys):
    from chainer_mmix.cli import train

    with pytest.raises(SystemExit) as e:
        main(["--help"])
    assert e.value.code == 0
    capsys.readouterr()
    for action in train.get_parser()._actions[1:]:
        assert len(action.help) > 15, action.dest
        if action.default and action.default is not True:
            default = str(action.default).removesuffix(".0")
            assert f"(default: {default})" in action.help, action.dest
