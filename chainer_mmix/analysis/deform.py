"""Deformed images, which a network has not seen in training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import chainer
import numpy as np

from chainer_mmix.analysis.predictions import accuracies, to_host

# Those of Table 4 of arXiv 1806.05236; 28.6 and 57.3 degrees are 0.5 and 1 radians.
DEFORMATIONS = (
    *(("rotation", 20.0), ("rotation", 40.0)),
    *(("shear", 28.6), ("shear", 57.3)),
    *(("zoom", 0.6), ("zoom", 0.8), ("zoom", 1.2), ("zoom", 1.4)),
)


def deformed_accuracy(
    classifier: chainer.Link,
    batches: Iterable[tuple],
    deformations: Sequence[tuple[str, float]] = DEFORMATIONS,
    seed: int = 0,
) -> dict[str, float]:
    """Measures the accuracy on deformed images.

    Args:
        classifier (~chainer.Link): A link with a predictor of one input, images.
        batches (iterable of tuple): Images of shape (N, C, H, W), and targets.
        deformations (sequence of tuple): Kinds and amounts; see :func:`deform`.
        seed (int): For the angles, which are drawn anew for each deformation.

    Returns:
        dict: The accuracies, named ``deformed_accuracy/<kind>_<amount>``.

    Raises:
        TypeError: As for :func:`~chainer_mmix.analysis.predictions.accuracies`.
        ValueError: If the inputs are no images.
    """
    rngs = {d: np.random.default_rng(seed) for d in deformations}

    def deformed(x, t):
        if t.ndim > 2 or (t.ndim == 2 and t.dtype.kind != "f"):
            raise TypeError(
                f"targets of shape {t.shape} are not one class an image, which "
                "deformed images need"
            )
        images, device = to_host(x), chainer.backend.get_device_from_array(x)
        for (kind, amount), rng in rngs.items():
            changed = deform(images, kind, amount, rng)
            yield f"deformed_accuracy/{kind}_{amount:g}", device.send(changed)

    return accuracies(classifier, batches, deformed, "the accuracy on deformed images")


def deform(
    images: np.ndarray, kind: str, amount: float, rng: np.random.Generator
) -> np.ndarray:
    """Deforms images, each by an amount of its own.

    Source: the deformations of Table 4 of arXiv 1806.05236. It gives their names
    and amounts; their definitions follow Keras.

    Args:
        images (numpy.ndarray): Array of shape (N, C, H, W).
        kind (str): ``"rotation"`` and ``"shear"`` by angles that are uniform between
            -``amount`` and ``amount`` degrees; ``"zoom"`` so that ``amount`` times the
            height and width of an image fill the frame: below 1 it zooms in.
        amount (float): See ``kind``.
        rng (numpy.random.Generator): Where the angles are drawn from.

    Returns:
        numpy.ndarray: The deformed images, of the same shape and dtype.

    Raises:
        ValueError: If there is no such kind, or ``images`` has another shape.
    """
    check_kind(kind)
    if images.ndim != 4:
        raise ValueError(
            f"images of shape (N, C, H, W) can be deformed, not {images.shape}"
        )
    if kind == "zoom":
        matrices = np.broadcast_to(amount * np.eye(2), (len(images), 2, 2))
    else:
        angles = np.deg2rad(rng.uniform(-amount, amount, len(images)))
        matrix = {"rotation": rotation, "shear": shear}[kind]
        matrices = [matrix(angle) for angle in angles]
    pairs = zip(images, matrices, strict=True)
    return np.stack([transform(image, matrix) for image, matrix in pairs])


def check_kind(kind: str) -> None:
    """Raises a ValueError if there is no such kind of deformation."""
    kinds = tuple(dict.fromkeys(kind for kind, _ in DEFORMATIONS))
    if kind not in kinds:
        raise ValueError(
            f"there is no deformation {kind!r}; there are {', '.join(kinds)}"
        )


def rotation(angle: float) -> np.ndarray:
    """Returns the matrix of a rotation, anticlockwise, for :func:`transform`.

    Args:
        angle (float): In radians.
    """
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, s], [-s, c]])


def shear(angle: float) -> np.ndarray:
    """Returns the matrix of a shear for :func:`transform`, as Keras defines it.

    Args:
        angle (float): In radians.
    """
    return np.array([[1, -np.sin(angle)], [0, np.cos(angle)]])


def transform(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Transforms an image around its centre, with bilinear interpolation.

    Outside the image, the nearest pixel of its border is repeated.

    Args:
        image (numpy.ndarray): Array of shape (C, H, W). Whole numbers are rounded.
        matrix (numpy.ndarray): Array of shape (2, 2), from (row, column) in the result
            to (row, column) in the image, both from the centre.

    Returns:
        numpy.ndarray: An image of the same shape and dtype.
    """
    from scipy import ndimage  # a tenth of the time to import Chainer

    centre = (np.array(image.shape[1:]) - 1) / 2
    offset = centre - matrix @ centre
    channels = [
        ndimage.affine_transform(channel, matrix, offset, order=1, mode="nearest")
        for channel in image.astype(np.float64)  # it does not know float16
    ]
    result = np.stack(channels)
    if image.dtype.kind in "iu":
        result = np.rint(result)
    return result.astype(image.dtype)
