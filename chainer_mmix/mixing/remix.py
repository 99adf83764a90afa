from __future__ import annotations

import dataclasses

import chainer
import numpy as np
from chainer.backends import cuda

from chainer_mmix.checks import check_number, check_share
from chainer_mmix.mixing.weights import DeviceWeights, Weights


@dataclasses.dataclass(frozen=True, eq=False)
class Remix:
    r"""Gives mixtures of a frequent and a rare class the label of the rare one.

    The samples are mixed by :math:`\lambda` as usual. If the class of the first partner
    has :math:`n_i` examples and that of the second :math:`n_j`, their labels weigh

    - 0 and 1 if :math:`n_i \ge \kappa n_j` and :math:`\lambda < \tau`,
    - 1 and 0 if :math:`n_j \ge \kappa n_i` and :math:`1 - \lambda < \tau`,
    - :math:`\lambda` and :math:`1 - \lambda` otherwise.

    Source: arXiv 2007.03943.

    Args:
        class_counts (array): The number of training examples of each class, of shape
            :math:`(C,)`.
        kappa (float): The least ratio of the class counts at which the smaller class is
            rare, at least 1. The default is 3, as in the paper.
        tau (float): The weight in :math:`[0, 1]` below which a sample of the frequent
            class loses its label. The default is 0.5, as in the paper.

    Raises:
        ValueError: If an argument is out of its range.
    """

    class_counts: np.ndarray
    kappa: float = 3.0
    tau: float = 0.5

    def __post_init__(self) -> None:
        counts = np.array(self.class_counts, np.float64)
        if counts.ndim != 1 or not (np.isfinite(counts) & (counts >= 0)).all():
            raise ValueError(
                f"class_counts must be a number of examples a class, not {counts}"
            )
        check_number("kappa", self.kappa, 1)
        check_share("tau", self.tau)
        object.__setattr__(self, "class_counts", counts)

    def weights(self, lam, target_a, target_b) -> Weights:
        r"""Returns the weights of the labels.

        Args:
            lam (float, array or Weights): The weight of the first partners' samples.
            target_a (array): Labels of the first partners, an integer array of shape
                :math:`(N,)`. A label outside the classes, such as one to be ignored,
                has the weight of its sample.
            target_b (array): Labels of the second partners, in the same form.

        Returns:
            Weights: One pair for each sample.

        Raises:
            TypeError: If the targets are not labels, or :math:`\lambda` is on a device.
        """
        weights = Weights.of(lam, len(target_a))
        if isinstance(weights, DeviceWeights):
            raise TypeError("Remix needs lambda on the host")
        n = len(self.class_counts)
        counts = []
        for t in map(chainer.as_array, (target_a, target_b)):
            if t.dtype.kind not in "iu" or t.ndim != 1:
                raise TypeError(
                    "Remix takes one class label a sample, an integer array of shape "
                    f"(N,), not {t.dtype} of shape {t.shape}"
                )
            t = cuda.to_cpu(chainer.as_array(t))
            is_class = (t >= 0) & (t < n)
            counts.append(
                np.where(is_class, self.class_counts[t.clip(0, n - 1)], np.nan)
            )
        a, b = counts
        first, second = np.broadcast_arrays(*weights.pair, a)[:2]
        of_second = (a >= self.kappa * b) & (first < self.tau)
        of_first = (b >= self.kappa * a) & (second < self.tau)
        return Weights.of(np.select([of_second, of_first], [0, 1], first), len(a))
