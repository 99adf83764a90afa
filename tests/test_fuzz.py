"""Files of strangers, as hypothesis makes them up; ``fuzz.py`` has what is read."""

import json
import pickle
import runpy
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FUZZ = runpy.run_path(Path(__file__).with_name("fuzz.py"))
MEMBERS = FUZZ["saved_members"]()
MOST = 20_000_000  # bytes of memory

per_example = settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def edits(content):
    """Strategy: the content with bytes changed, put in, left out."""
    place = st.integers(0, len(content))
    edit = st.tuples(place, st.integers(0, 8), st.binary(max_size=8))

    def apply(changes):
        changed = content
        for at, n, new in changes:
            changed = changed[:at] + new + changed[at + n :]
        return changed

    return st.lists(edit, min_size=1, max_size=4).map(apply)


def check(target, folder, content):
    """Reads a file with a target of ``fuzz.py``, in little memory."""
    tracemalloc.start()
    try:
        with FUZZ["nothing_runs"]():
            FUZZ[target](folder, content)
        assert tracemalloc.get_traced_memory()[1] < MOST
    finally:
        tracemalloc.stop()


@st.composite
def archives(draw):
    """Strategy: snapshots of which a member, or the archive itself, is changed."""
    if draw(st.booleans()):
        return draw(edits(FUZZ["pack"](MEMBERS)))
    name = draw(st.sampled_from(sorted(MEMBERS)))
    return FUZZ["pack"]({**MEMBERS, name: draw(edits(MEMBERS[name]))})


@pytest.mark.parametrize("target", ["snapshot", "resume", "weights"])
def test_good_files_are_accepted(target, tmp_path):
    assert FUZZ[target](tmp_path, FUZZ["pack"](MEMBERS))


@pytest.mark.parametrize("target", ["snapshot", "resume", "weights", "pretrained"])
@per_example
@given(content=archives())
def test_a_changed_snapshot(target, content, tmp_path):
    check(target, tmp_path, content)


# Opcodes and what they take, of which arrays of objects are made up, and worse.
WORDS = [
    *(b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy\nndarray\n"),
    *(b"cnumpy\ndtype\n", b"cos\nsystem\n", b"cbuiltins\neval\n", b"\x93", b"i"),
    *(b"(", b")", b"]", b"}", b"N", b"I1\n", b"I-1\n", b"K\x03", b"X\1\0\0\0x"),
    *(b"C\1b", b"U\1o", b"\x85", b"\x86", b"\x87", b"t", b"l", b"d", b"s", b"e"),
    *(b"R", b"b", b"o", b"\x81", b"q\0", b"h\0", b"r\xff\xff\xff\xff", b"0", b"2"),
    *(b"\x8a\x01\x7f", b"J\xff\xff\xff\x7f", b"L9999999999999L\n", b"P1\n", b"."),
]


@per_example
@given(
    content=st.sampled_from(FUZZ["old_pickles"]()).flatmap(edits)
    | st.lists(st.sampled_from(WORDS), max_size=30).map(b"".join)
)
def test_a_pickle(content, tmp_path):
    check("pickled", tmp_path, content)


def test_what_arrays_of_objects_are_is_accepted(tmp_path):
    for content in FUZZ["old_pickles"]():
        assert FUZZ["pickled"](tmp_path, content)


class Hostile:
    def __reduce__(self):
        return print, ("this ran",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_calls_something_is_refused(protocol, tmp_path, capsys):
    content = pickle.dumps(Hostile(), protocol)
    with FUZZ["nothing_runs"]():
        assert not FUZZ["pickled"](tmp_path, content)
    assert capsys.readouterr().out == ""


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([10**400, -1, 2**63, 1e308, "epoch", "validation/main/accuracy"])
    | st.text(max_size=5),
    lambda part: (
        st.lists(part, max_size=4) | st.dictionaries(st.text(max_size=5), part)
    ),
    max_leaves=8,
)


@st.composite
def run_files(draw):
    """Strategy: files of a run in which one value is another."""
    name = draw(st.sampled_from(sorted(FUZZ["FILES"])))
    content = json.loads(json.dumps(FUZZ["FILES"][name]))
    part = content
    while True:
        keys = sorted(part) if isinstance(part, dict) else range(len(part))
        key = draw(st.sampled_from(list(keys)))
        if not part[key] or not isinstance(part[key], (dict, list)):
            break
        if draw(st.booleans()):
            break
        part = part[key]
    if draw(st.integers(0, 3)):
        part[key] = draw(JSON)
    else:
        del part[key]
    return name, json.dumps(content).encode()


@settings(per_example, max_examples=100)
@given(changed=run_files())
def test_a_run_with_a_changed_file(changed, tmp_path):
    name, content = changed
    with FUZZ["nothing_runs"]():
        FUZZ["TARGETS"][name](tmp_path, content)


@pytest.mark.slow
@settings(per_example, max_examples=100)
@given(changed=run_files())
def test_compare_with_a_changed_file(changed, tmp_path):
    with FUZZ["nothing_runs"]():
        FUZZ["run_folder"](tmp_path, dict([changed]), ["compare"])


@pytest.mark.slow
@settings(per_example, max_examples=200)
@given(changed=run_files())
def test_report_with_a_changed_file(changed, tmp_path):
    with FUZZ["nothing_runs"]():
        FUZZ["run_folder"](tmp_path, dict([changed]), ["report"])


@per_example
@given(name=st.sampled_from(sorted(FUZZ["FILES"])), content=st.binary(max_size=50))
def test_a_run_with_any_bytes(name, content, tmp_path):
    with FUZZ["nothing_runs"]():
        FUZZ["TARGETS"][name](tmp_path, content)


def test_a_good_run_is_accepted(tmp_path):
    assert FUZZ["TARGETS"]["log"](tmp_path, json.dumps(FUZZ["LOG"]).encode())
    assert FUZZ["run_folder"](tmp_path, {})
