import chainer
import numpy as np
import pytest
from scipy import stats

from chainer_mmix import MixupPolicy
from chainer_mmix.mixing.policy import current_draw


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
    assert MixupPolicy(0).draw(4).lam == 1.0
    assert MixupPolicy(0, per="sample").draw(4).lam.tolist() == [1] * 4


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


@pytest.mark.parametrize("saver", ["npz", "hdf5"])
def test_snapshot_continues_the_sequence(tmp_path, saver):
    if saver == "hdf5":
        pytest.importorskip("h5py")
    save = getattr(chainer.serializers, f"save_{saver}")
    load = getattr(chainer.serializers, f"load_{saver}")
    policy, other = MixupPolicy(seed=0), MixupPolicy(seed=1)
    policy.draw(5, (0, 1))
    save(path := str(tmp_path / "policy.npz"), policy)
    load(path, other)
    for _ in range(3):
        assert same(policy.draw(5, (0, 1)), other.draw(5, (0, 1)))


@pytest.mark.parametrize("alpha", [-0.1, float("nan"), float("inf")])
def test_bad_alpha_is_named(alpha):
    with pytest.raises(ValueError, match=f"alpha must be .* not {alpha}"):
        MixupPolicy(alpha)


def test_bad_layer_mix_and_per():
    with pytest.raises(TypeError, match=r"an integer or a name, not 1\.5"):
        MixupPolicy(layer_mix=[0, 1.5])
    with pytest.raises(ValueError, match="layer_mix is empty"):
        MixupPolicy(layer_mix=[])
    with pytest.raises(ValueError, match="'pair'"):
        MixupPolicy(per="pair")
