import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import chainer_mmix
from chainer_mmix import datasets
from chainer_mmix.cli.main import main
from chainer_mmix.inference import load_predictor


@pytest.fixture
def digits(tmp_path):
    folder = tmp_path / "digits"
    folder.mkdir()
    for i in range(20):
        image = np.rint(datasets.get_digits()[1][i][0][0] * 255).astype(np.uint8)
        Image.fromarray(image).save(folder / f"{i:02}.png")
    return folder


def test_the_folder_of_a_run_is_not_taken_for_pictures(digits_run, digits, capsys):
    assert main(["predict", str(digits_run), str(digits_run), str(digits)]) == 2
    assert "is the folder of a run, not of pictures" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["text", "csv", "json"])
def test_all_formats_tell_what_the_network_says(digits_run, digits, form, capsys):
    words = [str(digits_run), str(digits), "--format", form, "--which", "final"]
    assert main(["predict", *words]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    p = load_predictor(digits_run, "final")(sorted(digits.iterdir()))
    names = [str(digits / f"{i:02}.png") for i in range(20)]
    if form == "json":
        found = json.loads(captured.out)
        assert [entry["file"] for entry in found] == names
        assert [entry["class"] for entry in found] == list(map(str, p.argmax(1)))
        rows = [list(entry["probabilities"].values()) for entry in found]
        np.testing.assert_allclose(rows, p, 1e-12)
    elif form == "csv":
        found = list(csv.DictReader(io.StringIO(captured.out)))
        assert [entry["file"] for entry in found] == names
        rows = [[float(row[f"P({i})"]) for i in range(10)] for row in found]
        np.testing.assert_allclose(rows, p, 1e-5)
        assert [float(row["probability"]) for row in found] == [max(r) for r in rows]
    else:
        head, *lines = captured.out.splitlines()
        assert head.split() == ["file", "class", "probability", "next"]
        for line, name, row in zip(lines, names, p, strict=True):
            order = np.argsort(-row)
            first = [name, str(order[0]), f"{row[order[0]]:.3f}"]
            rest = [f"{i} {row[i]:.3f}" for i in order[1:3]]
            assert line.split() == " ".join([*first, ", ".join(rest)]).split()


def test_batches_do_not_change_what_is_printed(digits_run, digits, capsys):
    printed = []
    for size in ("1", "7", "64"):
        words = [str(digits_run), str(digits), "--batchsize", size]
        assert main(["predict", *words]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] == printed[2]


def test_what_is_no_picture_is_told_and_the_rest_predicted(digits_run, digits, capsys):
    (digits / "03.png").write_bytes(b"no picture")
    (digits / "notes.txt").write_text("no picture either")
    assert main(["predict", str(digits_run), str(digits)]) == 1
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 20
    assert "left out" in captured.err and "03.png" in captured.err
    assert "notes.txt" not in captured.err


def test_ink_on_paper_is_noticed(digits_run, digits, capsys):
    for path in digits.iterdir():
        with Image.open(path) as image:
            negative = Image.fromarray(255 - np.asarray(image))
        negative.save(path)
    words = ["predict", str(digits_run), str(digits)]
    assert main(words) == 0
    assert "20 pictures have bright corners" in capsys.readouterr().err
    assert main([*words, "--invert"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["none", "a.png"], "none does not exist: name the output folder of a run"),
        (["RUN", "a.png"], "a.png does not exist: name a picture or a folder"),
        (["RUN", "empty"], "empty has no pictures"),
        (["RUN", "bad.npz"], "bad.npz is no whole file of an array x"),
        (["RUN", "other.npz"], "it has a, b and no array 'x'"),
        (["RUN", "x.npy"], "shape (1, 3, 5), but the network takes (1, 8, 8)"),
        (["RUN", "x.npy", "--device", "@abacus"], "there is no device '@abacus'"),
    ],
)
def test_bad_input(digits_run, tmp_path, monkeypatch, capsys, words, error):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04")
    np.savez("other.npz", a=1, b=2)
    np.save("x.npy", np.zeros((2, 1, 3, 5), np.float32))
    words = [str(digits_run) if word == "RUN" else word for word in words]
    assert main(["predict", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert error in captured.err and captured.err.count("\n") == 1


def test_a_run_at_work_is_said_to_be(digits_run, digits, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(digits_run, run)
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "status": "running"}))
    assert main(["predict", str(run), str(digits)]) == 0
    assert "is still at work, or was killed" in capsys.readouterr().err


def test_evaluate_writes_beside_the_run_and_prints(digits_run, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(digits_run, run)
    assert main(["evaluate", str(run), "--errors", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    content = json.loads((run / "evaluation" / "evaluation.json").read_text())
    assert lines[0].startswith("355 examples, the test set of digits; ")
    assert f"accuracy {content['accuracy']:.4f}, nll {content['nll']:.4f}" in lines[1]
    first = content["errors"][0]
    start = lines.index(f"The 2 most confident of {len(content['errors'])} errors:")
    shown = lines[start:]
    assert shown[1].startswith(f"  {first['file']}: {first['predicted']} (")
    assert shown[3] == ""
    assert lines[-1].endswith("errors.png")


def test_an_evaluation_does_not_take_the_place_of_another(digits_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(digits_run, run)
    for words in (
        [],
        ["--part", "train"],
        ["--which", "final"],
        ["--dataset", "digits", "--part", "test"],
    ):
        assert main(["evaluate", str(run), *words]) == 0
    found = {
        path.parent.name: json.loads(path.read_text())
        for path in run.glob("*/evaluation.json")
    }
    assert {name: (e["examples"], e["snapshot"]) for name, e in found.items()} == {
        "evaluation": ("the test set of digits", "best_iter_13"),
        "evaluation_train": ("the train set of digits", "best_iter_13"),
        "evaluation_final": ("the test set of digits", "snapshot_iter_19"),
        "evaluation_of-digits_test": ("the test set of digits", "best_iter_13"),
    }


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("net.pb", "net.pb: give a name that ends in .onnx or .safetensors"),
        ("no/net.onnx", "no/net.onnx is in no folder: make no first"),
        ("net.onnx --names chainer", "--names is for a .safetensors"),
        ("net.safetensors --opset 17", "--opset is for a .onnx"),
    ],
)
def test_export_refuses(digits_run, tmp_path, monkeypatch, capsys, words, error):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(digits_run), *words.split()]) == 2
    assert error in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--dataset", "digit"], "unknown dataset 'digit': did you mean digits?"),
        (["--dataset", "folder:none"], "there is no folder"),
        (["--part", "validation"], "digits has no validation set"),
        (["--out", "FILE/x"], "cannot be made"),
    ],
)
def test_evaluate_refuses(digits_run, tmp_path, monkeypatch, capsys, words, error):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("")
    assert main(["evaluate", str(digits_run), *words]) == 2
    assert error in capsys.readouterr().err


def test_a_reader_that_has_read_enough_is_no_error(digits_run, digits):
    package = Path(chainer_mmix.__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "chainer_mmix.cli", "predict", digits_run, digits],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(package)},
        text=True,
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(120) == 1
