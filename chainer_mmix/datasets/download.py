"""Files from the internet, whole and right, or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError

import chainer
import filelock

from chainer_mmix.progress import Progress

_CHUNK = 1 << 20  # bytes between two lines of progress
_TIMEOUT = 60  # seconds without a byte


class RemoteFile(NamedTuple):
    """A file of a dataset.

    Attributes:
        url (str): Where it is. Its last part is the name of the file.
        sha256 (tuple of str): Hexadecimal SHA-256 of the file, and of others that
            are equivalent.
    """

    url: str
    sha256: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


def fetch(
    file: RemoteFile, dataset: str, data_root: str | os.PathLike | None = None
) -> Path:
    """Finds a file of a dataset, or downloads it.

    Its SHA-256 is checked each time. An interrupted download continues where it
    stopped. The file gets its name when it is complete and right. One process downloads
    while others wait.

    Args:
        file (RemoteFile): The file.
        dataset (str): The name of the dataset, which names the folder, too.
        data_root (str or path-like): A folder that has the file, in itself or in a
            folder ``dataset`` below it, or where it goes. The default is Chainer's
            dataset cache, where a file that Chainer has downloaded counts, too.

    Returns:
        ~pathlib.Path: The file.

    Raises:
        OSError: If it is not there and cannot be downloaded.
        ValueError: If it, or what is downloaded, is another file.
    """
    target = folder_of(dataset, data_root) / file.name
    if data_root is None:
        digest = hashlib.md5(file.url.encode()).hexdigest()
        other = Path(chainer.dataset.get_dataset_root()) / "_dl_cache" / digest
    else:
        other = target.parent.parent / file.name
    for path in (target, other):
        if path.exists():
            if (found := _sha256(path)) not in file.sha256:
                raise ValueError(
                    f"{path} is not the file that {file.url} has (its SHA-256 is "
                    f"{found}, not {file.sha256[0]}): remove it, and it is downloaded "
                    "anew"
                )
            return path
    try:
        _download(file, target)
    except OSError as e:
        raise OSError(
            f"{dataset} needs {target}, which cannot be downloaded ({e}): fetch "
            f"{file.url} elsewhere and save it there, or name another folder by "
            "data_root (--data-root) or CHAINER_DATASET_ROOT"
        ) from e
    return target


def folder_of(dataset: str, data_root: str | os.PathLike | None) -> Path:
    """Returns the folder of a dataset's files, which need not exist."""
    if data_root is None:
        return Path(chainer.dataset.get_dataset_root()) / "chainer_mmix" / dataset
    root = Path(data_root).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(
            f"there is no folder {root} to look for {dataset} in: make it, or name "
            "another as data_root (--data-root)"
        )
    return root / dataset


def find_unpacked(
    dataset: str, name: str, data_root: str | os.PathLike | None
) -> Path | None:
    """Returns the folder that an archive has been unpacked into, if there is one."""
    places = [folder_of(dataset, data_root)]
    if data_root is not None:
        root = Path(data_root).expanduser()
        places += [root, *([root.parent] if root.name == name else [])]
    return next((path / name for path in places if (path / name).is_dir()), None)


@contextlib.contextmanager
def unpacking(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder that becomes ``folder`` when the block ends well."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        with contextlib.suppress(OSError):  # Another process was faster.
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _download(file: RemoteFile, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(target.with_name(f".{target.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        _say(f"waiting for another process, which downloads {file.url}")
        lock.acquire()
    try:
        if target.exists():
            return
        part = target.with_name(f".{target.name}.part")
        resumed = part.exists()
        _say(f"downloading {file.url} to {target.parent}")
        _complete(file, part)
        if resumed and _sha256(part) not in file.sha256:
            # What was there may have been of another file.
            part.unlink()
            _complete(file, part)
        if (found := _sha256(part)) not in file.sha256:
            part.unlink()
            raise ValueError(
                f"{file.url} has another file than it had (the SHA-256 is {found}, not "
                f"{file.sha256[0]}), so it has been thrown away: get {file.name} from "
                f"elsewhere and save it as {target}"
            )
        os.replace(part, target)
    finally:
        lock.release()


def _complete(file: RemoteFile, part: Path) -> None:
    """Downloads what is missing, in several goes if some of it comes each time."""
    while True:
        before = _size(part)
        try:
            return _append(file, part)
        except (OSError, http.client.HTTPException) as e:
            kept = _size(part)
            if kept <= before:
                hint = f"; {kept} bytes are kept, and the next try goes on" * bool(kept)
                raise OSError(f"{str(e) or type(e).__name__}{hint}") from e
            _say(f"{file.name} broke off after {kept} bytes and goes on")


def _append(file: RemoteFile, part: Path) -> None:
    start = _size(part)
    request = urllib.request.Request(file.url)
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except HTTPError as e:
        if e.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        return  # There is no more of it.
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        n_chunk = -(-total // _CHUNK) if total else 1
        with open(part, "r+b" if start else "wb") as out, Progress(n_chunk) as tell:
            out.seek(start)
            while chunk := response.read(_CHUNK):
                out.write(chunk)
                if total:
                    tell(f"{file.name}, {out.tell() >> 20} of {total >> 20} MiB")
            if total and out.tell() < total:
                raise ConnectionError(
                    f"the connection broke off after {out.tell()} bytes"
                )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
