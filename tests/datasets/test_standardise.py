import numpy as np
import pytest
from chainer.datasets import TupleDataset

from chainer_mmix.datasets import get_folder, standardisation


def dataset(images):
    return TupleDataset(images, np.arange(len(images)))


def test_constants_are_those_of_numpy():
    x = np.random.default_rng(0).gamma(2, 0.1, (40, 3, 7, 5)).astype(np.float32)
    x[:, 1] *= 0.3
    wide = np.float64(x)
    mean, std = standardisation("channel", dataset(x))
    np.testing.assert_allclose(mean, wide.mean(axis=(0, 2, 3)), 1e-12)
    np.testing.assert_allclose(std, wide.std(axis=(0, 2, 3)), 1e-10)
    mean, std = standardisation("all", dataset(x))
    np.testing.assert_allclose((*mean, *std), (wide.mean(), wide.std()), 1e-10)
    assert standardisation("half", dataset(x)) == ((0.5,), (0.5,))
    assert standardisation("image", dataset(x)) is None


def test_of_a_folder_too_and_always_the_same(tmp_path, draw_picture):
    for name in "ab":
        for i in range(6):
            draw_picture(tmp_path / name / f"{i}.png")
    train = get_folder(tmp_path, size=8, validation_split=0.5).train
    first = standardisation("channel", train)
    x = np.float64([image for image, _ in train])
    np.testing.assert_allclose(first.mean, x.mean(axis=(0, 2, 3)), 1e-12)
    assert len(x) == 6 and standardisation("channel", train) == first


@pytest.mark.parametrize(
    "kind, x, message",
    [
        ("mean", np.zeros((4, 1, 2, 2)), "kind of standardisation 'mean'"),
        ("channel", np.zeros((4, 7)), r"not \(7,\)"),
        ("channel", np.ones((4, 2, 3, 3)), "the same everywhere"),
    ],
)
def test_bad_input(kind, x, message):
    with pytest.raises(ValueError, match=message):
        standardisation(kind, dataset(np.float32(x)))


@pytest.mark.parametrize("size", [1, 9])
def test_images_of_several_shapes_are_an_error(size):
    rng = np.random.default_rng(0)
    images = [rng.random((1, n, n), np.float32) for n in (3, size)]
    with pytest.raises(ValueError, match=rf"\(1, 3, 3\) and \(1, {size}, {size}\)"):
        standardisation("channel", [(x, 0) for x in images])
