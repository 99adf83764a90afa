import chainer
import numpy as np
import pytest
from scipy import stats

from chainer_mmix import MixupPolicy
from chainer_mmix.mixing.draw import current_draw
from chainer_mmix.mixing.regions import Regions


def lambdas(alpha, n, per="sample"):
    policy = MixupPolicy(alpha, per=per, seed=1)
    if per == "sample":
        return policy.draw(n).lam
    return np.array([policy.draw(1).lam for _ in range(n)])


@pytest.mark.parametrize("alpha", [1e-3, 0.02, 0.2, 1, 2, 8])
def test_lambda_is_beta_distributed(alpha):
    n = 4000
    lam = np.sort(lambdas(alpha, n, per="batch"))
    # Below 1e-15 and above 1 - 1e-15 a tiny alpha has mass that floats cannot tell
    # from 0 and 1, so the Kolmogorov-Smirnov distance is taken between the two.
    tiny = np.logspace(-15, -1, 400)
    grid = np.concatenate([tiny, np.linspace(0.1, 0.9, 400), 1 - tiny])
    empirical = np.searchsorted(lam, grid, side="right") / n
    distance = np.abs(empirical - stats.beta.cdf(grid, alpha, alpha)).max()
    assert distance < stats.kstwo.ppf(0.9999, n)


@pytest.mark.parametrize("alpha", [0.2, 1, 2])
def test_lambda_per_sample_passes_kolmogorov_smirnov(alpha):
    lam = lambdas(alpha, 4000)
    assert lam.dtype == np.float32 and lam.shape == (4000,)
    assert stats.kstest(lam, stats.beta(alpha, alpha).cdf).pvalue > 1e-4


def test_lambda_per_batch_is_a_python_float():
    assert type(MixupPolicy(seed=0).draw(4).lam) is float


def test_alpha_zero_means_no_mixing():
    assert MixupPolicy(0).draw(4) is None and not MixupPolicy(0).mixes


def test_fold_makes_the_first_partner_weigh_more():
    lam = MixupPolicy(0.7, per="sample", fold=True, seed=0).draw(4000).lam
    assert lam.min() >= 0.5
    # The distribution of max(X, 1 - X) is twice that of X above 1/2.
    beta = stats.beta(0.7, 0.7)
    assert stats.kstest(lam, lambda x: 2 * beta.cdf(x) - 1).pvalue > 1e-4


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("per", ["batch", "pair", "sample"])
@pytest.mark.parametrize("cutmix_alpha", [0, 1])
def test_a_fixed_lambda_leaves_all_else_as_it_is(n, per, cutmix_alpha):
    options = {"per": per, "cutmix_alpha": cutmix_alpha, "prob": 0.7, "seed": 0}
    drawn, fixed = MixupPolicy(**options), MixupPolicy(fixed_lam=0.3, **options)
    for _ in range(20):
        a, b = (policy.draw(n, (0, 1, 2)) for policy in (drawn, fixed))
        assert (a is None) == (b is None)
        if a is None:
            continue
        assert np.shape(b.lam) == np.shape(a.lam) and type(b.lam) is type(a.lam)
        expected = np.where(np.asarray(b.method) == "none", 1, 0.3)
        np.testing.assert_allclose(b.lam, expected, rtol=1e-6)
        np.testing.assert_array_equal(b.method, a.method)
        assert b.layer_mix == a.layer_mix
        np.testing.assert_array_equal(b.perm, a.perm)
        assert (a.center is None) == (b.center is None)
        if a.center is not None:
            np.testing.assert_array_equal(b.center, a.center)
    folded = MixupPolicy(fixed_lam=0.3, fold=True, seed=0).draw(n)
    assert folded.lam == pytest.approx(0.7)


@pytest.mark.parametrize("lam", [-0.1, 1.1, np.nan])
def test_a_fixed_lambda_is_a_share(lam):
    with pytest.raises(ValueError, match=r"fixed_lam must lie in \[0, 1\], not"):
        MixupPolicy(fixed_lam=lam)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
@pytest.mark.parametrize("cutmix_alpha", [0, 1])
def test_pairs_are_mixed_with_each_other_by_one_lambda(n, cutmix_alpha):
    policy = MixupPolicy(
        0 if cutmix_alpha else 1, per="pair", cutmix_alpha=cutmix_alpha, seed=n
    )
    partners = []
    for _ in range(50):
        draw = policy.draw(n)
        np.testing.assert_array_equal(draw.perm[draw.perm], np.arange(n))
        assert (draw.perm == np.arange(n)).sum() == n % 2  # only the odd one is alone
        np.testing.assert_array_equal(draw.lam, draw.lam[draw.perm])
        assert len(set(draw.lam.tolist())) == (n + 1) // 2
        if cutmix_alpha:
            np.testing.assert_array_equal(draw.center, draw.center[draw.perm])
        partners.append(tuple(draw.perm))
    assert n <= 2 or len(set(partners)) > 2


@pytest.mark.parametrize("prob", [0, 0.25, 1])
def test_prob_is_the_share_of_mixed_batches(prob):
    policy = MixupPolicy(1, prob=prob, seed=0)
    mixed = sum(policy.draw(2) is not None for _ in range(1000))
    assert stats.binomtest(mixed, 1000, prob).pvalue > 1e-4


@pytest.mark.parametrize(
    ("alpha", "cutmix_alpha", "share"), [(1, 0, 0), (0, 1, 1), (0.5, 2, 0.25)]
)
def test_cutmix_replaces_mixup_with_its_own_alpha(alpha, cutmix_alpha, share):
    policy = MixupPolicy(alpha, cutmix_alpha=cutmix_alpha, switch_prob=0.25, seed=0)
    draws = [policy.draw(2) for _ in range(2000)]
    cut = [d.lam for d in draws if d.center is not None]
    mixed = [d.lam for d in draws if d.center is None]
    assert stats.binomtest(len(cut), 2000, share).pvalue > 1e-4
    for lam, a in ((cut, cutmix_alpha), (mixed, alpha)):
        assert not lam or stats.kstest(lam, stats.beta(a, a).cdf).pvalue > 1e-4
    centers = np.array([d.center for d in draws if d.center is not None]).ravel()
    assert not cut or stats.kstest(centers, "uniform").pvalue > 1e-4


@pytest.mark.parametrize("per", ["pair", "sample"])
@pytest.mark.parametrize("prob", [0.2, 0.7])
def test_each_pair_or_sample_is_mixed_and_switched_by_itself(per, prob):
    policy = MixupPolicy(
        0.5, None, per, prob=prob, cutmix_alpha=2, switch_prob=0.25, seed=5
    )
    draws = [policy.draw(16) for _ in range(400)]
    n = 8 if per == "pair" else 16
    counts, lam = [], {"mixup": [], "cutmix": []}
    for draw in draws:
        if draw is None:
            counts.append(0)
            continue
        if per == "pair":
            np.testing.assert_array_equal(draw.method, draw.method[draw.perm])
            np.testing.assert_array_equal(draw.lam, draw.lam[draw.perm])
        none = draw.method == "none"
        np.testing.assert_array_equal(draw.lam[none], 1)
        np.testing.assert_array_equal(draw.perm[none], np.flatnonzero(none))
        mixed = np.flatnonzero(~none)
        assert sorted(draw.perm[mixed]) == mixed.tolist()
        if len(mixed) > 1 and none.any():
            assert (draw.perm[mixed] != mixed).all()
        counts.append(len(mixed) * n // 16)
        for name in lam:
            lam[name] += set(draw.lam[draw.method == name].tolist())
    # As independent coins fall, with their variance.
    total = 400 * n
    assert stats.binomtest(sum(counts), total, prob).pvalue > 1e-4
    variance = n * prob * (1 - prob)
    ratio = 399 * np.var(counts, ddof=1) / variance
    assert 1e-4 < stats.chi2(399).cdf(ratio) < 1 - 1e-4
    n_cut = len(lam["cutmix"])
    assert stats.binomtest(n_cut, n_cut + len(lam["mixup"]), 0.25).pvalue > 1e-4
    for name, alpha in (("mixup", 0.5), ("cutmix", 2)):
        assert stats.kstest(lam[name], stats.beta(alpha, alpha).cdf).pvalue > 1e-4


@pytest.mark.parametrize("per", ["batch", "pair", "sample"])
def test_methods_that_paste_are_equally_probable(per):
    policy = MixupPolicy(
        *(1, None, per),
        cutmix_alpha=1,
        fmix_alpha=3,
        resizemix_minmax=(0.1, 0.8),
        switch_prob=0.6,
        seed=1,
    )
    draws = [policy.draw(1) for _ in range(3000)]
    method = np.array([np.atleast_1d(draw.method)[0] for draw in draws])
    counts = [(method == m).sum() for m in ("mixup", "cutmix", "fmix", "resizemix")]
    assert stats.chisquare(counts, [1200, 600, 600, 600]).pvalue > 1e-4
    lam = np.array([np.atleast_1d(draw.lam)[0] for draw in draws])
    assert stats.kstest(lam[method == "fmix"], stats.beta(3, 3).cdf).pvalue > 1e-4
    side = np.sqrt(1 - lam[method == "resizemix"])
    assert stats.kstest(side, stats.uniform(0.1, 0.7).cdf).pvalue > 1e-4
    assert {d.center is None for d in draws} == {True, False}


def test_bounds_of_cutmix_are_those_of_timm():
    """rand_bbox_minmax of timm 1.0.31, whose sides are whole numbers below the upper
    bound: the same where the bounds are whole."""
    height, width, (low, high) = 20, 40, (0.2, 0.8)
    policy = MixupPolicy(0, per="sample", cutmix_minmax=(low, high), seed=0)
    draw = policy.draw(4000)
    box = Regions(draw, (height, width))
    assert box.low.min() == 0 and (box.high.max(axis=0) == (height, width)).all()
    for axis, n in enumerate((height, width)):
        side = box.high[:, axis] - box.low[:, axis]
        sides = np.arange(int(n * low), int(n * high))  # timm's randint
        counts = np.bincount(side, minlength=n)[sides]
        assert counts.sum() == 4000 and stats.chisquare(counts).pvalue > 1e-4
        for length in sides[[0, -1]]:
            starts = np.bincount(box.low[side == length, axis])
            assert len(starts) == n - length + 1
            assert stats.chisquare(starts).pvalue > 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cutmix_minmax": (0.8, 0.2)}, r"cutmix_minmax must be two .* \(0\.8, 0\.2\)"),
        ({"resizemix_minmax": (0.1, 1.2)}, "resizemix_minmax must be two numbers"),
        ({"resizemix_minmax": (0.1,)}, "resizemix_minmax must be two numbers"),
        ({"fmix_alpha": -1}, "fmix_alpha must be a finite number >= 0 .* not -1"),
        ({"cutmix_minmax": (0, 1), "fold": True}, "leave out fold"),
        ({"cutmix_minmax": (0, 1), "fixed_lam": 0.5}, "leave out fixed_lam"),
        ({"cutmix_minmax": (0, 1), "cutmix_alpha": 1}, "in place of cutmix_alpha"),
    ],
)
def test_bad_settings_of_pasting(options, message):
    with pytest.raises(ValueError, match=message):
        MixupPolicy(**options)


def test_attributes_may_be_changed_and_are_checked_again():
    policy = MixupPolicy(seed=0)
    policy.alpha = 100  # lambda near 1/2
    assert abs(policy.draw(2).lam - 0.5) < 0.2
    policy.prob = 0
    assert not policy.mixes and policy.draw(2) is None
    policy.prob = 1.5
    with pytest.raises(ValueError, match=r"prob must lie in \[0, 1\], not 1.5"):
        policy.draw(2)


def test_permutations_are_uniform():
    policy = MixupPolicy(seed=3)
    seen = [tuple(policy.draw(3).perm) for _ in range(3000)]
    counts = [seen.count(p) for p in sorted(set(seen))]
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > 1e-4


def test_layers_are_uniform_and_independent_of_lambda():
    policy = MixupPolicy(1, seed=4)
    draws = [policy.draw(2, points=("input", 2, 3)) for _ in range(3000)]
    for point in ("input", 2, 3):
        lam = [d.lam for d in draws if d.layer_mix == point]
        assert abs(len(lam) - 1000) < 120
        assert stats.kstest(lam, "uniform").pvalue > 1e-4


@pytest.mark.parametrize(
    ("layer_mix", "expected"), [(2, {2}), ([0, 2], {0, 2}), ("res2", {"res2"})]
)
def test_layer_mix_restricts_the_points(layer_mix, expected):
    policy = MixupPolicy(layer_mix=layer_mix, seed=0)
    assert {policy.draw(1, points=(0, 1, 2)).layer_mix for _ in range(40)} == expected


def test_points_become_python_integers():
    for layer_mix in (np.int64(1), np.arange(1, 2), [np.int64(1)]):
        (point,) = MixupPolicy(layer_mix=layer_mix).layer_mix
        assert type(point) is int and point == 1


def test_without_points_the_link_chooses():
    assert MixupPolicy(seed=0).draw(2).layer_mix is None


def same(a, b):
    return a.layer_mix == b.layer_mix and a.lam == b.lam and (a.perm == b.perm).all()


def test_seed_fixes_the_sequence():
    a, b, c = (MixupPolicy(seed=s) for s in (5, 5, 6))
    draws = [(p.draw(16, (0, 1, 2)) for p in (a, b, c)) for _ in range(5)]
    for x, y, z in draws:
        assert same(x, y) and not same(x, z)


def test_nothing_touches_the_global_random_state():
    before = np.random.get_state()[1].copy()
    MixupPolicy().draw(10, (1, 2))
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    assert current_draw() is None


@pytest.mark.parametrize("per", ["batch", "pair", "sample"])
@pytest.mark.parametrize("saver", ["npz", "hdf5"])
def test_snapshot_continues_the_sequence(tmp_path, saver, per):
    if saver == "hdf5":
        pytest.importorskip("h5py")
    save = getattr(chainer.serializers, f"save_{saver}")
    load = getattr(chainer.serializers, f"load_{saver}")
    options = {
        "per": per,
        "prob": 0.7,
        "cutmix_minmax": (0.2, 0.8),
        "fmix_alpha": 1,
        "resizemix_minmax": (0.1, 0.8),
    }
    policy, other = (MixupPolicy(seed=k, **options) for k in (0, 1))
    policy.draw(5, (0, 1))
    save(path := str(tmp_path / "policy.npz"), policy)
    load(path, other)
    for _ in range(20):
        a, b = (p.draw(5, (0, 1)) for p in (policy, other))
        assert (a is None) == (b is None)
        for name in () if a is None else vars(a):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("alpha", [-0.1, float("nan"), float("inf")])
def test_bad_alpha_is_named(alpha):
    with pytest.raises(ValueError, match=f"alpha must be .* not {alpha}"):
        MixupPolicy(alpha)


def test_bad_layer_mix_and_per():
    with pytest.raises(TypeError, match=r"an integer or a name, not 1\.5"):
        MixupPolicy(layer_mix=[0, 1.5])
    with pytest.raises(ValueError, match="layer_mix is empty"):
        MixupPolicy(layer_mix=[])
    with pytest.raises(ValueError, match="'batches'"):
        MixupPolicy(per="batches")


@pytest.mark.parametrize(
    "bad", [{"cutmix_alpha": -1}, {"prob": 1.1}, {"switch_prob": float("nan")}]
)
def test_bad_numbers_are_named(bad):
    ((name, value),) = bad.items()
    with pytest.raises(ValueError, match=f"{name} must .* not {value}"):
        MixupPolicy(**bad)


@pytest.mark.parametrize(
    "bad", [{"alpha": "2"}, {"prob": b"1"}, {"fixed_lam": "0.5"}, {"seed": True}]
)
def test_words_and_bools_are_no_numbers(bad):
    ((name, value),) = bad.items()
    with pytest.raises(TypeError, match=f"{name} must be a .*number.* not {value!r}"):
        MixupPolicy(**bad)


@pytest.mark.parametrize("per", ["batch", "pair", "sample"])
@pytest.mark.parametrize("name", ["alpha", "cutmix_alpha"])
def test_lambda_of_the_largest_alphas_is_one_half(per, name):
    policy = MixupPolicy(**{"alpha": 0, name: 1e308}, per=per, seed=0)
    np.testing.assert_array_equal(policy.draw(4).lam, 0.5)


def test_a_draw_takes_one_point_and_one_sample_at_least():
    assert MixupPolicy(seed=0).draw(4, "input").layer_mix == "input"
    assert MixupPolicy(seed=0).draw(4, 0).layer_mix == 0
    for size in (0, -1, 1.5):
        with pytest.raises(ValueError, match=f"batch_size must be .* not {size}"):
            MixupPolicy(seed=0).draw(size)
