"""The stages of ``make gpu``, with other commands in place of those for a GPU."""

import json
import pathlib
import subprocess
import sys
import time

import pytest


@pytest.fixture
def gpu(monkeypatch):
    folder = pathlib.Path(__file__).parents[1] / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    import gpu

    return gpu


def stage(gpu, name, code, seconds=60, **options):
    return gpu.Stage(name, [sys.executable, "-c", code], seconds, **options)


def training(gpu, name, losses, folder):
    out = folder / name
    log = [{"main/loss": x, "validation/main/loss": 2 * x} for x in losses]
    code = f"import pathlib; p = pathlib.Path({str(out)!r}); p.mkdir(); "
    code += f"(p / 'log').write_text({json.dumps(log)!r})"

    def keep(output):
        return [json.dumps(gpu.losses(out))]

    return stage(gpu, f"train: {name}", code, keep=keep)


def test_each_stage_is_run_and_told(gpu, monkeypatch, tmp_path, capsys):
    def stages(folder):
        return [
            stage(gpu, "doctor", "print('card: NVIDIA H100 80GB HBM3')"),
            stage(gpu, "tests", "print('x\\n1 failed'); exit(1)", keep=gpu.last_line),
            stage(gpu, "hangs", "import time; print('on'); time.sleep(60)", 2),
            training(gpu, "own", [1.0, 0.5], folder),
            training(gpu, "near", [1.01, 0.499], folder),
            training(gpu, "far", [1.0, 0.6], folder),
            training(gpu, "lost", [1.0, float("nan")], folder),
            stage(gpu, "train: silent", "", keep=lambda _: [json.loads("")]),
            stage(gpu, "train: none", "exit(3)", keep=lambda _: [json.dumps(None)]),
            stage(gpu, "beside", "print('a UserWarning'); print('ratio 1.2')",
                  keep=gpu.without_warnings),
        ]  # fmt: skip

    monkeypatch.setattr(gpu, "stages", stages)
    started = time.monotonic()
    assert gpu.main(["--results", str(tmp_path)]) == 1
    assert time.monotonic() - started < 40
    (file,) = tmp_path.iterdir()
    assert file.name == "gpu-nvidia-h100-80gb-hbm3.txt"
    text = file.read_text()
    verdicts = {
        "doctor": "ok",
        "tests": "failed, status 1",
        "hangs": "not done after 2 s",
        "train: own": "ok",
        "train: near": "ok",
        "train: far": "ok",
        "train: lost": "ok",
        "train: silent": "left no results",
        "train: none": "failed, status 3",
        "losses agree": "not those of train: far, train: lost",
        "beside": "ok",
    }
    heads = [line for line in text.splitlines() if line.startswith("== ")]
    assert heads == [f"== {name}: {verdict}" for name, verdict in verdicts.items()]
    assert "train: near: within 1.0% of train: own" in text
    assert "1 failed" in text and "ratio 1.2" in text and "UserWarning" not in text
    screen = capsys.readouterr().out
    assert len(screen.splitlines()) < 40
    assert screen.endswith(f"written to {file}\n")


def test_what_is_broken_off_leaves_the_stages_before(gpu, monkeypatch, tmp_path):
    run = gpu.run

    def broken_off(stage, log):
        if stage.name == "tests":
            raise KeyboardInterrupt
        return run(stage, log)

    monkeypatch.setattr(gpu, "run", broken_off)
    first = stage(gpu, "doctor", "print('card: NVIDIA L4')")
    monkeypatch.setattr(gpu, "stages", lambda _: [first, stage(gpu, "tests", "")])
    with pytest.raises(KeyboardInterrupt):
        gpu.main(["--results", str(tmp_path)])
    assert "== doctor: ok" in (tmp_path / "gpu-nvidia-l4.txt").read_text()


@pytest.mark.parametrize(
    "reason", ["no GPU: no driver", "the GPU cannot be used: cudaErrorNoDevice"]
)
def test_without_a_gpu_one_sentence_says_so(gpu, monkeypatch, tmp_path, reason, capsys):
    def stages(folder):
        code = f"print('chainer 7.8.1'); print({reason!r}); exit(2)"
        return [stage(gpu, "doctor", code), stage(gpu, "tests", "print('ran')")]

    monkeypatch.setattr(gpu, "stages", stages)
    assert gpu.main(["--results", str(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines()[1:] == [reason]
    assert not list(tmp_path.iterdir())


def test_all_well(gpu, monkeypatch, tmp_path):
    def stages(folder):
        return [training(gpu, str(k), [1.0 + k / 1000], folder) for k in range(2)]

    monkeypatch.setattr(gpu, "stages", stages)
    assert gpu.main(["--results", str(tmp_path)]) == 0
    assert (tmp_path / "gpu-unknown.txt").exists()


@pytest.mark.parametrize(
    "summary, verdict",
    [
        ("2 passed, 1 skipped in 3.0s", "ok"),
        ("27 skipped in 3.0s", "left no results"),
        ("no tests ran in 0.1s", "left no results"),
    ],
)
def test_tests_that_were_all_left_out_are_not_well(gpu, tmp_path, summary, verdict):
    skipped = "SKIPPED [1] tests/test_a.py:3: needs CuPy and a GPU"
    code = f"print({skipped!r}); print({summary!r})"
    own = stage(gpu, "tests", code, keep=gpu.last_line)
    outcome = gpu.run(own, tmp_path / "log")
    assert outcome.verdict == verdict and outcome.lines == [skipped, summary]


@pytest.mark.slow
def test_all_tests_that_are_marked_are_run(gpu, tmp_path):
    """The files that are named have all of them."""
    (command,) = [s.command for s in gpu.stages(tmp_path) if "tests" in s.name]
    found = []
    for names in (command[command.index("60") + 1 :], ["tests"]):
        collected = subprocess.run(
            [*command[: command.index("60") + 1], "--collect-only", *names],
            cwd=gpu.ROOT,
            capture_output=True,
            text=True,
        ).stdout
        lines = collected.splitlines()
        found.append([line for line in lines if line.startswith("tests/")])
    assert found[0] == found[1] and len(found[0]) > 25


def test_the_real_stages_take_nine_minutes_at_most(gpu, tmp_path):
    stages = gpu.stages(tmp_path)
    assert sum(stage.seconds for stage in stages) <= 9 * 60
    names = [stage.name for stage in stages]
    assert len(set(names)) == len(names)


def test_the_command_lines_are_understood(gpu, tmp_path):
    """Without a GPU, each ends with its own message, not with a usage."""
    for number, stage in enumerate(gpu.trainings(tmp_path)[:1]):
        outcome = gpu.run(stage, tmp_path / f"{number}.log")
        text = (tmp_path / f"{number}.log").read_text()
        assert outcome.verdict == "ok" or "error: GPU 0 " in text
    from chainer_mmix.cli.train import get_parser
    from chainer_revive.gpu_check import doctor

    for stage in gpu.trainings(tmp_path):
        get_parser().parse_args(stage.command[2:])
    first, *_, last = gpu.stages(tmp_path)
    import argparse

    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    parser.parse_args(first.command[4:])
    import gpu_vs_pytorch

    gpu_vs_pytorch.get_parser().parse_args(last.command[2:])


def test_wheels_of_a_folder(tmp_path):
    """What make gives to pip."""
    folder = pathlib.Path(__file__).parents[1]
    (tmp_path / "probe.mk").write_text(
        f"include {folder}/Makefile\nprobe:\n"
        '\t@echo "$$PIP_NO_INDEX $$PIP_FIND_LINKS"\n'
    )
    for options, wanted in ((["WHEELS=wheels"], f"1 {tmp_path}/wheels\n"), ([], " \n")):
        command = ["make", "-s", "-f", "probe.mk", *options, "probe"]
        environ = {"PATH": "/usr/bin:/bin"}
        found = subprocess.run(
            command, cwd=tmp_path, env=environ, capture_output=True, text=True
        )
        assert found.stdout == wanted, found.stderr
