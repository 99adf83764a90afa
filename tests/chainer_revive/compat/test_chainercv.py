import numpy as np
import pytest
from chainercv.links.model.fpn import bbox_head, mask_head
from chainercv.utils import bbox_iou, non_maximum_suppression
from chainercv.utils.download import cached_download
from hypothesis import given, settings
from hypothesis import strategies as st

from chainer_revive.compat.nms_gpu_post import _nms_gpu_post


def test_the_extension_is_replaced():
    from chainercv.utils.bbox import _nms_gpu_post as module

    assert callable(module._nms_gpu_post)


def suppression_mask(boxes, threshold):
    """What ChainerCV's CUDA kernel computes: bits of the later boxes that overlap."""
    n, blocks = len(boxes), -(-len(boxes) // 64)
    mask = np.zeros((n, blocks), np.uint64)
    overlaps = bbox_iou(boxes, boxes) >= threshold
    for i, j in zip(*np.nonzero(np.triu(overlaps, 1)), strict=True):
        mask[i, j // 64] |= np.uint64(1) << np.uint64(j % 64)
    return mask.reshape(-1), blocks


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 200), st.floats(0.05, 0.95), st.integers(0, 2**32 - 1))
def test_selects_the_boxes_of_the_cpu_function(n, threshold, seed):
    corner, size = np.random.default_rng(seed).uniform(1, 8, (2, n, 2))
    boxes = np.concatenate([corner, corner + size], axis=1).astype(np.float32)
    mask, blocks = suppression_mask(boxes, threshold)
    selection, count = _nms_gpu_post(mask, n, 64, blocks)
    expected = non_maximum_suppression(boxes, threshold)
    assert selection.dtype == np.int32 and selection.shape == (n,)
    np.testing.assert_array_equal(selection[:count], expected)


@pytest.mark.parametrize(("word", "progress"), [("OFF", False), ("On", True)])
def test_download_report(monkeypatch, tmp_path, capsys, word, progress):
    monkeypatch.setenv("CHAINERCV_DOWNLOAD_REPORT", word)
    monkeypatch.setenv("CHAINER_DATASET_ROOT", str(tmp_path / "root"))
    monkeypatch.setattr(
        "chainer.dataset.download._dataset_root", str(tmp_path / "root")
    )
    source = tmp_path / "source"
    source.write_bytes(b"content")
    with open(cached_download(source.as_uri()), "rb") as file:
        assert file.read() == b"content"
    assert ("Downloading" in capsys.readouterr().out) == progress


def test_feature_pyramid_losses_take_lists_of_levels():
    rois = [np.array([[0, 0, 9, 9]], "f"), np.array([[1, 1, 8, 8]], "f")]
    indices = [np.array([0], "i"), np.array([0], "i")]
    boxes, labels = [np.array([[0, 0, 9, 9]], "f")], [np.array([0], "i")]
    got, _, _, got_labels = bbox_head.bbox_head_loss_pre(
        rois, indices, [(0.1, 0.2)] * 2, boxes, labels
    )
    assert [len(r) for r in got] == [1, 1]
    assert [list(level) for level in got_labels] == [[1], [1]]
    masks, background = [np.ones((1, 10, 10), bool)], [np.array([0], "i")] * 2
    got, _, _, _ = mask_head.mask_head_loss_pre(
        rois, indices, masks, boxes, background, 4
    )
    assert [r.shape for r in got] == [(0, 4), (0, 4)]
