import random

import numpy as np
import pytest
from chainer.datasets import TransformDataset, TupleDataset
from chainer.iterators import MultiprocessIterator, SerialIterator
from chainercv import transforms
from scipy import ndimage

from chainer_mmix.datasets import DATASETS, Augment


@pytest.fixture
def image():
    return np.random.default_rng(0).random((3, 8, 8), np.float32)


def test_crop_is_a_shift_by_at_most_the_padding(image):
    augment = Augment(padding=2, angle=0)
    padded = np.pad(image, ((0, 0), (2, 2), (2, 2)))
    shifts = {
        padded[:, y : y + 8, x : x + 8].tobytes() for y in range(5) for x in range(5)
    }
    random.seed(0)
    found = {augment((image, 3))[0].tobytes() for _ in range(300)}
    assert found == shifts


def test_flip_mirrors_half_of_the_images(image):
    random.seed(0)
    augment = Augment(padding=0, angle=0, flip=True)
    found = [augment((image, 3))[0] for _ in range(200)]
    flipped = [np.array_equal(x, image[:, :, ::-1]) for x in found]
    same = [np.array_equal(x, image) for x in found]
    assert 70 < sum(flipped) < 130
    assert sum(same) + sum(flipped) == 200


def test_rotation_is_within_the_angle():
    ramp = np.zeros((1, 33, 33), np.float32)
    ramp[0, 16, :] = 1
    augment = Augment(padding=0, angle=10)
    random.seed(0)
    angles = []
    for _ in range(100):
        rotated, _ = augment((ramp, 0))
        y, x = np.nonzero(rotated[0] > 0.5)
        angles.append(np.degrees(np.arctan(np.polyfit(x, y, 1)[0])))
    assert -11 < min(angles) < -8
    assert 8 < max(angles) < 11


def test_rotation_interpolates_as_scipy_does(image, monkeypatch):
    monkeypatch.setattr(random, "uniform", lambda a, b: b)
    rotated, _ = Augment(padding=0, angle=7)((image, 0))
    expected = ndimage.rotate(image, 7, axes=(1, 2), reshape=False, order=1)
    np.testing.assert_allclose(
        rotated[:, 2:-2, 2:-2], expected[:, 2:-2, 2:-2], atol=1e-2
    )


@pytest.mark.parametrize("name", DATASETS)
def test_shape_dtype_label_and_input_are_kept(name):
    shape = (1, 8, 8) if name == "digits" else (3, 32, 32)
    image = np.random.default_rng(0).random(shape, np.float32)
    before = image.copy()
    label = np.int32(3)
    augmented, same_label = DATASETS[name].augment((image, label))
    assert augmented.shape == shape
    assert augmented.dtype == np.float32
    assert same_label is label
    np.testing.assert_array_equal(image, before)


def test_one_seed_gives_one_result(image):
    augment = Augment(padding=2, flip=True)

    def draw(seed):
        random.seed(seed)
        return [augment((image, 0))[0].tobytes() for _ in range(5)]

    numpy_state = np.random.get_state()[1].tolist()
    assert draw(0) == draw(0)
    assert draw(0) != draw(1)
    assert np.random.get_state()[1].tolist() == numpy_state


def test_digits_are_never_flipped():
    assert not DATASETS["digits"].augment.flip
    assert DATASETS["cifar10"].augment.flip
    assert DATASETS["cifar100"].augment.flip


@pytest.mark.parametrize("flip", [False, True])
def test_the_draws_are_those_of_chainercv(image, flip):
    augment = Augment(padding=2, angle=0, flip=flip)
    padded = np.pad(image, ((0, 0), (2, 2), (2, 2)))
    for seed in range(20):
        random.seed(seed)
        random.uniform(0, 0)
        expected = transforms.random_crop(padded, (8, 8))
        expected = transforms.random_flip(expected, x_random=flip)
        following = random.random()
        random.seed(seed)
        np.testing.assert_array_equal(augment((image, 0))[0], expected)
        assert random.random() == following


def test_a_subclass_may_draw_by_itself():
    class Angle(Augment):
        def __call__(self, example):
            return np.float32(self.draw().angle), example[1]

    def angles(iterate, **options):
        random.seed(0)
        data = TransformDataset(TupleDataset(range(12), range(12)), Angle(1))
        iterator = iterate(data, 4, repeat=False, shuffle=False, **options)
        found = [float(angle) for batch in iterator for angle, _ in batch]
        iterator.finalize()
        return found

    serial = angles(SerialIterator)
    assert len(set(serial)) == 12
    assert angles(MultiprocessIterator, n_processes=2) == serial
