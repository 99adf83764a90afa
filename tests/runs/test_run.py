import json
import math

import numpy as np
import pytest

from chainer_mmix.runs.files import RunError
from chainer_mmix.runs.run import find_runs, read_run


def edit_record(folder, **changes):
    path = folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_folder_without_log_stands_for_the_runs_in_it(write_run, tmp_path):
    runs = [write_run("all/b"), write_run("all/a")]
    (tmp_path / "all" / "pictures").mkdir()
    died = write_run("all/died")
    (died / "log").unlink()
    folders, left_out = find_runs([tmp_path / "all"])
    assert folders == sorted(runs)
    assert left_out == [died]
    assert find_runs([folders[0], died]) == ([folders[0]], [died])
    with pytest.raises(RunError, match="has no file 'log'"):
        find_runs([died])
    with pytest.raises(RunError, match="has no file 'log'"):
        find_runs([died, died])


@pytest.mark.parametrize("second", ["run", "run/../run", "link", "."])
def test_the_same_run_twice_is_refused(write_run, tmp_path, second):
    run = write_run("run")
    (tmp_path / "link").symlink_to(run)
    with pytest.raises(RunError, match=r"is given twice.*name each run once"):
        find_runs([run, tmp_path / second])


def test_paths_that_are_no_runs(write_run, tmp_path):
    run = write_run("run")
    (tmp_path / "empty").mkdir()
    for path, message in [
        (tmp_path / "nowhere", "does not exist"),
        (run / "log", "is a file: name the folder"),
        (tmp_path / "empty", "has no file 'log'"),
    ]:
        with pytest.raises(RunError, match=message) as caught:
            find_runs([path])
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not valid JSON"),
        ('[{"epoch": 1,', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "has no entries"),
        ('{"epoch": 1}', "not a list of entries"),
        ("[1]", "not a list of entries"),
        ('[{"validation/main/accuracy": 1}]', "no key 'epoch'"),
        (
            '[{"epoch": 1, "validation/main/accuracy": 1}, {"main/loss": 1}]',
            "without a number as 'epoch'",
        ),
        ('[{"epoch": NaN, "validation/main/accuracy": 1}]', "number as 'epoch'"),
        (f'[{{"epoch": {10**400}}}]', "number as 'epoch'"),
    ],
)
def test_damaged_logs_are_named(write_run, content, message):
    run = write_run("run")
    (run / "log").write_text(content)
    with pytest.raises(RunError, match=message) as caught:
        read_run(run)
    assert str(run / "log") in str(caught.value)


def test_binary_log_is_named(write_run):
    run = write_run("run")
    (run / "log").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(RunError, match="not valid JSON"):
        read_run(run)


@pytest.mark.parametrize(
    "content",
    [
        *("{", "[]", '{"arguments": []}', '{"versions": ["numpy"]}'),
        '{"setting": {"values": {}}, "arguments": ["cnn"]}',
    ],
)
def test_damaged_record_is_named(write_run, content):
    run = write_run("run")
    (run / "run.json").write_text(content)
    with pytest.raises(RunError, match=r"run\.json is not .*remove it"):
        read_run(run)


def test_series_skips_entries_without_the_key_and_reads_null_as_nan(write_run):
    run = write_run("run")
    (run / "log").write_text(
        '[{"epoch": 1, "validation/main/accuracy": null},'
        ' {"epoch": 2}, {"epoch": 3, "validation/main/accuracy": 0.5}]'
    )
    epochs, values = read_run(run).series("validation/main/accuracy")
    np.testing.assert_array_equal(epochs, [1, 3])
    np.testing.assert_array_equal(values, [math.nan, 0.5])
    assert read_run(run).epochs == 3
    assert read_run(run).series("main/loss")[1].size == 0


@pytest.mark.parametrize("value", ['"high"', "[1]", str(10**400)])
def test_a_value_that_is_no_number_is_named(write_run, value):
    run = write_run("run")
    (run / "log").write_text(f'[{{"epoch": 1, "validation/main/accuracy": {value}}}]')
    with pytest.raises(RunError, match="where 'validation/main/accuracy' should be a"):
        read_run(run).series("validation/main/accuracy")


def test_time_comes_from_the_log_or_else_from_the_record(write_run):
    run = write_run("run")
    edit_record(run, duration=99.0)
    assert read_run(run).time == 3.0
    (run / "log").write_text('[{"epoch": 1, "validation/main/accuracy": 1}]')
    assert read_run(run).time == 99.0
    (run / "run.json").unlink()
    assert read_run(run).time is None


@pytest.mark.parametrize("value", [1e308, -1e301, 10**300])
@pytest.mark.parametrize("key", ["epoch", "main/loss"])
def test_numbers_too_large_to_compute_with_are_named(tmp_path, value, key):
    entry = {"epoch": 1, "main/loss": 1.0} | {key: value}
    (tmp_path / "log").write_text(json.dumps([entry]))
    with pytest.raises(RunError, match=f"e.3.* as '{key}', too large"):
        read_run(tmp_path).series("main/loss")


def test_control_characters_do_not_reach_the_terminal(tmp_path):
    evil = "\x1b[2J\r\n\x9b\u202e"
    (tmp_path / "log").write_text(json.dumps([{"epoch": 1, evil: 1.0}]))
    (tmp_path / "run.json").write_text(json.dumps({"seed": evil, "status": "é±"}))
    run = read_run(tmp_path)
    assert run.record == {"seed": r"\x1b[2J\r\n\x9b\u202e", "status": "é±"}
    assert run.keys == [r"\x1b[2J\r\n\x9b\u202e", "epoch"]


@pytest.mark.parametrize("starts", [{}, 3, "x", [3], ["x"], None])
def test_starts_of_a_wrong_kind(tmp_path, starts):
    (tmp_path / "log").write_text('[{"epoch": 1}]')
    (tmp_path / "run.json").write_text(json.dumps({"starts": starts}))
    with pytest.raises(RunError, match="not the record of a run"):
        read_run(tmp_path)


@pytest.mark.parametrize("damaged", ["Infinity", "NaN", "1.5", '"x"', "[0]", "{}"])
def test_what_is_no_integer_is_no_seed(tmp_path, damaged):
    """JSON could not hold some of them when runs are compared."""
    (tmp_path / "log").write_text('[{"epoch": 1, "main/loss": 1.0}]')
    (tmp_path / "run.json").write_text(f'{{"seed": {damaged}}}')
    assert read_run(tmp_path).seed is None
