"""Pairs of images, and their mixtures at the input."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from chainer_mmix.mixing.functions import cutmix, mix
from chainer_mmix.mixing.policy import MixupPolicy

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class MixedPair(NamedTuple):
    """Two images and their mixture.

    Attributes:
        method (str): ``"mixup"`` or ``"CutMix"``.
        images (tuple of numpy.ndarray): The first image, the second and the mixed one,
            of shape (C, H, W).
        targets (tuple): The targets of the first and of the second.
        lam (float): The weight of the first.
    """

    method: str
    images: tuple[np.ndarray, np.ndarray, np.ndarray]
    targets: tuple
    lam: float


def mixed_pairs(policy: MixupPolicy, x: np.ndarray, t: np.ndarray) -> list[MixedPair]:
    """Mixes images as a policy does in minibatches of them.

    Each image is the first partner of one pair a method, of a draw of its own. The
    draws come from a copy of the policy: its own draws stay the same.

    Args:
        policy (MixupPolicy): The policy. Its mixing points and ``prob`` do not count.
        x (numpy.ndarray): Images, a float array of shape (N, C, H, W).
        t (numpy.ndarray): Their targets, an array of shape (N, ...).

    Returns:
        list of MixedPair: Those of mixup, then those of CutMix, as the policy has
        either.
    """
    policy = copy.deepcopy(policy)
    policy.prob = 1.0
    pairs = []
    for method, share, alpha in (
        ("mixup", 0.0, policy.alpha),
        ("CutMix", 1.0, policy.cutmix_alpha),
    ):
        policy.switch_prob = share
        for n in range(len(x) if alpha > 0 else 0):
            draw = policy.draw(len(x))
            if draw.center is None:
                mixed, lam = mix(x, draw.lam, draw.perm), draw.lam
            else:
                mixed, lam = cutmix(x, draw.lam, draw.perm, draw.center)
            m = draw.perm[n]
            images = x[n], x[m], mixed.array[n]
            lam = float(np.broadcast_to(lam, len(x))[n])
            pairs.append(MixedPair(method, images, (t[n], t[m]), lam))
    return pairs


def plot_pairs(
    pairs: Sequence[MixedPair], label_names: Sequence[str] | None = None
) -> Figure:
    """Draws pairs in a grid, one a row, mixup on the left and CutMix on the right.

    A row shows the first image, the second and the mixed one, with labels and the
    weights of both. The brightness is stretched from the smallest to the largest value
    of all images.

    Args:
        pairs (sequence of MixedPair): At least one. Their images have one channel
            or three.
        label_names (sequence of str): The names of the classes. By default they are
            numbers.

    Returns:
        matplotlib.figure.Figure: The figure.
    """
    from matplotlib.figure import Figure

    def name(target) -> str:
        # Soft targets have no name but that of the most probable class.
        label = target.argmax() if np.ndim(target) else target.item()
        return f"{label:.3g}" if label_names is None else label_names[label]

    methods = list(dict.fromkeys(pair.method for pair in pairs))
    blocks = [[pair for pair in pairs if pair.method == m] for m in methods]
    values = np.concatenate([np.ravel(pair.images[:2]) for pair in pairs])
    low, high = float(values.min()), float(values.max())
    n_rows = max(map(len, blocks))
    figure = Figure(
        figsize=(4.8 * len(blocks), 0.5 + 1.75 * n_rows), layout="constrained"
    )
    parts = figure.subfigures(1, len(blocks), squeeze=False)[0]
    for part, method, block in zip(parts, methods, blocks, strict=True):
        part.suptitle(f"{method}: λ × first + (1 − λ) × second")
        grid = part.subplots(n_rows, 3, squeeze=False)
        for row, pair in zip(grid, block, strict=True):
            first, second = map(name, pair.targets)
            weights = f"{pair.lam:.2f} × {first}\n+ {1 - pair.lam:.2f} × {second}"
            titles = f"first:\n{first}", f"second:\n{second}", weights
            for axes, image, title in zip(row, pair.images, titles, strict=True):
                image = (np.moveaxis(image, 0, -1) - low) / max(high - low, 1e-12)
                if image.shape[-1] == 1:
                    image = image[..., 0]
                axes.imshow(image.clip(0, 1), cmap="gray", vmin=0, vmax=1)
                axes.set_title(title, fontsize="small")
                axes.set_axis_off()
    return figure
