"""Steps that are recorded, and where a plan puts what they compute."""

import gc

import numpy as np
import pytest

from chainer_revive.cpu import steps
from chainer_revive.cpu.recording import Memory, Recording, _arrange

pytest.importorskip("numba")


@pytest.fixture
def recording():
    return Recording()


def double(x, y):
    np.multiply(x, 2, y)


def sequence(x, n):
    """Doubles n times, each time in an array of its own."""
    for _ in range(n):
        y = np.empty_like(x)
        steps.do(double, x, y)
        x = y
    return x


def record(recording, function, *args):
    with steps.recorded_by(recording):
        view = recording.view(function(*args))
    gc.collect()
    return recording.plan(), view


def test_steps_are_done_again_with_what_is_in_the_arrays_that_stay(recording):
    x = np.arange(1000.0)
    plan, view = record(recording, sequence, x, 10)
    x[:] = np.arange(1000)[::-1]
    memory = np.empty(plan.size, np.uint8)
    plan.forget(memory)
    plan.run(memory, {})
    np.testing.assert_array_equal(plan.array(view), x * 1024)
    assert np.shares_memory(plan.array(view), memory)


def test_memory_is_used_again_as_soon_as_it_is_free(recording):
    x = np.zeros(1000)
    plan, _ = record(recording, sequence, x, 50)
    assert plan.size <= 2 * x.nbytes + 64


def test_plans_share_memory_and_move_to_larger_one(recording):
    x = np.arange(100.0)
    plan, view = record(recording, sequence, x, 3)
    for size in (plan.size, 3 * plan.size):
        memory = np.full(size, 0xFF, np.uint8)
        plan.run(memory, {})
        np.testing.assert_array_equal(plan.array(view), 8 * x)
        assert np.shares_memory(plan.array(view), memory)


def test_a_recording_keeps_no_array_alive(recording):
    x = np.ones(10)
    with steps.recorded_by(recording):
        y = sequence(x, 3)
    alive = [memory.owner() for memory in recording._all]
    assert alive[0] is x and alive[-1] is y and alive[1:-1] == [None, None]


def test_what_is_alive_in_the_end_stays_where_it_is(recording):
    x, kept = np.ones(10), np.zeros(10)

    def function():
        steps.do(double, x, kept)
        return sequence(kept, 1)

    plan, view = record(recording, function)
    x[:] = 3
    plan.run(np.empty(plan.size, np.uint8), {})
    np.testing.assert_array_equal(kept, 6)
    np.testing.assert_array_equal(plan.array(view), 12)


def test_views_are_found_in_their_memory(recording):
    x = np.arange(24.0).reshape(2, 3, 4)

    def function():
        y = np.empty((4, 3, 2)).transpose(2, 1, 0)
        steps.do(np.copyto, y, x)
        z = np.empty((2, 2))
        steps.do(np.copyto, z, y[::-1, 2, 3:0:-2])
        return z

    plan, view = record(recording, function)
    expected = x[::-1, 2, 3:0:-2].copy()
    np.testing.assert_array_equal(function(), expected)
    x += 1
    plan.run(np.empty(plan.size, np.uint8), {})
    np.testing.assert_array_equal(plan.array(view), expected + 1)


def shift(x, w):
    """Adds twice the second array to the first one."""
    y = steps.kept(w, w.shape, w.dtype)
    if y is None:
        y = np.empty_like(w)
    steps.do(double, w, y)
    z = np.empty_like(x)
    steps.do(np.add, x, y, z)
    return z


def shift_and_change(x, w):
    y = shift(x, w)
    steps.do(np.negative, w, w)
    return y


def run(plan, view, memory, known):
    plan.forget(memory)
    plan.run(memory, known)
    return plan.array(view).copy()


def test_what_follows_from_fixed_arrays_is_computed_once_for_a_memory():
    x, w = np.arange(10.0), np.ones(10)
    plan, view = record(Recording([x, w], [w]), shift, x, w)
    memory, known = np.empty(plan.size, np.uint8), {}
    for factor in (1, 5):
        w[:], x[:] = factor, np.arange(10)
        for _ in range(3):
            x += 1
            np.testing.assert_array_equal(
                run(plan, view, memory, known), x + 2 * factor
            )
            w[:] = np.nan  # it is not read again
        plan.unbind()
        known.clear()


def test_plans_share_what_they_compute_once():
    w, known = np.ones(10), {}
    for n in (1, 2, 3):
        x = np.ones((n, 10))
        plan, view = record(Recording([x, w], [w]), shift, x, w)
        memory = np.empty(plan.size, np.uint8)
        np.testing.assert_array_equal(run(plan, view, memory, known), x + 2)
    assert len(known) == 1


def test_what_was_interrupted_is_computed_again(monkeypatch):
    x, w = np.arange(10.0), np.ones(10)
    interrupts = [KeyboardInterrupt]

    def interrupted(x, y):
        if is_replayed and interrupts:
            raise interrupts.pop()
        np.multiply(x, 2, y)

    is_replayed = False
    monkeypatch.setitem(globals(), "double", interrupted)
    plan, view = record(Recording([x, w], [w]), shift, x, w)
    is_replayed = True
    memory, known = np.empty(plan.size, np.uint8), {}
    with pytest.raises(KeyboardInterrupt):
        plan.run(memory, known)
    np.testing.assert_array_equal(run(plan, view, memory, known), x + 2)


def test_what_another_step_may_change_is_computed_each_time():
    x, w = np.arange(10.0), np.ones(10)
    plan, view = record(Recording([x, w], [w]), shift_and_change, x, w)
    memory = np.empty(plan.size, np.uint8)
    first, second = [run(plan, view, memory, {}) for _ in range(2)]
    # Recording has changed it before.
    np.testing.assert_array_equal(first, x - 2)
    np.testing.assert_array_equal(second, x + 2)


def test_what_follows_from_other_arrays_is_computed_each_time():
    x, w = np.arange(10.0), np.ones(10)
    for fixed in ([], [x]):
        plan, view = record(Recording([x, w], fixed), shift, x, w)
        memory = np.empty(plan.size, np.uint8)
        for factor in (1, 5):
            w[:] = factor
            np.testing.assert_array_equal(run(plan, view, memory, {}), x + 2 * factor)


@pytest.mark.parametrize("seed", range(20))
def test_memories_that_are_needed_at_the_same_time_do_not_overlap(seed):
    random = np.random.RandomState(seed)
    owners = [np.empty(random.randint(1, 5000), np.uint8) for _ in range(100)]
    memories = []
    for owner in owners:
        memory = Memory(owner, random.randint(200), lambda _: None)
        memory.last = memory.first + random.randint(1, 40)
        memories.append(memory)
    size = _arrange(memories)
    owned = np.zeros((300, size), bool)
    for memory in memories:
        place = owned[
            memory.first : memory.last, memory.place : memory.place + memory.size
        ]
        assert place.shape[1] == memory.size and not place.any()
        place[:] = True
    # No more than twice what is needed at the fullest moment.
    assert size <= 2 * owned.sum(1).max()


def test_functions_of_numpy_return_what_numpy_returns():
    a = np.arange(12, dtype=np.int32).reshape(3, 4)
    assert steps.contiguous(a) is a
    np.testing.assert_array_equal(steps.contiguous(a.T, np.int64), a.T)
    assert steps.contiguous(a.T).flags.c_contiguous
    assert steps.contiguous(a, np.int64).dtype == np.int64
    joined = steps.concatenate([a, a + 1], axis=1)
    np.testing.assert_array_equal(joined, np.concatenate([a, a + 1], axis=1))
    assert steps.concatenate([a]) is a
    np.testing.assert_array_equal(steps.take(a, np.array([2, 0])), a[[2, 0]])
    np.testing.assert_array_equal(steps.filled((2, 3), "f", 5), np.full((2, 3), 5, "f"))


class Positive:
    """A function whose output has a shape that depends on the numbers."""

    label = "Positive"

    def forward(self, inputs):
        (x,) = inputs
        return (x[x > 0],)


class Keeping(Positive):
    label = "Keeping"

    def forward(self, inputs):
        self.largest = float(inputs[0].max())
        return super().forward(inputs)


def call(function, x):
    record = steps.recorder()
    (y,) = record.call(function, (x,), lambda: function.forward((x,)))
    return y


def test_a_function_is_called_again_and_must_return_the_same_shape():
    x = np.array([1.0, -2.0, 3.0])
    plan, view = record(Recording([x]), call, Positive(), x)
    x[:] = [4, 5, -6]
    memory = np.empty(plan.size, np.uint8)
    plan.run(memory, {})
    np.testing.assert_array_equal(plan.array(view), [4, 5])
    x[:] = 1
    with pytest.raises(steps.CannotReplayError, match=r"Positive returns shape \(3,\)"):
        plan.run(memory, {})


def test_a_function_that_keeps_numbers_is_refused():
    x = np.ones(3)
    with pytest.raises(steps.CannotReplayError, match=r"Keeping keeps .* in largest"):
        record(Recording([x]), call, Keeping(), x)


def test_a_function_that_reads_an_array_from_elsewhere_is_refused(recording):
    message = "Positive reads an array that no function has computed"
    with pytest.raises(steps.CannotReplayError, match=message):
        record(recording, call, Positive(), np.ones(3))
    function = Positive()
    function.other = [np.ones(3)]
    x = np.ones(3)
    with pytest.raises(steps.CannotReplayError, match=message):
        record(Recording([x]), call, function, x)
    function.other[0].flags.writeable = False  # a constant
    record(Recording([x]), call, function, x)


def test_an_error_of_a_step_is_the_reason(recording):
    x = np.zeros(3)

    def check(x, y):
        if x.any():
            raise ZeroDivisionError("what it says")
        y[:] = 1

    def function():
        y = np.empty(3)
        steps.do(check, x, y)
        return y

    plan, _ = record(recording, function)
    x[:] = 1
    with pytest.raises(steps.CannotReplayError, match="ZeroDivisionError: what it"):
        plan.run(np.empty(plan.size, np.uint8), {})
