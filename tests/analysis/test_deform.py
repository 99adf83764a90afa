import numpy as np
import pytest

from chainer_mmix.analysis.deform import (
    DEFORMATIONS,
    deform,
    rotation,
    shear,
    transform,
)


def reference(channel, matrix):
    """Bilinear interpolation, pixel by pixel."""
    h, w = channel.shape
    centre = np.array([(h - 1) / 2, (w - 1) / 2])
    result = np.empty((h, w))
    for i in range(h):
        for j in range(w):
            place = matrix @ ([i, j] - centre) + centre
            y, x = np.clip(place, 0, [h - 1, w - 1])
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            top = (1 - x + x0) * channel[y0, x0] + (x - x0) * channel[y0, x1]
            bottom = (1 - x + x0) * channel[y1, x0] + (x - x0) * channel[y1, x1]
            result[i, j] = (1 - y + y0) * top + (y - y0) * bottom
    return result


@pytest.fixture
def images():
    return np.random.default_rng(0).random((5, 2, 7, 7)).astype(np.float32)


def test_a_quarter_turn_is_anticlockwise(images):
    turned = transform(images[0], rotation(np.pi / 2))
    np.testing.assert_allclose(turned, np.rot90(images[0], axes=(1, 2)), rtol=1e-6)


def test_zooming_shows_a_share_of_the_image_around_its_centre():
    ramp = np.tile(np.arange(9, dtype=np.float32), (9, 1))[None]
    for amount, row in (
        (0.5, [2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5, 6]),
        (2.0, [0, 0, 0, 2, 4, 6, 8, 8, 8]),  # the border goes on
    ):
        (zoomed,) = deform(ramp[None], "zoom", amount, None)
        np.testing.assert_allclose(zoomed, [[row] * 9])


def test_shear_moves_columns_up_and_down_and_squeezes():
    angle = np.pi / 6
    np.testing.assert_allclose(shear(angle), [[1, -0.5], [0, np.sqrt(0.75)]])
    image = np.zeros((1, 5, 5), np.float32)
    image[0, 2] = 1  # a horizontal line
    sheared = transform(image, shear(angle))[0]
    np.testing.assert_array_equal(sheared.argmax(axis=0)[[0, 2, 4]], [1, 2, 3])


@pytest.mark.parametrize("kind,amount", [("rotation", 40), ("shear", 57.3)])
def test_each_image_has_an_angle_of_its_own(images, kind, amount):
    found = deform(images, kind, amount, np.random.default_rng(3))
    assert found.dtype == np.float32
    angles = np.random.default_rng(3).uniform(-1, 1, 5) * amount * np.pi / 180
    for image, result, angle in zip(images, found, angles, strict=True):
        c, s = np.cos(angle), np.sin(angle)
        matrix = [[c, s], [-s, c]] if kind == "rotation" else [[1, -s], [0, c]]
        for channel, expected in zip(image, result, strict=True):
            np.testing.assert_allclose(
                reference(channel, np.array(matrix)), expected, atol=1e-5
            )


def test_zoom_is_the_same_for_all_and_half_precision_works(images):
    found = deform(images.astype(np.float16), "zoom", 0.8, None)
    assert found.dtype == np.float16
    expected = [[reference(c, 0.8 * np.eye(2)) for c in image] for image in images]
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("kind, amount", [("rotation", 40.0), ("zoom", 0.8)])
def test_bytes_are_rounded(images, kind, amount):
    images = np.uint8(255 * images / images.max())
    whole = deform(images, kind, amount, np.random.default_rng(0))
    exact = deform(images.astype(np.float64), kind, amount, np.random.default_rng(0))
    assert whole.dtype == np.uint8
    assert np.abs(whole - exact).max() <= 0.5 + 1e-9


def test_the_deformations_are_those_of_the_paper():
    assert [amount for kind, amount in DEFORMATIONS if kind == "rotation"] == [20, 40]
    angles = [amount for kind, amount in DEFORMATIONS if kind == "shear"]
    np.testing.assert_allclose(np.deg2rad(angles), [0.5, 1], atol=1e-3)
    zooms = [amount for kind, amount in DEFORMATIONS if kind == "zoom"]
    assert zooms == [0.6, 0.8, 1.2, 1.4]


def test_what_cannot_be_deformed_is_an_error(images):
    with pytest.raises(ValueError, match="'twist'; there are rotation, shear, zoom"):
        deform(images, "twist", 1, None)
    with pytest.raises(ValueError, match=r"not \(2, 7, 7\)"):
        deform(images[0], "zoom", 1, None)
