"""CutMix, FMix and ResizeMix as modes of the policy, against loops and plain NumPy."""

import itertools

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer import gradient_check

from chainer_mmix import ManifoldMixupClassifier, MixupPolicy, mixup_data
from chainer_mmix.mixing import MixupDraw, using_draw
from chainer_mmix.mixing.regions import Regions

METHODS = {
    "mixup": {"alpha": 1},
    "cutmix": {"cutmix_alpha": 1},
    "bounded": {"cutmix_minmax": (0.3, 0.9)},
    "fmix": {"fmix_alpha": 1},
    "resizemix": {"resizemix_minmax": (0.3, 0.9)},
}
ALL = {k: v for options in METHODS.values() for k, v in options.items()}
del ALL["cutmix_alpha"]  # which bounds are in place of


def transform(x, sign):
    """The discrete Fourier transform, by matrices."""
    for axis, n in enumerate(x.shape):
        waves = np.exp(sign * 2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n)
        x = np.moveaxis(np.tensordot(waves, x, (1, axis)), 0, axis)
    return x


def noise_mask(rest, center, size):
    """FMix's places of the partner: where filtered white noise is largest."""
    white = np.random.default_rng(center.view(np.uint32)).standard_normal(size)
    waves = [np.minimum(np.arange(n), n - np.arange(n)) / n for n in size]
    f = np.sqrt(sum(a**2 for a in np.meshgrid(*waves, indexing="ij")))
    spectrum = transform(white, -1) / np.maximum(f, 1 / max(size)) ** 3
    noise = transform(spectrum, 1).real
    n = round(rest * noise.size)
    return noise >= (np.sort(noise, axis=None)[-n] if n else np.inf)


def sample_by_loops(x, partner, method, lam, center, sides):
    """Returns a mixed sample, where it is the partner's, and what is left of it."""
    size = x.shape[1:]
    box = np.zeros(size, bool)
    if method == "none":
        return x, box, 1.0
    if method == "mixup":
        return lam * x + (1 - lam) * partner, box, lam
    if method == "fmix":
        box = noise_mask(1 - lam, center, size)
        return np.where(box, partner, x), box, 1 - box.mean()
    share, pasted = (1 - lam) ** (1 / len(size)), partner
    slices = []
    for axis, n in enumerate(size):
        if method == "cutmix" and sides is None:
            half, middle = int(n * share / 2), int(n * center[axis])
            slices.append(slice(max(0, middle - half), min(n, middle + half)))
            continue
        side = share if method == "resizemix" else sides[axis]
        length = int(n * side)
        start = int(center[axis] * (n - length + 1))
        slices.append(slice(start, start + length))
        if method == "resizemix" and length:
            middles = (np.arange(length) + 0.5) / length * n
            pasted = pasted.take(middles.astype(int), axis + 1)
    box[tuple(slices)] = True
    result = x.copy()
    inside = (slice(None), *slices)
    result[inside] = pasted if method == "resizemix" and box.any() else partner[inside]
    return result, box, 1 - box.mean()


def fields(draw, n):
    """Yields partner, method, lambda, center and sides of each of n samples."""
    center = np.zeros(3) if draw.center is None else draw.center
    for i in range(n):
        yield (
            draw.perm[i],
            np.broadcast_to(draw.method, n)[i],
            float(np.broadcast_to(draw.lam, n)[i]),
            np.ascontiguousarray(np.broadcast_to(center, (n, 3))[i]),
            None if draw.sides is None else np.broadcast_to(draw.sides, (n, 3))[i],
        )


def by_loops(x, draw):
    rows = [
        sample_by_loops(x[i], x[m], *rest)
        for i, (m, *rest) in enumerate(fields(draw, len(x)))
    ]
    return tuple(map(np.array, zip(*rows, strict=True)))


@pytest.mark.parametrize("per", ["batch", "pair", "sample"])
@pytest.mark.parametrize("n", [1, 4, 5])
@pytest.mark.parametrize("size", [(9,), (8, 6), (4, 5, 6)])
@pytest.mark.parametrize("name", [*METHODS, "all"])
def test_samples_and_weights_are_those_of_loops(name, size, n, per):
    rng = np.random.RandomState(0)
    options = {"alpha": 0, **METHODS.get(name, ALL)}
    policy = MixupPolicy(**options, per=per, prob=0.8, seed=1)
    methods = set()
    for _ in range(6):
        draw = policy.draw(n)
        if draw is None:
            continue
        methods |= set(np.atleast_1d(draw.method))
        x = rng.randn(n, 2, *size)
        with using_draw(draw) as mixture:
            mixed, a, b = mixup_data(x, np.arange(n), draw.lam)
        expected, _, left = by_loops(x, draw)
        np.testing.assert_allclose(mixed, expected, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(
            mixture.draw.lam, left if per != "batch" else left[0]
        )
        assert np.ndim(mixture.draw.lam) == (per != "batch")
        np.testing.assert_array_equal(b, a[draw.perm])
        half = x.astype(np.float16)
        with using_draw(draw):
            rounded, *_ = mixup_data(half, np.arange(n), draw.lam)
        assert rounded.dtype == np.float16
        expected, *_ = by_loops(half.astype("d"), draw)
        np.testing.assert_allclose(rounded, expected, rtol=2e-3, atol=2e-3)
    wanted = set(METHODS) - {"bounded"} if name == "all" else {name}
    assert (methods - {"none"}) <= wanted | {"cutmix"} and methods
    assert name != "all" or n < 4 or per != "sample" or methods >= wanted


def test_blobs_have_no_direction():
    """On squares, they have as much border along either axis, and are few."""
    policy = MixupPolicy(0, per="sample", fmix_alpha=1, fixed_lam=0.5, seed=0)
    masks = Regions(policy.draw(300), (24, 24)).mask
    np.testing.assert_array_equal(masks.mean(axis=(1, 2)), 0.5)
    borders = [np.diff(masks, axis=axis).sum() for axis in (1, 2)]
    assert 0.93 < borders[0] / borders[1] < 1.07
    assert np.mean(borders) / 300 < 24 * 24 / 12
    assert masks.mean(axis=0) == pytest.approx(np.full((24, 24), 0.5), abs=0.15)


def places_by_loops(t, size, draw):
    """Cuts targets of each place, whose last axes lie over a map of some size."""
    first, second = np.array(t), np.array(t)
    places = t.shape[t.ndim - len(size) :]
    x = np.zeros((len(t), 1, *size))
    _, boxes, _ = by_loops(x, draw)
    for i, (m, method, *_) in enumerate(fields(draw, len(t))):
        if method == "mixup":
            second[i] = t[m]
        if not boxes[i].any():
            continue
        inside = [
            np.flatnonzero(boxes[i].any(tuple({*range(len(size))} - {k})))
            for k in range(len(size))
        ]
        for place in itertools.product(*map(range, places)):
            middle = [
                (p + 0.5) * s / k for p, s, k in zip(place, size, places, strict=True)
            ]
            if not boxes[i][tuple(map(int, middle))]:
                continue
            source = place
            if method == "resizemix":
                source = tuple(
                    int((mid - at[0]) / len(at) * k + 1e-9)
                    for mid, at, k in zip(middle, inside, places, strict=True)
                )
            first[(i, ..., *place)] = second[(i, ..., *place)] = t[(m, ..., *source)]
    return first, second


@pytest.mark.parametrize("per", ["batch", "pair", "sample"])
@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize(
    ("size", "places"),
    [
        ((8, 6), (8, 6)),
        ((7, 4), (28, 16)),
        ((8, 8), (4, 4)),
        ((5, 5), (19, 20)),
        ((4, 5, 6), (8, 10, 12)),
    ],
)
@pytest.mark.parametrize("name", ["bounded", "fmix", "resizemix", "all"])
def test_targets_of_each_place_go_with_the_samples(name, size, places, n, per):
    rng = np.random.RandomState(0)
    options = {"alpha": 0, **METHODS.get(name, ALL)}
    policy = MixupPolicy(**options, per=per, prob=0.8, seed=2)
    x = rng.randn(n, 2, *size).astype("f")
    labels = rng.randint(-1, 5, (n, *places)).astype("i")
    shares = rng.rand(n, 3, *places).astype("f")
    for target in (labels, shares) * 2:
        draw = policy.draw(n)
        if draw is None:
            continue
        with using_draw(draw):
            _, a, b = mixup_data(x, target, draw.lam)
        expected = places_by_loops(target, size, draw)
        np.testing.assert_array_equal(a, expected[0])
        np.testing.assert_array_equal(b, expected[1])
        assert a.dtype == b.dtype == target.dtype
        assert (a is b) == ("mixup" not in draw.method)


@pytest.mark.parametrize("size", [(7,), (4, 5), (3, 4, 5)])
@pytest.mark.parametrize("per", ["batch", "sample"])
@pytest.mark.parametrize("name", ["fmix", "resizemix", "all"])
def test_gradients(name, per, size):
    rng = np.random.RandomState(0)
    options = {"alpha": 0, **METHODS.get(name, ALL)}
    draw = MixupPolicy(**options, per=per, seed=4).draw(6)
    x, gy, ggx = rng.randn(3, 6, 2, *size)

    def function(v):
        with using_draw(draw):
            return mixup_data(v, np.arange(6), draw.lam)[0]

    assert (function(chainer.Variable(x)).array != x).any()
    gradient_check.check_backward(function, x, gy, dtype=np.float64)
    gradient_check.check_double_backward(
        lambda v: function(v) ** 2, x, gy, ggx, dtype=np.float64
    )


class Net(chainer.Chain):
    mixup_layers = (0, 1)

    def __init__(self):
        super().__init__(conv=L.Convolution2D(1, 5, 3, 2, 1))

    def forward(self, x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
        a = b = None
        if mixup_hidden and layer_mix == 0:
            x, a, b = mixup_data(x, target, lam)
        h = self.conv(x)
        if mixup_hidden and layer_mix == 1:
            h, a, b = mixup_data(h, target, lam)
        y = F.resize_images(h, (12, 12))
        if target is not None and target.ndim == 1:
            y = F.average(y, axis=(2, 3))
        return (y, a, b) if mixup_hidden else y


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("per", ["batch", "pair", "sample"])
@pytest.mark.parametrize("point", [0, 1])
def test_loss_and_accuracy(point, per, dense):
    """One minibatch of all methods, each sample by the loss that it has alone."""
    rng = np.random.RandomState(0)
    x = rng.randn(7, 1, 12, 12).astype("f")
    t = rng.randint(0, 5, (7, 12, 12) if dense else 7).astype("i")
    net = Net()
    policies = (
        MixupPolicy(per=per, layer_mix=point, prob=0.8, seed=2, **ALL) for _ in range(2)
    )
    model, drawn = ManifoldMixupClassifier(net, policy=next(policies)), next(policies)
    for _ in range(3):
        model(x, t)
        draw = drawn.draw(7)
        if draw is None:
            continue
        h = by_loops(x, draw)[0].astype("f") if point == 0 else x
        h = net.conv(h).array
        size, (_, _, lam) = (12, 12) if point == 0 else (6, 6), by_loops(x, draw)
        if point == 1:
            h, _, lam = by_loops(h, draw)
        y = F.resize_images(h.astype("f"), (12, 12)).array.astype("d")
        a, b = (t, t[draw.perm])
        if dense:
            a, b = places_by_loops(t, size, draw)
        else:
            y = y.mean(axis=(2, 3))
        log_p = y - np.log(np.exp(y).sum(axis=1, keepdims=True))

        def per_sample(values):
            return values.reshape(7, -1).mean(axis=1)

        def loss(t, log_p=log_p):
            picked = np.take_along_axis(log_p, np.expand_dims(t, 1), 1)
            return -per_sample(picked)

        hits = [per_sample(y.argmax(axis=1) == t) for t in (a, b)]
        expected = (lam * loss(a) + (1 - lam) * loss(b)).mean()
        assert float(model.loss.array) == pytest.approx(expected, rel=1e-5)
        expected = (lam * hits[0] + (1 - lam) * hits[1]).mean()
        assert float(model.accuracy.array) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["fmix", "resizemix"])
def test_what_cannot_be_pasted_is_one_sentence(name):
    title = {"fmix": "FMix", "resizemix": "ResizeMix"}[name]
    draw = MixupDraw(0, 0.5, np.array([1, 0]), np.zeros(3), name)
    image = np.zeros((2, 3, 4, 4), "f")
    for x, t, message in (
        (np.zeros((2, 3), "f"), np.arange(2), r"x has shape \(2, 3\)"),
        ((image, image), np.arange(2), "the state has 2 parts"),
        (image, np.zeros((2, 3, 10)), "are neither of each sample"),
    ):
        with using_draw(draw), pytest.raises(ValueError, match=f"{title}.*{message}"):
            mixup_data(x, t, 0.5)


@pytest.mark.gpu
@pytest.mark.parametrize("per", ["batch", "sample"])
@pytest.mark.parametrize("name", ["fmix", "resizemix", "all"])
def test_gpu_equals_cpu(name, per):
    rng = np.random.RandomState(0)
    x, t = rng.randn(8, 3, 9, 7).astype("f"), rng.randint(0, 5, (8, 18, 14)).astype("i")
    draw = MixupPolicy(**{"alpha": 0, **METHODS.get(name, ALL)}, per=per, seed=4).draw(
        8
    )
    results = []
    for to_device in (np.asarray, chainer.backends.cuda.to_gpu):
        v = chainer.Variable(to_device(x))
        with using_draw(draw):
            y, a, b = mixup_data(v, to_device(t), draw.lam)
        y.grad = y.array
        y.backward()
        results.append([y.array, v.grad, a, b])
    for cpu, gpu in zip(*results, strict=True):
        np.testing.assert_allclose(cpu, gpu.get(), 1e-6, 1e-6)
