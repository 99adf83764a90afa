"""Training by several processes, the ranks of a communicator of ChainerMN."""

from chainer_mmix.training.multinode.launch import join, start, started_ranks
from chainer_mmix.training.multinode.observation_mean import ObservationMean
from chainer_mmix.training.multinode.rank_snapshot import RankSnapshot
from chainer_mmix.training.multinode.rank_states import RankStates
from chainer_mmix.training.multinode.ranks import Ranks, RanksError
from chainer_mmix.training.multinode.shared_order import SharedOrder
from chainer_mmix.training.multinode.sync_bn import synchronize_statistics
from chainer_mmix.training.multinode.watchdog import Watchdog

__all__ = [
    "ObservationMean",
    "RankSnapshot",
    "RankStates",
    "Ranks",
    "RanksError",
    "SharedOrder",
    "Watchdog",
    "join",
    "start",
    "started_ranks",
    "synchronize_statistics",
]
