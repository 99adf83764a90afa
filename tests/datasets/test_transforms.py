"""Transforms against SciPy, Pillow, colorsys and the published code, in float64."""

import colorsys
import math
import random
from functools import partial

import numpy as np
import pytest
from chainer.datasets import TransformDataset, TupleDataset
from chainer.iterators import MultiprocessIterator, MultithreadIterator, SerialIterator
from PIL import Image, ImageEnhance
from scipy import ndimage

from chainer_mmix.datasets import (
    Affine,
    Augment,
    Brightness,
    ColourJitter,
    Compose,
    Cutout,
    Flip,
    PadCrop,
    QuarterTurn,
    transformed,
)
from chainer_mmix.training import DeviceBatches

ALL = Compose(
    [
        Augment(1, flip=True),
        PadCrop(2),
        Flip(vertical=True),
        QuarterTurn(),
        Affine(20, 0.1, 0.2, 10),
        Brightness(0.5, 1.5),
        ColourJitter(0.4, 0.4, 0.4, 0.2),
        Cutout(4, (0.1, 0.2, 0.3)),
    ]
)


@pytest.fixture
def images():
    return np.random.default_rng(0).random((5, 3, 9, 12), np.float32)


def keras_matrix(rotation, x, y, shear, height, width):
    """Composes what Keras composes, about the centre, for coordinates (x, y)."""
    r, s = np.deg2rad(rotation), np.deg2rad(shear)
    turn = [[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]]
    shift = [[1, 0, x], [0, 1, y], [0, 0, 1]]
    slant = [[1, -np.sin(s), 0], [0, np.cos(s), 0], [0, 0, 1]]
    centre = np.eye(3)
    centre[:2, 2] = width / 2 - 0.5, height / 2 - 0.5
    return centre @ np.array(turn) @ shift @ slant @ np.linalg.inv(centre)


class Fixed:
    """Gives numbers for the draws, as shares of the way from low to high."""

    def __init__(self, *shares):
        self._shares = iter(shares)

    def uniform(self, low, high):
        return low + (high - low) * next(self._shares)


@pytest.mark.parametrize("shares", [(1, 0, 0.3, 1), (0.1, 0.9, 0.5, 0.2)])
def test_affine_is_that_of_keras(images, shares):
    affine = Affine(30, 0.3, 0.2, 25)
    draw = affine.draw(images.shape[1:], Fixed(*shares))
    most = np.array([30, 0.3 * 12, 0.2 * 9, 25])
    matrix = keras_matrix(*(most * (2 * np.array(shares) - 1)), 9, 12)
    matrix = matrix[[1, 0, 2]][:, [1, 0, 2]]  # SciPy's coordinates are (y, x)
    actual = affine.apply(images, [draw] * 5)
    for x, y in zip(images.reshape(-1, 9, 12), actual.reshape(-1, 9, 12), strict=True):
        expected = ndimage.affine_transform(
            np.float64(x), matrix[:2, :2], matrix[:2, 2], order=1, mode="nearest"
        )
        np.testing.assert_allclose(y, expected, 0, 1e-5)


def test_an_affine_of_nothing_changes_nothing_and_a_shift_repeats_the_edge(images):
    draw = Affine().draw(images.shape[1:], random)
    np.testing.assert_array_equal(Affine().apply(images, [draw] * 5), images)
    # By a quarter of twelve pixels: what is at x comes from x + 3.
    right = Affine(width_shift=0.25)
    draw = right.draw(images.shape[1:], Fixed(1))
    expected = images[..., [3, 4, 5, 6, 7, 8, 9, 10, 11, 11, 11, 11]]
    np.testing.assert_allclose(right.apply(images, [draw] * 5), expected, 0, 1e-6)


def test_angles_are_drawn_evenly_from_the_whole_range():
    rng = random.Random(0)
    draws = [Affine(rotation=90).draw((1, 8, 8), rng) for _ in range(2000)]
    angles = np.degrees([math.atan2(d, a) for a, _, _, d, _, _ in draws])
    counts, _ = np.histogram(angles, 6, (-90, 90))
    assert counts.sum() == 2000 and counts.min() > 260 and counts.max() < 410


def test_brightness_is_that_of_pillow_but_for_its_8_bits(images):
    factors = [0.0, 0.4, 1.0, 1.3, 2.0]
    actual = Brightness(0, 2).apply(images, factors)
    for x, y, factor in zip(images, actual, factors, strict=True):
        picture = Image.fromarray(np.uint8(x.transpose(1, 2, 0) * 255))
        expected = np.asarray(ImageEnhance.Brightness(picture).enhance(factor)) / 255
        np.testing.assert_allclose(y.transpose(1, 2, 0), expected, 0, 3 / 255)
    drawn = [Brightness(1, 1.3).draw((3, 2, 2), random) for _ in range(300)]
    assert 1 <= min(drawn) < 1.02 and 1.28 < max(drawn) <= 1.3


def reference_jitter(image, changes):
    """Does in float64, with colorsys, what torchvision documents."""
    x = np.float64(image)
    for kind, amount in changes:
        grey = 0.2989 * x[0] + 0.587 * x[1] + 0.114 * x[2]
        if kind == 3:
            pixels = [
                colorsys.hsv_to_rgb((h + amount) % 1, s, v)
                for h, s, v in (colorsys.rgb_to_hsv(*p) for p in x.reshape(3, -1).T)
            ]
            x = np.array(pixels).T.reshape(x.shape)
        else:
            other = [0, grey.mean(), grey][kind]
            x = np.clip(amount * x + (1 - amount) * other, 0, 1)
    return x


def test_colour_jitter_is_that_of_torchvision(images):
    images[0, :, :3] = 0.5  # grey, of no hue
    images[0, :, 3:5] = [[[1.0]], [[0.0]], [[0.0]]]
    jitter = ColourJitter(0.5, 0.6, 0.7, 0.5)
    rng = random.Random(1)
    orders = set()
    for _ in range(30):
        draws = [jitter.draw(images.shape[1:], rng) for _ in images]
        actual = jitter.apply(images, draws)
        for x, y, changes in zip(images, actual, draws, strict=True):
            np.testing.assert_allclose(y, reference_jitter(x, changes), 0, 1e-5)
            orders.add(tuple(kind for kind, _ in changes))
    assert len(orders) == 24
    amounts = np.array(
        [[a for _, a in sorted(jitter.draw((3, 2, 2), rng))] for _ in range(500)]
    )
    low, high = amounts.min(axis=0), amounts.max(axis=0)
    np.testing.assert_allclose(low, [0.5, 0.4, 0.3, -0.5], atol=0.05)
    np.testing.assert_allclose(high, [1.5, 1.6, 1.7, 0.5], atol=0.05)


def test_grey_images_have_no_colour_to_change():
    x = np.random.default_rng(0).random((1, 1, 4, 4), np.float32)
    jitter = ColourJitter(0.5, 0.5, 0.5, 0.5)
    draw = jitter.draw(x.shape[1:], random.Random(0))
    assert sorted(kind for kind, _ in draw) == [0, 1]
    expected = np.float64(x)
    for kind, amount in draw:
        other = expected.mean() if kind else 0
        expected = np.clip(amount * expected + (1 - amount) * other, 0, 1)
    np.testing.assert_allclose(jitter.apply(x, [draw]), expected, 0, 1e-6)


def published_cutout(image, length, y, x):
    """What the code of arXiv 1708.04552 does, once y and x are drawn."""
    mask = np.ones(image.shape[1:])
    y1, y2, x1, x2 = (
        np.clip(at + sign * (length // 2), 0, most)
        for at, most in ((y, mask.shape[0]), (x, mask.shape[1]))
        for sign in (-1, 1)
    )
    mask[y1:y2, x1:x2] = 0
    return image * mask


@pytest.mark.parametrize("length", [2, 5, 30])
def test_cutout_is_the_published_one(images, length):
    cutout = Cutout(length)
    rng = random.Random(0)
    seen = set()
    for _ in range(200):
        draws = [cutout.draw(images.shape[1:], rng) for _ in images]
        seen.update(draws)
        for x, y, at in zip(images, cutout.apply(images, draws), draws, strict=True):
            np.testing.assert_array_equal(y, published_cutout(x, length, *at))
    assert len(seen) == 9 * 12  # every pixel may be the centre


def test_crops_flips_and_turns(images):
    padded = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)))
    expected = {
        padded[0, :, y : y + 9, x : x + 12].tobytes()
        for y in range(5)
        for x in range(5)
    }
    square = images[:, :, :, :9]
    ways = [square[0, :, ::a, ::b].tobytes() for a in (1, -1) for b in (1, -1)]
    turns = [np.rot90(square[0], k, (1, 2)).tobytes() for k in range(4)]

    def found(transform, x):
        return {transform((x, 0))[0].tobytes() for _ in range(300)}

    assert found(PadCrop(2), images[0]) == expected
    assert found(Flip(), square[0]) == set(ways[:2])
    assert found(Flip(vertical=True), square[0]) == set(ways)
    assert found(QuarterTurn(), square[0]) == set(turns)
    with pytest.raises(ValueError, match="9x12 pixels"):
        QuarterTurn()((images[0], 0))


def dataset(transform=ALL):
    x = np.random.default_rng(1).random((10, 3, 8, 8), np.float32)
    labels = np.arange(10, dtype=np.int32)
    return transformed(TupleDataset(x, labels), [transform])


def read(make, transform=ALL):
    random.seed(0)
    np.random.seed(0)
    iterator = make(dataset(transform), 4)
    batches = [iterator.next() for _ in range(6)]
    getattr(iterator, "finalize", lambda: None)()
    return [x.tobytes() for batch in batches for x, _ in batch]


@pytest.mark.parametrize(
    "make",
    [
        partial(MultiprocessIterator, n_processes=1),
        partial(MultiprocessIterator, n_processes=3, shared_mem=1000),
        partial(MultithreadIterator, n_threads=3),
    ],
    ids=["1 process", "3 processes", "threads"],
)
@pytest.mark.parametrize("transform", [ALL, Augment(2, flip=True)], ids=["all", "one"])
def test_workers_change_nothing(make, transform):
    assert read(make, transform) == read(SerialIterator, transform)


def test_a_batch_is_that_of_the_examples_to_the_last_bit():
    batches = DeviceBatches(dataset(), "@numpy")
    random.seed(0)
    np.random.seed(0)
    iterator = SerialIterator(batches.indices, 4)
    found = [x for _ in range(6) for x in batches(iterator.next())[0]]
    assert [x.tobytes() for x in found] == read(SerialIterator)


def test_another_seed_gives_other_images_and_the_input_stays(images):
    square = np.ascontiguousarray(images[0, :, :, :9])
    before = square.copy()

    def draw(seed):
        random.seed(seed)
        return [ALL((square, 0))[0].tobytes() for _ in range(5)]

    assert draw(0) == draw(0) != draw(1)
    np.testing.assert_array_equal(square, before)
    y, label = ALL((square, np.int32(3)))
    assert (y.dtype, y.shape, label) == (np.float32, (3, 9, 9), 3)


def test_transforms_follow_those_that_are_there():
    whole = TupleDataset(np.ones((4, 1, 2, 2), "f"), np.arange(4))
    assert transformed(whole, []) is whole
    first = transformed(whole, [Brightness(0.5, 0.5)])
    both = transformed(first, [Cutout(2)])
    assert both._dataset is whole  # one layer, for a batch at a time
    assert set(np.unique(both[0][0])) == {0.0, 0.5}
    other = TransformDataset(whole, lambda example: (example[0] / 2, example[1]))
    assert np.unique(transformed(other, [Brightness(0.5, 0.5)])[0][0]) == [0.25]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Cutout(1), "length must be a whole number >= 2, not 1"),
        (lambda: Cutout(2.5), "length must be a whole number >= 2, not 2.5"),
        (lambda: Brightness(2, 1), "the lower first, not 2 and 1"),
        (lambda: Brightness(-1, 1), "low must be a finite number >= 0, not -1"),
        (lambda: Brightness(0, math.inf), "high must be a finite number >= 0, not inf"),
        (lambda: ColourJitter(hue=0.6), r"hue must lie in \[0, 0.5\], not 0.6"),
        (
            lambda: ColourJitter(hue=math.nan),
            "hue must be a finite number >= 0, not nan",
        ),
        (
            lambda: ColourJitter(math.nan),
            "brightness must be a finite number .* not nan",
        ),
        (
            lambda: ColourJitter(contrast=-1),
            "contrast must be a finite number .* not -1",
        ),
        (lambda: Augment(-1), "padding must be a whole number >= 0, not -1"),
        (lambda: Augment(1, math.nan), "angle must be a finite number >= 0, not nan"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("given", [[Cutout], Cutout(2), [lambda example: example]])
def test_what_is_no_list_of_transforms(given):
    whole = TupleDataset(np.ones((4, 1, 2, 2), "f"), np.arange(4))
    for data in (whole, transformed(whole, [Cutout(2)])):
        with pytest.raises(
            TypeError, match=r"must be a list such as \[Flip\(\)\], not"
        ):
            transformed(data, given)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("transform", ALL.transforms)
def test_images_of_another_float_dtype_keep_it(images, transform, dtype):
    image = images[0, :, :, :9].astype(dtype)
    found, expected = (
        TransformDataset([(x, 0)], transform) for x in (image, image.astype(np.float32))
    )
    random.seed(3)
    found, _ = found[0]
    random.seed(3)
    expected, _ = expected[0]
    assert found.dtype == dtype and expected.dtype == np.float32
    np.testing.assert_array_equal(found, expected.astype(dtype))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
@pytest.mark.parametrize("transform", ALL.transforms)
def test_images_of_an_integer_dtype_are_an_error(images, transform, dtype):
    image = (200 * images[0, :, :, :9]).astype(dtype)
    with pytest.raises(ValueError, match=f"dtype {np.dtype(dtype)} cannot .* float32"):
        transform((image, 0))


@pytest.mark.parametrize(
    "transform", [Brightness(0.5, 1.5), ColourJitter(contrast=0.4)]
)
def test_images_beyond_0_and_1_have_no_brightness(images, transform):
    for low, high in ((0, 255), (-1, 1)):
        x = low + (high - low) * images[:1]
        match = f"from {x.min():.4g} to {x.max():.4g}: divide"
        with pytest.raises(ValueError, match=match):
            transform((x[0], 0))
    x = np.full((3, 2, 2), np.nextafter(np.float32(1), np.float32(2)))
    assert transform((x, 0))[0].max() <= 1
