import numpy as np
from chainer.serializers import load_npz, save_npz

from chainer_mmix.mixing import MixupDraw
from chainer_mmix.training.extensions.mixup_counter import MixupCounter


def test_one_that_another_rank_sent_can_be_saved_and_restored(tmp_path):
    counter = MixupCounter(["0", "none"])
    counter.add("0", MixupDraw(0, 0.3, np.arange(4)))
    counter.loss.add({"0": (np.float32(2), 3)})
    counter.loss.add({"0": (np.float32(5), 1)})
    sent = MixupCounter.load(counter.dump())
    save_npz(tmp_path / "counter.npz", sent)
    found = MixupCounter(["0", "none"])
    load_npz(tmp_path / "counter.npz", found)
    assert (found.layer, found.method["mixup"]) == ({"0": 1, "none": 0}, 1)
    np.testing.assert_array_equal(found.lam, counter.lam)
    assert found.loss.compute_mean() == {"0": 2.75}
