"""What leads around a mixing point, in networks as people write them."""

import contextlib
import dataclasses
import random
import threading
import types

import chainer
import chainer.distributions as D
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

from chainer_mmix import (
    ManifoldMixupClassifier,
    MixupLayers,
    MixupPolicy,
    current_draw,
)
from chainer_mmix.links.probe import drawing_nothing
from chainer_mmix.mixing import MixupDraw, using_draw
from chainer_revive.cpu import compiled

N = 6
LAM, PERM = 0.3, np.array([3, 0, 1, 2, 5, 4])
T = np.arange(N, dtype=np.int32) % 3


@pytest.fixture(autouse=True)
def float64():
    np.random.seed(0)
    with chainer.using_config("dtype", np.float64):
        yield


def samples(*shape):
    return np.random.RandomState(1).randn(N, *shape)


def mixed_call(net, point, *inputs, model=None, **kwargs):
    model = model or MixupLayers(net, [point], **kwargs)
    with using_draw(MixupDraw(point, LAM, PERM)):
        return model(*inputs, T, mixup_hidden=True, lam=LAM, layer_mix=point)


def mix(h):
    return LAM * h + (1 - LAM) * h[PERM]


def net_of(forward, **links):
    """A chain of links with a forward function of itself and the inputs."""
    Net = type("Net", (chainer.Chain,), {"forward": forward})
    return Net(**links)


def dense(n_in, n_out):
    return L.Linear(n_in, n_out)


# The input


def test_the_input_is_what_it_is_in_evaluation():
    def forward(self, x):
        kinds.append(type(x))
        if isinstance(x, np.ndarray):
            x = x.astype(np.float64) / 2
        return self.fc(x)

    kinds, net, x = [], net_of(forward, fc=dense(4, 3)), samples(4)
    y, *_ = mixed_call(net, "input", x)
    np.testing.assert_allclose(y.array, net(mix(x)).array)
    mixed_call(net, "input", chainer.Variable(x))
    assert kinds == [np.ndarray, np.ndarray, chainer.Variable]


def test_a_variable_as_input_gets_its_gradient():
    net, x = net_of(lambda self, x: self.fc(x), fc=dense(4, 3)), samples(4)
    variable = chainer.Variable(x)
    y, *_ = mixed_call(net, "input", variable)
    g = samples(3)
    F.sum(y * g).backward()
    # Each sample is a first partner once and a second one once.
    gx = g @ net.fc.W.array
    expected = LAM * gx
    expected[PERM] += (1 - LAM) * gx
    np.testing.assert_allclose(variable.grad, expected)


def trained(net, points, static, **options):
    policy = MixupPolicy(1.0, seed=1, **options)
    model = ManifoldMixupClassifier(MixupLayers(net, points), policy=policy)
    optimizer = chainer.optimizers.MomentumSGD(0.1).setup(model)
    losses = []
    with chainer.using_config("use_static_graph", static):
        for _ in range(6):
            optimizer.update(model, samples(4), T)
            losses.append(float(model.loss.array))
    return losses


class Static(chainer.Chain):
    def __init__(self):
        super().__init__(l1=dense(4, 5), l2=dense(5, 3))

    @chainer.static_graph(verbosity_level=0)
    def __call__(self, x):
        return self.l2(F.relu(self.l1(x)))


class WithStaticPart(chainer.Chain):
    def __init__(self):
        super().__init__(body=Static(), fc=dense(3, 3))

    def forward(self, x):
        return self.fc(F.tanh(self.body(x)))


@pytest.mark.parametrize(
    ("make", "points"),
    [(Static, ["input"]), (WithStaticPart, ["input", "body"])],
)
@pytest.mark.parametrize("prob", [1.0, 0.5])
@pytest.mark.filterwarnings("error:.*cannot be copied")
def test_a_static_graph_trains_as_without(make, points, prob):
    losses = []
    for static in False, True:
        np.random.seed(0)
        losses.append(trained(make(), points, static, prob=prob))
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-10)
    assert losses[0][-1] < losses[0][0]


@pytest.mark.parametrize("make", [Static, WithStaticPart])
@pytest.mark.parametrize("prob", [1.0, 0.5])  # 0.5: some step records, unmixed
def test_what_a_static_graph_would_replay_is_refused(make, prob):
    name = "l1" if make is Static else "body/l1"
    with pytest.raises(RuntimeError, match=f"'{name}'.*static_graph"):
        trained(make(), [name], True, prob=prob)


def freeze(how, net, x):
    if how == "no_backprop_mode":
        with chainer.no_backprop_mode():
            return net(x)
    h = net(x)
    if how == "unchain":
        h.unchain_backward()
    return chainer.Variable(h.array) if how == "array" else h


@pytest.mark.parametrize("how", ["no_backprop_mode", "array", "unchain"])
@pytest.mark.parametrize("kind", [np.asarray, chainer.Variable])
def test_the_input_before_a_frozen_part_can_be_mixed(how, kind):
    net = net_of(
        lambda self, x: self.head(F.tanh(freeze(how, self.base, x))),
        base=dense(4, 5),
        head=dense(5, 3),
    )
    x = samples(4)
    model = ManifoldMixupClassifier(MixupLayers(net, ["input"]), True, seed=0)
    loss = model(kind(x), T)
    lam, perm = model.draw.lam, model.draw.perm
    y = net.head(F.tanh(net.base(lam * x + (1 - lam) * x[perm])))
    expected = lam * F.softmax_cross_entropy(y, T)
    expected += (1 - lam) * F.softmax_cross_entropy(y, T[perm])
    np.testing.assert_allclose(loss.array, expected.array)
    net.cleargrads()
    loss.backward()
    assert net.base.W.grad is None and np.abs(net.head.W.grad).max() > 0


# What no graph shows


@pytest.mark.parametrize("shortcut", [True, False])
def test_a_branch_inside_a_frozen_part(shortcut):
    def residual(self, x):
        h = F.tanh(self.inner(x))
        return h + x if shortcut else h

    net = net_of(
        lambda self, x: self.head(freeze("no_backprop_mode", self.base, x)),
        base=net_of(residual, inner=dense(4, 4)),
        head=dense(4, 3),
    )
    x = samples(4)
    if shortcut:
        with pytest.raises(RuntimeError, match=r"'base/inner' .*lies in a branch"):
            mixed_call(net, "base/inner", x)
    else:
        y, *_ = mixed_call(net, "base/inner", x)
        expected = net.head(F.tanh(mix(net.base.inner(x))))
        np.testing.assert_allclose(y.array, expected.array)


LENGTHS = np.array([1, 3, 5, 2, 4, 4])
MASK = np.arange(5) < LENGTHS[:, None]


def mean_by_numpy(h, mask):
    mask = chainer.as_array(mask).astype(float)[:, :, None]
    return F.sum(h * mask, axis=1) / mask.sum(axis=1)


def mean_by_chainer(h, mask):
    mask = F.cast(chainer.as_variable(mask), "float64")
    total = F.sum(F.scale(h, mask, axis=0), axis=1)
    return F.scale(total, 1 / F.sum(mask, axis=1), axis=0)


def mean_of_slices(h, lengths):
    return F.stack([F.mean(h[i, : int(n)], axis=0) for i, n in enumerate(lengths)])


def last(h, lengths):
    return h[np.arange(N), chainer.as_array(lengths).astype(int) - 1]


@pytest.mark.parametrize("dtype", [bool, np.int32, np.float32])
@pytest.mark.parametrize(
    ("pool", "beside"),
    [
        (mean_by_numpy, MASK),
        (mean_by_chainer, MASK),
        (mean_of_slices, LENGTHS),
        (last, LENGTHS),
    ],
)
def test_masks_and_lengths_of_the_first_partner_alone_are_refused(pool, beside, dtype):
    if beside is LENGTHS and dtype is bool:
        pytest.skip("no lengths")
    net = net_of(
        lambda self, x, beside: self.fc(
            F.tanh(self.pooled(pool(F.relu(self.encoder(x, n_batch_axes=2)), beside)))
        ),
        encoder=dense(3, 4),
        pooled=dense(4, 4),
        fc=dense(4, 3),
    )
    x, beside = samples(5, 3), beside.astype(dtype)
    advice = r"mask \| mask\[current_draw\(\)\.perm\]"
    with pytest.raises(TypeError, match=f"input cannot be mixed: argument 1.*{advice}"):
        mixed_call(net, "input", x, beside)
    with pytest.raises(RuntimeError, match=f"'encoder' .*{advice}"):
        mixed_call(net, "encoder", x, beside)
    assert MixupLayers.suggest(net, (x, beside)) == ["pooled"]
    y, *_ = mixed_call(net, "pooled", x, beside)  # behind their use
    h = net.pooled(pool(F.relu(net.encoder(x, n_batch_axes=2)), beside))
    np.testing.assert_allclose(y.array, net.fc(F.tanh(mix(h))).array)


@pytest.mark.parametrize("dtype", [bool, np.float64])
def test_a_network_may_join_the_masks_itself(dtype):
    def forward(self, x, mask):
        h = F.relu(self.encoder(x, n_batch_axes=2))
        if (draw := current_draw()) is not None:
            mask = np.maximum(mask, mask[draw.perm])
        weights = mask / mask.sum(axis=1, keepdims=True)
        return self.fc(F.sum(h * weights[:, :, None], axis=1))

    net = net_of(forward, encoder=dense(3, 4), fc=dense(4, 3))
    x, mask = samples(5, 3), MASK.astype(dtype)
    model = MixupLayers(net, ["encoder"])
    for _ in range(3):
        y, *_ = mixed_call(None, "encoder", x, mask, model=model)
    h = np.maximum(mix(net.encoder(x, n_batch_axes=2).array), 0)
    both = MASK | MASK[PERM]
    pooled = (h * both[:, :, None]).sum(axis=1) / both.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(y.array, net.fc(pooled).array)


def test_lengths_that_are_made_of_the_input_are_found_too():
    def forward(self, x):
        lengths = (x[:, :, 0] != 0).sum(axis=1)
        return self.fc(mean_of_slices(self.encoder(x, n_batch_axes=2), lengths))

    net = net_of(forward, encoder=dense(3, 4), fc=dense(4, 3))
    x = samples(5, 3) * MASK[:, :, None]
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"'encoder' .*lies in a branch"):
            mixed_call(net, "encoder", x)


def test_a_mask_of_the_shape_of_the_samples():
    net = net_of(lambda self, x, mask: self.fc(x * mask), fc=dense(5, 3))
    with pytest.raises(TypeError, match=r"argument 1 .* looks like lengths"):
        mixed_call(net, "input", samples(5), MASK.astype(float))


def test_what_the_copies_report_is_not_seen():
    def forward(self, x):
        chainer.report({"mean": float(np.mean(x))}, self.l1)
        return self.fc(self.l1(x))

    net = net_of(forward, l1=dense(4, 5), fc=dense(5, 3))
    reporter = chainer.Reporter()
    reporter.add_observer("l1", net.l1)
    with reporter:
        mixed_call(net, "l1", samples(4))
    assert reporter.observation == {"l1/mean": samples(4).mean()}


@pytest.mark.parametrize("thread", [None, compiled.THREAD])
def test_what_the_copies_draw_is_drawn_again(thread):
    def forward(self, x):
        h = self.l1(x + np.random.normal(scale=0.1, size=x.shape))
        with chainer.using_config("train", True):
            return self.fc(F.dropout(h)) * random.uniform(0.9, 1)

    def next_numbers():
        return np.random.rand(), random.random()

    net = net_of(forward, l1=dense(4, 5), fc=dense(5, 3))
    random.seed(0)
    numpy_state, python_state = np.random.get_state(), random.getstate()
    net(samples(4))
    expected = next_numbers()
    np.random.set_state(numpy_state)
    random.setstate(python_state)
    with running(thread):
        mixed_call(net, "l1", samples(4))
    assert next_numbers() == expected


@contextlib.contextmanager
def running(name):
    """A context in which a thread of that name runs."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name=name)
    if name:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if name:
            thread.join()


def test_what_another_thread_draws_meanwhile_is_not_drawn_again():
    np.random.seed(0)
    with running("prefetch_loop"), drawing_nothing(chainer.get_device("@numpy")):
        np.random.rand()
    assert np.random.rand() == np.random.RandomState(0).rand(2)[1]


def test_a_mask_is_found_though_the_network_draws_in_test_mode():
    def forward(self, x, mask):
        h = self.l1(x + np.random.normal(scale=0.1, size=x.shape))
        return self.fc(h * chainer.as_array(mask))

    net = net_of(forward, l1=dense(4, 5), fc=dense(5, 3))
    with pytest.raises(RuntimeError, match=r"'l1' .*lies in a branch"):
        mixed_call(net, "l1", samples(4), MASK.astype(float))


def test_a_link_that_is_called_several_times_is_said_to_be():
    def forward(self, x):
        self.l1(x)
        return self.fc(self.l1(2 * x))

    net = net_of(forward, l1=dense(4, 5), fc=dense(5, 3))
    with pytest.raises(RuntimeError, match="only the first of its 2 calls is mixed"):
        mixed_call(net, "l1", samples(4))


def test_lengths_that_differ_later_are_refused_later():
    net = net_of(
        lambda self, x, n: self.fc(mean_of_slices(self.encoder(x, n_batch_axes=2), n)),
        encoder=dense(3, 4),
        fc=dense(4, 3),
    )
    model = MixupLayers(net, ["encoder"])
    for _ in range(2):
        mixed_call(None, "encoder", samples(5, 3), np.full(N, 5), model=model)
    with pytest.raises(RuntimeError, match=r"'encoder' .*lies in a branch"):
        mixed_call(None, "encoder", samples(5, 3), LENGTHS, model=model)


def test_numbers_beside_the_samples_are_mixed_unless_they_look_like_lengths():
    net = net_of(
        lambda self, x, age, kind: self.a(x) + self.b(age[:, None]) + self.c(kind),
        a=dense(4, 3),
        b=dense(1, 3),
        c=dense(2, 3),
    )
    x, kind = samples(4), np.eye(2)[T % 2]  # one-hot
    for age in samples(), np.array([3.0, 41, 4, 18, 62, 0]):
        y, *_ = mixed_call(net, "input", x, age, kind)
        np.testing.assert_allclose(y.array, net(mix(x), mix(age), mix(kind)).array)
    with pytest.raises(TypeError, match=r"argument 1 .* looks like .* not whole"):
        mixed_call(net, "input", x, LENGTHS.clip(0, 4).astype(float), kind)


def test_whole_numbers_of_the_shape_of_samples_are_mixed():
    net = net_of(lambda self, x, z: self.fc(F.concat([x, z])), fc=dense(6, 3))
    x = samples(3)
    for z in np.arange(N * 3.0).reshape(N, 3), np.eye(3)[T]:  # pixels, one-hot
        y, *_ = mixed_call(net, "input", x, z)
        np.testing.assert_allclose(y.array, net(mix(x), mix(z)).array)


def constant(how):
    if how == "table":
        return net_of(
            lambda self, x: self.l2(
                F.concat([h := self.l1(x + F.mean(self.table(ROWS), 0).array), h * 0])
                + F.concat([F.matmul(h, self.table(ROWS), transb=True)] * 2)[:, :8]
            ),
            table=L.EmbedID(N, 4),
            l1=dense(4, 4),
            l2=dense(8, 3),
        )

    def forward(self, x):
        m = chainer.Variable(np.eye(N) * 0.9)
        return self.l2(F.matmul(self.l1(F.matmul(x, m)), m))

    return net_of(forward, l1=dense(N, N), l2=dense(N, 3))


ROWS = np.arange(N, dtype=np.int32)


@pytest.mark.parametrize("n", [2, N, 9])
@pytest.mark.parametrize("how", ["table", "matrix"])
def test_a_constant_of_as_many_rows_as_samples_is_no_sample(how, n):
    net = constant(how)
    x = np.random.randn(n, 4 if how == "table" else N)
    model = ManifoldMixupClassifier(MixupLayers(net, ["l1"]), True, seed=0)
    for _ in range(3):
        model(x, np.zeros(n, np.int32)).backward()


def test_copies_are_called_in_the_first_step_only(monkeypatch):
    probes = []
    monkeypatch.setattr(
        "chainer_mmix.links.branches.Probe.of", lambda *args: probes.append(args)
    )
    plain = net_of(lambda self, x: self.l2(self.l1(x)), l1=dense(N, 5), l2=dense(5, 3))
    for net in constant("matrix"), plain:
        model = MixupLayers(net, ["l1"])
        for _ in range(3):
            mixed_call(None, "l1", samples(N), model=model)
    assert len(probes) == 2


def test_a_last_batch_of_as_many_samples_as_a_constant_has_rows():
    model = ManifoldMixupClassifier(
        MixupLayers(constant("matrix"), ["l1"]), True, seed=0
    )
    for n in (9, 9, N, 9, N, N):
        model(np.random.randn(n, N), np.zeros(n, np.int32)).backward()


@pytest.mark.parametrize("sizes", [(8, 1, 8, 1), (1, 8)])
def test_a_last_batch_of_one_beside_numbers_of_places(sizes):
    def forward(self, x):
        with chainer.no_backprop_mode():
            h = self.embed(x)
        h = h + F.broadcast_to(self.places(np.arange(5)[None]), h.shape)
        return self.fc(F.mean(h, axis=1))

    net = net_of(forward, embed=L.EmbedID(9, 4), places=L.EmbedID(5, 4), fc=dense(4, 3))
    model = ManifoldMixupClassifier(MixupLayers(net, ["embed"]), True, seed=0)
    for n in sizes:
        words = np.random.randint(0, 9, (n, 5))
        model(words, np.zeros(n, np.int32)).backward()


def test_a_network_that_cannot_be_copied():
    class Uncopied(chainer.Chain):
        def __deepcopy__(self, memo):
            raise TypeError("no copies")

        def forward(self, x, mask):
            return self.fc(F.where(mask, self.a(x), np.zeros((N, 4))))

    net = Uncopied(a=dense(4, 4), fc=dense(4, 3))
    reason = r"Uncopied cannot be copied and called .* \(TypeError: no copies\)"
    with pytest.warns(UserWarning, match=reason):
        mixed_call(net, "a", samples(4), samples(4) > 0)


def test_a_network_that_takes_no_other_samples():
    """The graph alone is searched, and it is said."""

    def forward(self, x, mask):
        if not chainer.config.train:
            raise KeyError("pick")
        return self.fc(F.where(mask, self.a(x), np.zeros((N, 4))))

    net = net_of(forward, a=dense(4, 4), fc=dense(4, 3))
    with pytest.warns(UserWarning, match=r"not looked for \(KeyError: 'pick'\)"):
        mixed_call(net, "a", samples(4), samples(4) > 0)


# Paths that come and go


class Switched(chainer.Chain):
    """Its block and the shortcut around it are there in some steps."""

    def __init__(self, shortcuts, blocks):
        super().__init__(stem=dense(4, 5), block=dense(5, 5), fc=dense(5, 3))
        self.shortcuts, self.blocks = iter(shortcuts), iter(blocks)

    def forward(self, x):
        h = F.tanh(self.stem(x))
        train = chainer.config.train
        shortcut = train and next(self.shortcuts)
        if not train or next(self.blocks):
            h = F.tanh(self.block(h)) + (h if shortcut else 0)
        return self.fc(h)


@pytest.mark.parametrize("step", [1, 2, 5])
def test_a_shortcut_is_noticed_in_the_step_in_which_it_appears(step):
    net = Switched([k == step for k in range(1, 7)], [True] * 6)
    model = ManifoldMixupClassifier(MixupLayers(net, ["block"]), True, seed=0)
    for _ in range(step - 1):
        model(samples(4), T)
    with pytest.raises(RuntimeError, match="'block' of Switched lies in a branch"):
        model(samples(4), T)


def test_a_part_of_the_input_that_appears_late_is_noticed_when_it_is_back():
    steps = iter([False, True, False, True])

    def forward(self, x):
        h = self.block(x)
        return self.fc(h + x[:, :3] if chainer.config.train and next(steps) else h)

    net = net_of(forward, block=dense(4, 3), fc=dense(3, 3))
    model = ManifoldMixupClassifier(MixupLayers(net, ["block"]), True, seed=0)
    for _ in range(3):
        model(samples(4), T)
    with pytest.raises(RuntimeError, match=r"'block' of .* lies in a branch"):
        model(samples(4), T)


@pytest.mark.parametrize("first", [True, False])
def test_a_step_that_leaves_the_block_out_is_not_mixed(first):
    blocks = [first, False, True, False]
    net, x = Switched([False] * 4, blocks), samples(4)
    model = ManifoldMixupClassifier(MixupLayers(net, ["block"]), True, seed=0)
    for called in blocks:
        loss = model(x, T)
        lam, perm = model.draw.lam, model.draw.perm
        assert (lam == 1) == (not called)
        h = F.tanh(net.stem(x))
        if called:
            h = net.block(h)
            h = F.tanh(lam * h + (1 - lam) * h[perm])
            losses = [F.softmax_cross_entropy(net.fc(h), t) for t in (T, T[perm])]
            expected = lam * losses[0] + (1 - lam) * losses[1]
        else:
            expected = F.softmax_cross_entropy(net.fc(h), T)
        np.testing.assert_allclose(loss.array, expected.array)


# Several outputs


class Cloud(chainer.Chain):
    """It turns each cloud of points, and returns the matrix for a penalty."""

    def __init__(self):
        super().__init__(turn=Turn(), l1=dense(2, 4), l2=dense(4, 4), fc=dense(4, 3))

    def forward(self, x):
        x, matrix = self.turn(x)
        h = F.relu(self.l1(x, n_batch_axes=2))
        return self.fc(F.max(F.relu(self.l2(h, n_batch_axes=2)), axis=1)), matrix


class Turn(chainer.Chain):
    def __init__(self):
        super().__init__(angle=dense(2, 1))

    def forward(self, x):
        angle = 9 * self.angle(F.mean(x, axis=1))[:, 0]
        c, s = F.cos(angle), F.sin(angle)
        matrix = F.reshape(F.stack([c, -s, s, c], axis=1), (-1, 2, 2))
        return F.matmul(x, matrix), matrix


def test_a_matrix_for_a_penalty_is_not_mixed():
    net, x = Cloud(), samples(7, 2)
    with pytest.raises(RuntimeError, match=r"'turn' has 2 parts.*penalty"):
        mixed_call(net, "turn", x)
    for point in "l1", "l2":
        with pytest.raises(RuntimeError, match=r"in a branch.*aside="):
            mixed_call(net, point, x)
        (y, matrix), *_ = mixed_call(net, point, x, aside=[1])
        square = F.matmul(matrix, matrix, transb=True).array
        np.testing.assert_allclose(square, [np.eye(2)] * N, atol=1e-12)
        assert not np.allclose(y.array, net(x)[0].array)
    with pytest.raises(ValueError, match="aside names 2, but the network returns 0, 1"):
        mixed_call(net, "l1", x, aside=[2])
    with pytest.raises(TypeError, match=r"aside must be a list: \[1\]"):
        MixupLayers(net, ["l1"], aside=1)
    assert MixupLayers.suggest(net, x) == ["input"]


@dataclasses.dataclass
class Output:
    loc: chainer.Variable
    log_scale: chainer.Variable


OBJECTS = [
    lambda a, b: D.Normal(a, log_scale=b),
    lambda a, b: D.Independent(D.Normal(a, log_scale=b)),
    Output,
    lambda a, b: types.SimpleNamespace(loc=a, log_scale=b),
    lambda a, b: [{"both": (a, b)}],
]


@pytest.mark.parametrize("make", OBJECTS)
def test_outputs_are_looked_for_in_objects(make):
    def forward(self, x):
        h = self.l2(F.tanh(self.l1(x)))
        return make(h[:, :1], h[:, 1:] + (h[:, :1] if shortcut else 0))

    shortcut, x = False, samples(4)
    net = net_of(forward, l1=dense(4, 5), l2=dense(5, 2))
    y, *_ = mixed_call(net, "l1", x)
    h = net.l2(F.tanh(mix(net.l1(x)))).array
    if isinstance(y, D.Normal):
        np.testing.assert_allclose(y.loc.array, h[:, :1])
    elif hasattr(y, "log_scale"):
        np.testing.assert_allclose(y.log_scale.array, h[:, 1:])

    around = net_of(
        lambda self, x: make(self.fc(h := self.l1(x)), h),
        l1=dense(4, 5),
        fc=dense(5, 1),
    )
    with pytest.raises(RuntimeError, match=r"'fc' .*in a branch"):
        mixed_call(around, "fc", x)


# What is proposed can be trained


def heads(self, x):
    h = F.relu(self.stem(x))
    y = self.fc(F.relu(self.block(F.relu(self.early(h)))))
    return (y, self.aux(h)) if chainer.config.train else y


def cut(self, x):
    h = F.relu(self.stem(x)).array[:, ::-1].copy()
    return self.fc(F.relu(self.block(F.relu(self.early(h)))))


def reversed_(self, x):
    return self.fc(F.relu(self.stem(x)).array[:, ::-1].copy())


@pytest.mark.parametrize(
    ("forward", "proposal", "refused"),
    [
        (reversed_, ["input"], ["stem"]),
        (heads, ["input", "stem"], ["early", "block"]),
        (cut, ["input", "early", "block"], ["stem"]),
    ],
)
def test_all_that_is_proposed_trains(forward, proposal, refused):
    links = {name: dense(5, 5) for name in ("early", "block")}
    net = net_of(forward, stem=dense(4, 5), aux=dense(5, 3), fc=dense(5, 3), **links)
    assert MixupLayers.suggest(net, samples(4)) == proposal
    for name in proposal:
        mixed_call(net, name, samples(4))
    for name in refused:
        with pytest.raises(RuntimeError, match=f"'{name}'"):
            mixed_call(net, name, samples(4))


def test_layers_are_handed_on():
    class Picked(chainer.Chain):
        def forward(self, x, layers=("fc",)):
            h = self.l1(x)
            return {k: v for k, v in (("l1", h), ("fc", self.fc(h))) if k in layers}

    net, x = Picked(l1=dense(4, 5), fc=dense(5, 3)), samples(4)
    model = MixupLayers(net, ["l1"], pick="fc")
    np.testing.assert_array_equal(model(x).array, net(x)["fc"].array)
    for activations in (model(x, layers=["l1", "fc"]), model(x, ["l1", "fc"])):
        assert activations.keys() == {"l1", "fc"}


def test_a_state_of_the_whole_batch_is_no_sample():
    net = net_of(
        lambda self, x: self.fc(F.tanh(self.l1(x)) * self.state),
        l1=dense(4, 5),
        fc=dense(5, 3),
    )
    net.state = samples(5)
    y, *_ = mixed_call(net, "l1", samples(4))
    h = mix(net.l1(samples(4)))
    np.testing.assert_allclose(y.array, net.fc(F.tanh(h) * net.state).array)
