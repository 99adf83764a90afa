import numpy as np
import pytest

from chainer_mmix import MixupPolicy
from chainer_mmix.analysis.preview import mixed_pairs, plot_pairs


@pytest.fixture
def data():
    x = np.random.default_rng(0).random((5, 1, 4, 6)).astype(np.float32)
    return x, np.arange(5, dtype=np.int32)


@pytest.mark.parametrize("per", ["batch", "pair", "sample"])
def test_mixed_images_are_what_they_say(data, per):
    x, t = data
    policy = MixupPolicy(1, per=per, prob=0.1, layer_mix=[1, "deep"], seed=0)
    pairs = mixed_pairs(policy, x, t)
    assert [pair.targets[0] for pair in pairs] == [0, 1, 2, 3, 4]
    assert len({pair.lam for pair in pairs}) == 5
    for n, (method, (a, b, mixed), targets, lam, _) in enumerate(pairs):
        assert method == "mixup"
        np.testing.assert_array_equal(a, x[n])
        np.testing.assert_array_equal(b, x[targets[1]])
        np.testing.assert_allclose(mixed, lam * a + (1 - lam) * b, rtol=1e-5)


@pytest.mark.parametrize("per", ["batch", "sample"])
def test_cutmix_shows_a_box_and_its_share(data, per):
    x, t = data
    policy = MixupPolicy(0, cutmix_alpha=1, per=per, seed=1)
    cut = 0
    for method, (a, b, mixed), _, lam, _ in mixed_pairs(policy, x, t):
        assert method == "CutMix"
        is_second = mixed != a
        np.testing.assert_array_equal(mixed[is_second], b[is_second])
        if not np.array_equal(a, b):
            assert is_second.mean() == pytest.approx(1 - lam, abs=1e-6)
            cut += is_second.any()
    assert cut >= 2


def test_a_policy_with_both_shows_both_and_draws_on_as_before(data):
    x, t = data
    policies = [MixupPolicy(1, cutmix_alpha=1, seed=0) for _ in range(2)]
    methods = [pair.method for pair in mixed_pairs(policies[0], x, t)]
    assert methods == 5 * ["mixup"] + 5 * ["CutMix"]
    a, b = (policy.draw(5, [0, 1, 2]) for policy in policies)
    assert (a.lam, a.layer_mix, a.perm.tolist()) == (
        b.lam,
        b.layer_mix,
        b.perm.tolist(),
    )
    assert policies[0].prob == policies[1].prob
    assert policies[0].switch_prob == policies[1].switch_prob


def test_the_picture_has_a_row_a_pair_with_names_and_weights(data):
    x, t = data
    pairs = mixed_pairs(MixupPolicy(1, cutmix_alpha=1, seed=0), x, t)
    long_name = "four, or what looks like it"
    figure = plot_pairs(pairs, ["zero", "one", "two", "three", long_name])
    figure.draw_without_rendering()
    left, right = figure.subfigs
    for part, block in ((left, pairs[:5]), (right, pairs[5:])):
        rows = np.reshape(part.axes, (5, 3))
        for (first, second, mixed), pair in zip(rows, block, strict=True):
            shown = "zero", "one", "two", "three", f"{long_name[:11]}…"
            names = [shown[k] for k in pair.targets]
            assert first.get_title().endswith(names[0])
            assert second.get_title().endswith(names[1])
            assert f"{pair.lam:.2f} × {names[0]}" in mixed.get_title()
            assert f"{1 - pair.lam:.2f} × {names[1]}" in mixed.get_title()
            shown = mixed.images[0].get_array()
            low, high = x.min(), x.max()
            expected = (pair.images[2][0] - low) / (high - low)
            np.testing.assert_allclose(shown, expected, atol=1e-6)
    titles = [axes.title.get_window_extent() for axes in left.axes + right.axes]
    for k, title in enumerate(titles):
        assert not any(title.overlaps(other) for other in titles[:k])
        assert title.x0 >= 0 and title.x1 <= figure.bbox.x1
    heads = [part.get_suptitle() for part in (left, right)]
    assert heads[0] == "mixup at the input:\nλ × first + (1 − λ) × second"
    assert heads[1] == "CutMix at the input:\na box of the second in the first"


def test_soft_targets_and_colour_images(data):
    x = np.repeat(data[0], 3, axis=1)
    t = np.eye(5, dtype=np.float32)[data[1]]
    pairs = mixed_pairs(MixupPolicy(1, seed=0), x, t)
    axes = plot_pairs(pairs).subfigs[0].axes
    assert [a.get_title() for a in axes[::3]] == [f"first:\n{k}" for k in range(5)]
    assert axes[0].images[0].get_array().shape == (4, 6, 3)


def test_a_policy_of_all_modes_shows_each_with_its_places(data):
    x, t = data
    policy = MixupPolicy(
        *(1, None, "sample"),
        prob=0.3,
        cutmix_minmax=(0.3, 0.9),
        fmix_alpha=1,
        resizemix_minmax=(0.5, 0.9),
        seed=0,
    )
    pairs = mixed_pairs(policy, x, t)
    methods = ["mixup", "CutMix", "FMix", "ResizeMix"]
    assert [pair.method for pair in pairs] == [m for m in methods for _ in range(5)]
    for method, (a, b, mixed), targets, lam, mixed_targets in pairs:
        assert targets == mixed_targets and 0 <= lam <= 1
        if method in ("CutMix", "FMix") and targets[0] != targets[1]:
            assert set(mixed.ravel()) <= {*a.ravel(), *b.ravel()}
            assert (mixed != a).mean() == pytest.approx(1 - lam, abs=1e-6)
        if method == "ResizeMix" and targets[0] != targets[1]:
            assert (mixed != a).mean() == pytest.approx(1 - lam, abs=1e-6)
    assert policy.prob == 0.3 and policy.cutmix_minmax == (0.3, 0.9)
    figure = plot_pairs(pairs)
    assert [part.get_suptitle().split()[0] for part in figure.subfigs] == methods


@pytest.mark.parametrize("kind", ["labels", "probabilities"])
def test_label_maps_are_mixed_below_the_images(data, kind):
    x, _ = data
    t = np.random.default_rng(1).integers(-1, 3, (5, 8, 12)).astype(np.int32)
    if kind == "probabilities":
        t = np.moveaxis(np.eye(3, dtype=np.float32)[t.clip(0)], -1, 1)
    policy = MixupPolicy(1, resizemix_minmax=(0.5, 0.9), seed=0)
    pairs = mixed_pairs(policy, x, t)
    figure = plot_pairs(pairs, ["sky", "road", "car"], ignore_label=-1)
    figure.draw_without_rendering()
    for part, block in zip(figure.subfigs, (pairs[:5], pairs[5:]), strict=True):
        rows = np.reshape(part.axes, (10, 3))
        for pair, row in zip(block, rows[1::2], strict=True):
            arrays = (axes.images[0].get_array() for axes in row)
            first, second, mixed = (np.round(array, 6) for array in arrays)
            assert first.shape == (8, 12, 3)
            if pair.method == "mixup":
                expected = pair.lam * first + (1 - pair.lam) * second
                np.testing.assert_allclose(mixed, expected, atol=2e-6)
            else:
                # What is the partner's, scaled, has a colour of the partner's.
                own = (mixed == first).all(axis=-1)
                colours = {tuple(c) for c in second.reshape(-1, 3)}
                assert {tuple(c) for c in mixed[~own]} <= colours
                assert own.mean() >= pair.lam - 1e-6
            if kind == "labels":
                np.testing.assert_array_equal(first[pair.targets[0] == -1], 1)
        (legend,) = part.legends
        assert [text.get_text() for text in legend.texts] == ["sky", "road", "car"]


def test_what_has_no_label_has_no_name(data):
    x, t = data
    t = np.full_like(t, -1)
    figure = plot_pairs(mixed_pairs(MixupPolicy(), x, t), ["a", "b", "c"], -1)
    assert figure.subfigs[0].axes[0].get_title() == "first:\n-1"
