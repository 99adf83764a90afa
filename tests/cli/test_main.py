import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from matplotlib import image

import chainer_mmix
from chainer_mmix.cli.main import main

# The processes start elsewhere and shall run this very package.
PACKAGE_ROOT = Path(chainer_mmix.__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)}


def write_run(folder, accuracies, **arguments):
    folder.mkdir(parents=True)
    log = [
        {"epoch": i, "validation/main/accuracy": a, "validation/main/loss": 1 - a}
        for i, a in enumerate(accuracies, start=1)
    ]
    (folder / "log").write_text(json.dumps(log))
    (folder / "run.json").write_text(json.dumps({"arguments": arguments}))
    return str(folder)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return [
        write_run(
            tmp_path / f"runs/{mixup}{seed}", (0.5, final), mixup=mixup, seed=seed
        )
        for mixup, seed, final in [
            ("none", 0, 0.80),
            ("none", 1, 0.82),
            ("manifold", 0, 0.90),
            ("manifold", 1, 0.94),
        ]
    ]


def run_process(*args):
    return subprocess.run(
        [sys.executable, "-m", "chainer_mmix.cli", *args],
        capture_output=True,
        encoding="utf-8",
        env={**ENVIRONMENT, "PYTHONIOENCODING": "utf-8"},
        timeout=120,
    )


def test_compare_as_a_process(runs, tmp_path):
    process = run_process("compare", "runs")
    assert process.returncode == 0, process.stderr
    assert "mixup=manifold  2 (0 1)" in process.stdout
    assert "0.9200 ± 0.0283" in process.stdout
    assert "Curves: compare.png" in process.stdout
    assert image.imread(tmp_path / "compare.png").std() > 0.05


def test_help():
    process = run_process("--help")
    assert process.returncode == 0
    assert "compare training runs" in process.stdout


@pytest.mark.parametrize(
    ("args", "text"),
    [(["runs"], rb"0.9200 \xb1 0.0283"), (["--help"], rb"mean \xb1 standard")],
)
def test_an_ascii_terminal_gets_no_traceback(runs, args, text):
    process = subprocess.run(
        [sys.executable, "-m", "chainer_mmix.cli", "compare", *args],
        capture_output=True,
        env={**ENVIRONMENT, "PYTHONIOENCODING": "ascii"},
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    assert text in process.stdout


@pytest.mark.parametrize("format", ["csv", "json"])
def test_machine_formats_own_stdout(runs, capsys, format):
    assert main(["compare", *runs[:3], "--format", format]) == 0
    out = capsys.readouterr().out
    if format == "json":
        assert len(json.loads(out)["settings"]) == 2
    else:
        assert [len(line.split(",")) for line in out.splitlines()] == [19] * 3


def test_warnings_go_to_stderr_in_one_line(runs, tmp_path, capsys):
    write_run(tmp_path / "short", (0.5,), mixup="none", seed=7, epoch=5)
    assert main(["compare", "runs/none0", "short", "--out", "x.png"]) == 0
    captured = capsys.readouterr()
    assert "warning" not in captured.out
    assert captured.err.splitlines() == [
        "warning: not finished: short (1 of 5 epochs)",
        "warning: the runs differ in epochs done: 1 (short), 2 (runs/none0)",
    ]


def test_a_run_that_died_before_its_first_epoch_is_mentioned(runs, tmp_path, capsys):
    (tmp_path / "runs/manifold1/log").unlink()
    assert main(["compare", "runs"]) == 0
    assert "runs/manifold1 has no log yet: left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere"], "nowhere does not exist"),
        (["runs/none0", "runs/none0"], "name each run once"),
        (["runs/none0", "runs"], "name each run once"),
        (["damaged"], "damaged/log is not valid JSON"),
        (
            ["runs", "--out", "picture.jpg"],
            "picture.jpg: give a name that ends in .png",
        ),
        (["runs", "--out", "missing/x.png"], "make missing first"),
        (["runs", "--out", "folder.png"], "is a folder"),
    ],
)
def test_errors_are_one_sentence_and_status_2(runs, tmp_path, capsys, args, message):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/log").write_text("[{")
    assert main(["compare", *args]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("chainer-mmix compare: error: ")
    assert message in line
    assert not (tmp_path / "compare.png").exists()


@pytest.mark.parametrize(
    "words, hint",
    [
        ("compare runs --metrik loss", "--metrik loss: did you mean --metric?"),
        ("train --batch-size 8", "--batch-size 8: did you mean --batchsize?"),
        ("train --epochs=3", "--epochs=3: did you mean --epoch?"),
        ("train --out-put x --zz", "--zz: did you mean --out?"),
        ("predict RUN x.png --zz", "unrecognized arguments: --zz"),
    ],
)
def test_an_unknown_option_names_the_one_like_it(capsys, words, hint):
    with pytest.raises(SystemExit) as caught:
        main(words.split())
    assert caught.value.code == 2
    command, *_ = words.split()
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"chainer-mmix {command}: error: unrecognized")
    assert line.endswith(hint)


def test_no_command_is_an_error(capsys):
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_version_is_the_installed_one(capsys):
    try:
        version = metadata.version("chainer-mmix")
    except metadata.PackageNotFoundError:
        pytest.skip("chainer-mmix is not installed")
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"chainer-mmix {version}\n"
