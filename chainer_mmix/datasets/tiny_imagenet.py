from __future__ import annotations

import os
import zipfile
from pathlib import Path

from chainer_mmix.datasets.download import RemoteFile, fetch, find_unpacked, unpacking
from chainer_mmix.datasets.picture_dataset import PictureDataset

_FOLDER = "tiny-imagenet-200"
_FILE = RemoteFile(
    f"http://cs231n.stanford.edu/{_FOLDER}.zip",
    ("6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",),
)
_SIZE = 64


def get_tiny_imagenet(
    data_root: str | os.PathLike | None = None,
) -> tuple[PictureDataset, PictureDataset]:
    """Gets Tiny-ImageNet: 100000 training and 10000 validation pictures of 200 classes.

    The archive is unpacked into a folder ``tiny-imagenet-200`` beside it, and if that
    is there, the archive is not needed any more. The labels of its own test set are not
    published.

    Source: http://cs231n.stanford.edu/. The labels are positions in the sorted WordNet
    identifiers, and the class names the first of their words.

    Args:
        data_root (str or path-like): See
            :func:`chainer_mmix.datasets.download.fetch`.

    Returns:
        tuple of PictureDataset: The training and the validation set. An example is an
        image, float32 of shape (3, 64, 64) in [0, 1], and its label, an int32 in 0 to
        199.

    Raises:
        OSError: If the archive can neither be found nor be downloaded.
        ValueError: If it, or the folder, is not as published.
    """
    folder = find_unpacked("tiny-imagenet", _FOLDER, data_root)
    if folder is None:
        archive = fetch(_FILE, "tiny-imagenet", data_root)
        folder = archive.with_name(_FOLDER)
        with unpacking(folder) as temporary, zipfile.ZipFile(archive) as content:
            _unpack(content, temporary)
    ids = sorted((folder / "wnids.txt").read_text().split())
    words = dict(
        line.split("\t")[:2]
        for line in (folder / "words.txt").read_text(encoding="utf-8").splitlines()
    )
    class_names = [words[wnid].split(",")[0] for wnid in ids]
    label_of = {wnid: label for label, wnid in enumerate(ids)}
    train = [
        (str(path), label_of[wnid])
        for wnid in ids
        for path in sorted((folder / "train" / wnid / "images").glob("*.JPEG"))
    ]
    annotations = (folder / "val" / "val_annotations.txt").read_text().splitlines()
    validation = [
        (str(folder / "val" / "images" / name), label_of[wnid])
        for name, wnid in (line.split("\t")[:2] for line in annotations)
    ]
    for part, examples in (("train", train), ("val", validation)):
        if not examples:
            raise ValueError(
                f"{folder / part} has no pictures: remove {folder} and get it anew"
            )
    return _make_dataset(train, class_names), _make_dataset(validation, class_names)


def _make_dataset(
    examples: list[tuple[str, int]], class_names: list[str]
) -> PictureDataset:
    paths, labels = zip(*examples, strict=True)
    return PictureDataset(paths, labels, class_names, _SIZE)


def _unpack(content: zipfile.ZipFile, folder: Path) -> None:
    """Unpacks all but the test set, leaving out the top folder of the names."""
    for member in content.infolist():
        _, _, name = member.filename.partition("/")
        if name and not name.startswith("test/"):
            member.filename = name
            content.extract(member, folder)
