import copy
import functools
import pickle

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainer_mmix import ManifoldMixupClassifier
from chainer_mmix.links.sequential import MixupSequential
from chainer_mmix.mixing import MixupDraw, using_draw

POINTS = (0, 2, 4)


def layers():
    return [L.Linear(4, 5), F.tanh, L.Linear(5, 5), F.relu, L.Linear(5, 3)]


def build(points=POINTS):
    return MixupSequential(*((f, k in points) for k, f in enumerate(layers())))


def batch(n=6, dtype=np.float32):
    rng = np.random.RandomState(0)
    return rng.randn(n, 4).astype(dtype), rng.randint(0, 3, n).astype(np.int32)


def pairs(net):
    return [(layer, k in net.mixup_layers) for k, layer in enumerate(net)]


def names(net):
    return [(name, id(param)) for name, param in net.namedparams()]


def is_well_formed(net, expected):
    """Whether it has these pairs, and the names of a chainer.Sequential."""
    plain = chainer.Sequential(*(layer for layer, _ in expected))
    return pairs(net) == expected and names(net) == names(plain)


@pytest.mark.parametrize("k", POINTS)
def test_eligible_layer_k_mixes_the_output_of_layer_k_minus_1(k):
    with chainer.using_config("dtype", np.float64):
        net = build()
    x, t = batch(dtype=np.float64)
    lam, perm = 0.3, np.array([3, 0, 1, 5, 4, 2])
    with using_draw(MixupDraw(k, lam, perm)):
        y, a, b = net(x, t, mixup_hidden=True, lam=lam, layer_mix=k)

    outputs = [x]
    for layer in layers_in_numpy(net):
        before = outputs[-1]
        if len(outputs) - 1 == k:  # layer k, which takes the output of layer k - 1
            before = lam * before + (1 - lam) * before[perm]
        outputs.append(layer(before))
    np.testing.assert_allclose(y.array, outputs[-1], rtol=1e-12)
    np.testing.assert_array_equal(a, t)
    np.testing.assert_array_equal(b, t[perm])


def layers_in_numpy(net):
    def linear(link):
        return lambda x: x @ link.W.array.T + link.b.array

    relu = functools.partial(np.maximum, 0)
    return [linear(net[0]), np.tanh, linear(net[2]), relu, linear(net[4])]


def test_without_mixing_it_is_chainers_sequential():
    net, (x, t) = build(), batch()
    plain = chainer.Sequential(*net)
    np.testing.assert_array_equal(net(x).array, plain(x).array)
    with chainer.using_config("train", False):
        loss = ManifoldMixupClassifier(net)(x, t)
    np.testing.assert_array_equal(loss.array, L.Classifier(plain)(x, t).array)
    with pytest.raises(RuntimeError, match="does not have any layer"):
        MixupSequential()(x)


def test_the_classifier_draws_the_eligible_layers():
    model = ManifoldMixupClassifier(build((0, 4)), seed=0)
    seen = set()
    for _ in range(20):
        model(*batch())
        seen.add(model.draw.layer_mix)
    assert seen == {0, 4}
    with pytest.raises(ValueError, match="no mixing point 2; it has 0, 4"):
        ManifoldMixupClassifier(build((0, 4)), layer_mix=2)


def test_left_to_itself_it_draws_evenly_from_numpy_random(monkeypatch):
    calls = []

    def mixup_data(h, target, lam):
        calls.append(h.shape[1])
        return h, target, target

    monkeypatch.setattr("chainer_mmix.links.states.mixup_data", mixup_data)
    shapes = {0: 4, 2: 6, 4: 5}
    net = build()
    net[0], net[2] = L.Linear(4, 6), L.Linear(6, 5)
    np.random.seed(0)
    for _ in range(300):
        net(*batch(), mixup_hidden=True, lam=0.5)
    counts = [calls.count(shapes[k]) for k in POINTS]
    assert sum(counts) == 300 and all(70 < c < 130 for c in counts)
    np.random.seed(0)
    replay, calls = calls[:10], []
    for _ in range(10):
        net(*batch(), mixup_hidden=True, lam=0.5)
    assert calls == replay


@pytest.mark.parametrize("layer_mix", [1, 5, -1, "2"])
def test_an_ineligible_layer_is_named(layer_mix):
    with pytest.raises(ValueError, match=rf"{layer_mix!r}; it has 0, 2, 4"):
        build()(*batch(), mixup_hidden=True, lam=0.5, layer_mix=layer_mix)


def test_a_list_with_nothing_eligible_says_so():
    with pytest.raises(ValueError, match=r"no layer .* net\[0\] = \(net\[0\], True\)"):
        build(())(*batch(), mixup_hidden=True, lam=0.5)
    ManifoldMixupClassifier(build(()), mixup_alpha=0)(*batch())


def test_all_parts_of_a_tuple_are_mixed():
    net = MixupSequential(
        (lambda x, z: (2 * x, z + 1), True), (lambda x, z: x * z, True)
    )
    x, z, t = np.float32([1, 2, 4]), np.float32([3, 5, 9]), np.arange(3)
    lam, perm = 0.75, np.array([1, 2, 0])

    def mixed(h):
        return lam * h + (1 - lam) * h[perm]

    for k, expected in enumerate(
        (2 * mixed(x) * (mixed(z) + 1), mixed(2 * x) * mixed(z + 1))
    ):
        for arguments in ({"target": t}, {}):
            with using_draw(MixupDraw(k, lam, perm)):
                inputs = (x, z) if arguments else (x, z, t)
                y, a, b = net(
                    *inputs, **arguments, mixup_hidden=True, lam=lam, layer_mix=k
                )
            np.testing.assert_allclose(chainer.as_array(y), expected)
            assert a.tolist() == [0, 1, 2] and b.tolist() == perm.tolist()


def test_the_lengths_of_the_first_partner_alone_are_refused():
    net = MixupSequential((lambda x, n: (2 * x, n), True), (lambda x, n: x, False))
    x, t = batch()
    for dtype in np.int32, np.float32:
        with pytest.raises(TypeError, match=r"lengths.*current_draw\(\)\.perm"):
            net(x, t.astype(dtype), t, mixup_hidden=True, lam=0.5)


def test_a_list_stays_a_list():
    net = MixupSequential((lambda x: [x, 2 * x], False), (F.concat, True))
    x, t = batch()
    y, _, _ = net(x, t, mixup_hidden=True, lam=1.0, layer_mix=1)
    np.testing.assert_array_equal(y.array, np.concatenate([x, 2 * x], axis=1))


LAYERS = [L.Linear(1, 1), L.BatchNormalization(1), chainer.Chain(), F.relu, F.tanh]
PAIR = st.tuples(st.sampled_from(LAYERS), st.booleans())
ITEM = PAIR | st.sampled_from(LAYERS)
INDEX = st.integers(-6, 6)


def completed(item, eligible=False):
    return item if isinstance(item, tuple) else (item, eligible)


OPERATIONS = st.one_of(
    st.tuples(st.sampled_from(["append", "extend", "iadd"]), ITEM, ITEM),
    st.tuples(st.sampled_from(["insert", "setitem"]), INDEX, ITEM),
    st.tuples(st.sampled_from(["pop", "del"]), INDEX, st.none()),
    st.tuples(st.just("slice"), st.slices(6), st.booleans()),
    st.tuples(st.sampled_from(["remove", "remove_by_type"]), PAIR, st.none()),
    st.tuples(st.sampled_from(["reverse", "clear"]), st.none(), st.none()),
)


def apply(operation, net, reference):
    """Does to both what the operation says; returns both anew."""
    name, first, second = operation
    if name == "append":
        net.append(first)
        reference.append(completed(first))
    elif name == "extend":
        net.extend([first, second])
        reference.extend([completed(first), completed(second)])
    elif name == "iadd":
        old, items = net, [completed(first), completed(second)]
        net += MixupSequential(*items)
        assert net is old
        reference += items
    elif name == "insert":
        if not -len(reference) <= first <= len(reference):
            with pytest.raises(IndexError):
                net.insert(first, second)
        else:
            net.insert(first, second)
            reference.insert(first, completed(second))
    elif name in ("setitem", "pop", "del"):
        if not -len(reference) <= first < len(reference):
            with pytest.raises(IndexError):
                net.pop(first)
        elif name == "setitem":
            net[first] = second
            reference[first] = completed(second, reference[first][1])
        elif name == "pop":
            assert net.pop(first) is reference.pop(first)[0]
        else:
            del net[first], reference[first]
    elif name == "slice" and second:
        net, reference = net[first], reference[first]
    elif name == "slice":
        del net[first], reference[first]
    elif name == "remove":
        layer = first[0]
        found = [p for p in reference if p[0] is layer]
        if found:
            net.remove(layer)
            reference.remove(found[0])
    elif name == "remove_by_type":
        name = getattr(first[0], "__name__", type(first[0]).__name__)
        expected = [p for p in reference if p[0] is not first[0]]
        assert net.count_by_layer_type(name) == len(reference) - len(expected)
        net.remove_by_layer_type(name)
        reference = expected
    else:
        getattr(net, name)()
        getattr(reference, name)()
    return net, reference


@given(st.lists(PAIR, max_size=4), st.lists(OPERATIONS, max_size=6))
def test_it_is_a_list_of_pairs(start, operations):
    net, reference = MixupSequential(*start), list(start)
    assert is_well_formed(net, reference)
    for operation in operations:
        net, reference = apply(operation, net, reference)
        assert is_well_formed(net, reference)
        assert type(net) is MixupSequential


def test_indexing_and_iteration_give_layers():
    net = build()
    assert net[1] is F.tanh and net[-1] is list(net)[4] and len(net) == 5
    assert F.relu in net and net.index(F.relu) == 3
    with pytest.raises(TypeError, match="slice"):
        net[1:2] = F.relu


def test_a_slice_leaves_the_whole_as_it_was():
    net = build()
    whole = pairs(net)
    part = net[2:]
    assert is_well_formed(part, whole[2:]) and part.mixup_layers == (0, 2)
    part.pop()
    assert is_well_formed(net, whole)
    del net[2]
    assert is_well_formed(net, whole[:2] + whole[3:])


def test_sums_keep_the_flags_and_leave_the_terms_alone():
    net, plain = build(), chainer.Sequential(F.sin, L.Linear(3, 3))
    whole, bare = pairs(net), [(layer, False) for layer in plain]
    assert is_well_formed(net + net, whole + whole)
    assert is_well_formed(net + plain, whole + bare)
    assert is_well_formed(plain + net, bare + whole)
    assert is_well_formed(net, whole) and len(plain) == 2
    net += plain
    assert is_well_formed(net, whole + bare)


def test_adding_what_is_no_sequential():
    net = build()
    for other in ([F.relu], 0):
        with pytest.raises(ValueError, match="only objects of Sequential"):
            net + other
        with pytest.raises(ValueError, match="only objects of Sequential"):
            net += other


@pytest.mark.parametrize("mode", ["share", "copy", "init"])
def test_copy_does_what_chainers_does(mode):
    net = build()
    plain = chainer.Sequential(*net)
    ours, theirs = net.copy(mode), plain.copy(mode)
    assert type(ours) is MixupSequential and ours.mixup_layers == POINTS
    for (name, a), (other, b), old in zip(
        ours.namedparams(), theirs.namedparams(), net.params(), strict=True
    ):
        assert name == other and a is not old
        assert (a.array is old.array) == (b.array is old.array) == (mode == "share")
        assert np.array_equal(a.array, old.array) == np.array_equal(b.array, old.array)
    ours[0] = (ours[0], False)
    assert net.mixup_layers == POINTS


@pytest.mark.parametrize(
    "clone",
    [copy.copy, copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_copies_of_python_keep_the_flags(clone):
    net, (x, _) = build(), batch()
    other = clone(net)
    assert other.mixup_layers == POINTS
    np.testing.assert_array_equal(other(x).array, net(x).array)
    other.clear()
    assert pairs(net)[1] == (F.tanh, False) and len(net) == 5


def test_a_lambda_cannot_be_pickled_as_in_chainer():
    net = build()
    net.append(lambda x: x)
    with pytest.raises(ValueError, match=r"functools\.partial"):
        pickle.dumps(net)


@pytest.mark.parametrize("first", [True, False])
def test_repeat_and_flatten(first):
    block = MixupSequential((L.Linear(4, 4), first), (F.relu, False), (F.tanh, True))
    net, (x, _) = block.repeat(3), batch()
    assert names_only(net) == names_only(chainer.Sequential(*block).repeat(3))
    assert net.mixup_layers == ((0, 1, 2) if first else ())
    assert not np.array_equal(net[0][0].W.array, net[1][0].W.array)
    assert len(block.repeat(0)) == 0 and type(net) is MixupSequential

    flat = net.flatten()
    assert list(flat) == list(chainer.Sequential(*net).flatten())
    assert flat.mixup_layers == ((0, 2, 3, 5, 6, 8) if first else (2, 5, 8))
    np.testing.assert_array_equal(flat(x).array, net(x).array)


def names_only(net):
    return [name for name, _ in net.namedparams()]


def test_flatten_goes_through_plain_lists():
    inner = MixupSequential((F.sin, False), (F.cos, True))
    plain = chainer.Sequential(F.relu, inner)
    net = MixupSequential((F.tanh, False), (plain, True), (chainer.Sequential(), True))
    expected = [(F.tanh, False), (F.relu, True), (F.sin, False), (F.cos, True)]
    assert pairs(net.flatten()) == expected


@pytest.mark.parametrize("format", ["npz", "hdf5"])
def test_weights_are_interchangeable_with_chainers_sequential(tmp_path, format):
    pytest.importorskip("h5py")
    save = getattr(chainer.serializers, f"save_{format}")
    load = getattr(chainer.serializers, f"load_{format}")
    path, (x, _) = str(tmp_path / "net"), batch()
    net, plain = build(), chainer.Sequential(*layers())
    save(path, plain)
    load(path, net)
    np.testing.assert_array_equal(net(x).array, plain(x).array)
    net[4].W.array[:] = 7
    save(path, net)
    load(path, plain)
    np.testing.assert_array_equal(net(x).array, plain(x).array)


def test_copyparams_and_update():
    net, plain, (x, t) = build(), chainer.Sequential(*layers()), batch()
    net.copyparams(plain)
    np.testing.assert_array_equal(net(x).array, plain(x).array)
    for link in (net, plain):
        optimizer = chainer.optimizers.SGD(0.1).setup(link)
        optimizer.update(lambda link=link: F.softmax_cross_entropy(link(x), t))
    np.testing.assert_array_equal(net(x).array, plain(x).array)


def test_addgrads_adds_those_of_a_copy():
    net, (x, _) = build(), batch()
    whole, halves = net.copy("copy"), (net, net.copy("copy"))
    for link, part in ((whole, x), (halves[0], x[:2]), (halves[1], x[2:])):
        link.cleargrads()
        F.sum(link(part)).backward()
    halves[0].addgrads(halves[1])
    for a, b in zip(halves[0].params(), whole.params(), strict=True):
        np.testing.assert_allclose(a.grad, b.grad, rtol=1e-5, atol=1e-6)


def test_str_marks_the_eligible_places():
    net = MixupSequential(
        (L.Linear(None, 4), True), (MixupSequential((L.Linear(4, 4), True)), False)
    )
    assert (
        str(net)
        == repr(net)
        == (
            "MixupSequential(\n"
            "  (0, input may be mixed): "
            "Linear(in_size=None, out_size=4, nobias=False),\n"
            "  (1): MixupSequential(\n"
            "    (0, input may be mixed): "
            "Linear(in_size=4, out_size=4, nobias=False),\n"
            "  ),\n"
            ")"
        )
    )
    plain = chainer.Sequential(*layers())
    assert str(build(())) == f"Mixup{plain}"


@pytest.mark.parametrize(
    "bad",
    [F.relu, (F.relu,), (F.relu, 1), (F.relu, None), (3, True), [F.relu, True], "ab"],
    ids=str,
)
def test_what_is_no_pair_is_shown_the_right_form(bad):
    form = r"\(L.Linear\(None, 10\), True\), not"
    with pytest.raises(TypeError, match=form):
        MixupSequential((F.tanh, True), bad)
    if bad is F.relu:  # may come bare from now on
        return
    net = build()
    before = pairs(net)
    for add in (
        net.append,
        lambda x: net.insert(0, x),
        lambda x: net.extend([F.relu, x]),
        lambda x: net.__setitem__(0, x),
    ):
        with pytest.raises(TypeError, match=form):
            add(bad)
    assert pairs(net) == before


@pytest.mark.gpu
def test_on_a_gpu_it_computes_the_same():
    net, (x, t) = build(), batch()
    losses = []
    for device in ("@numpy", "@cupy:0"):
        model = ManifoldMixupClassifier(net.copy("copy"), True, layer_mix=2, seed=0)
        model.to_device(device)
        loss = model(*map(chainer.get_device(device).send, (x, t)))
        losses.append(float(loss.array))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_missing_target_is_named():
    net = MixupSequential((L.Linear(3, 2), True))
    with pytest.raises(TypeError, match="the target is missing"):
        net(np.zeros((2, 3), np.float32), mixup_hidden=True)
