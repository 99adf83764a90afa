"""Pairs of images, and their mixtures at the input."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from chainer_mmix.analysis.figure import shortened
from chainer_mmix.mixing.batch import mixup_data
from chainer_mmix.mixing.draw import using_draw
from chainer_mmix.mixing.policy import MixupPolicy
from chainer_mmix.mixing.regions import NAMES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_OFF = {  # the attributes of a policy that switch methods on
    "alpha": ("mixup", 0.0),
    "cutmix_alpha": ("cutmix", 0.0),
    "cutmix_minmax": ("cutmix", None),
    "fmix_alpha": ("fmix", 0.0),
    "resizemix_minmax": ("resizemix", None),
}


_HOW = {
    "mixup": "λ × first + (1 − λ) × second",
    "CutMix": "a box of the second in the first",
    "FMix": "places of the second in the first",
    "ResizeMix": "the second, made smaller, in the first",
}
_LONGEST = 12  # characters of a class's name that have room


class MixedPair(NamedTuple):
    """Two images and their mixture.

    Attributes:
        method (str): ``"mixup"``, ``"CutMix"``, ``"FMix"`` or ``"ResizeMix"``.
        images (tuple of numpy.ndarray): The first image, the second and the mixed one,
            of shape (C, H, W).
        targets (tuple): The targets of the first and of the second.
        lam (float): The weight of the first.
        mixed_targets (tuple): Both targets of the mixed one: other than ``targets``,
            and one and the same, where places of label maps were pasted.
    """

    method: str
    images: tuple[np.ndarray, np.ndarray, np.ndarray]
    targets: tuple
    lam: float
    mixed_targets: tuple


def mixed_pairs(policy: MixupPolicy, x: np.ndarray, t: np.ndarray) -> list[MixedPair]:
    """Mixes images as a policy does in minibatches of them.

    Each image is the first partner of one pair a method, of a draw of its own. The
    draws come from a copy of the policy: its own draws stay the same.

    Args:
        policy (MixupPolicy): The policy. Its mixing points and ``prob`` do not count.
        x (numpy.ndarray): Images, a float array of shape (N, C, H, W).
        t (numpy.ndarray): Their targets, an array of shape (N, ...).

    Returns:
        list of MixedPair: Those of mixup, then those of CutMix, FMix and ResizeMix, as
        the policy has them.
    """
    pairs = []
    has_mixup = ("mixup",) if policy.alpha > 0 else ()
    rng = copy.deepcopy(policy._rng)
    for method in (*has_mixup, *policy.pastes):
        alone = copy.copy(policy)
        alone._rng, alone.prob = rng, 1.0
        for name, (other, value) in _OFF.items():
            if other != method:
                setattr(alone, name, value)
        for n in range(len(x)):
            draw = alone.draw(len(x))
            assert draw is not None
            with using_draw(draw) as mixture:
                mixed, a, b = mixup_data(x, t, draw.lam)
            m = draw.perm[n]
            images = x[n], x[m], mixed[n]
            lam = float(np.broadcast_to(mixture.draw.lam, len(x))[n])
            name = NAMES.get(method, method)
            pairs.append(MixedPair(name, images, (t[n], t[m]), lam, (a[n], b[n])))
    return pairs


def plot_pairs(
    pairs: Sequence[MixedPair],
    label_names: Sequence[str] | None = None,
    ignore_label: int | None = None,
) -> Figure:
    """Draws pairs in a grid, one a row, the methods side by side.

    A row shows the first image, the second and the mixed one, with labels and the
    weights of both. The brightness is stretched from the smallest to the largest value
    of all images. Below images whose targets are of each place are their labels in
    colours, for mixed probabilities or labels mixed as they are.

    Args:
        pairs (sequence of MixedPair): At least one. Their images have one channel
            or three.
        label_names (sequence of str): The names of the classes. By default they are
            numbers.
        ignore_label (int): Places with this label are white.

    Returns:
        matplotlib.figure.Figure: The figure.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    palette = _palette()

    def name(target) -> str:
        # Soft targets have no name but that of the most probable class.
        label = target.argmax() if np.ndim(target) else target.item()
        is_known = label_names is not None and label >= 0  # -1 may stand for no label
        name = label_names[label] if is_known else f"{label:.3g}"
        return shortened(name, _LONGEST)

    is_dense = np.ndim(pairs[0].targets[0]) > 1
    methods = list(dict.fromkeys(pair.method for pair in pairs))
    blocks = [[pair for pair in pairs if pair.method == m] for m in methods]
    values = np.concatenate([np.ravel(pair.images[:2]) for pair in pairs])
    low, high = float(values.min()), float(values.max())
    n_rows = max(map(len, blocks)) * (1 + is_dense)
    figure = Figure(
        figsize=(4.8 * len(blocks), 0.7 + 1.85 * n_rows), layout="constrained"
    )
    parts = figure.subfigures(1, len(blocks), squeeze=False)[0]
    for part, method, block in zip(parts, methods, blocks, strict=True):
        part.suptitle(f"{method} at the input:\n{_HOW[method]}")
        grid = part.subplots(n_rows, 3, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for row, pair in zip(grid[:: 1 + is_dense], block, strict=True):
            if is_dense:
                first, second = "first", "second"
                titles: tuple = first, second
            else:
                first, second = map(name, pair.targets)
                titles = f"first:\n{first}", f"second:\n{second}"
            weights = f"{pair.lam:.2f} × {first}\n+ {1 - pair.lam:.2f} × {second}"
            titles = *titles, f"mixed:\n{weights}"
            for axes, image, title in zip(row, pair.images, titles, strict=True):
                image = (np.moveaxis(image, 0, -1) - low) / max(high - low, 1e-12)
                if image.shape[-1] == 1:
                    image = image[..., 0]
                axes.imshow(image.clip(0, 1), cmap="gray", vmin=0, vmax=1)
                axes.set_title(title, fontsize="small")
        if not is_dense:
            continue
        for row, pair in zip(grid[1::2], block, strict=True):
            first, second, a, b = (
                _colours(t, palette, ignore_label)
                for t in (*pair.targets, *pair.mixed_targets)
            )
            mixed = pair.lam * a + (1 - pair.lam) * b
            for axes, image in zip(row, (first, second, mixed), strict=True):
                axes.imshow(image)
        if label_names is not None:
            handles = [
                Patch(color=palette[k % len(palette)], label=label_names[k])
                for k in _classes(block)
                if 0 <= k < len(label_names)
            ]
            part.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def _palette() -> np.ndarray:
    from matplotlib import colormaps

    pairs = np.array(colormaps["tab20"].colors)  # a colour, and a pale one like it
    return np.concatenate((pairs[::2], pairs[1::2]))


def _colours(t: np.ndarray, palette: np.ndarray, ignore_label: int | None):
    """Returns a picture (H, W, 3) of labels (H, W) or of probabilities (C, H, W)."""
    if t.ndim == 3:
        colours = palette[np.arange(len(t)) % len(palette)]
        return np.tensordot(t, colours, (0, 0)).clip(0, 1)
    picture = palette[t.astype(int) % len(palette)]
    if ignore_label is not None:
        picture[t == ignore_label] = 1
    return picture


def _classes(pairs: Sequence[MixedPair]) -> np.ndarray:
    """Returns the classes that occur in label maps, or maps of probabilities."""
    maps = [t for pair in pairs for t in pair.targets]
    if maps[0].ndim == 3:
        return np.arange(len(maps[0]))
    return np.unique(np.stack(maps).astype(int))
