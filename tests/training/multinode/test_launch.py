import argparse
import os
import sys

import chainer
import pytest
from chainer import links

from chainer_mmix.cli.options import LR_SCALING
from chainer_mmix.cli.ranks import scale_rate
from chainer_mmix.training import multinode


@pytest.fixture(autouse=True)
def no_ranks(monkeypatch):
    for name in ("PMI_RANK", "PMI_SIZE"):
        monkeypatch.delenv(name, raising=False)


def test_without_mpiexec_there_is_one_rank(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    ranks = multinode.join("auto")
    assert (ranks.rank, ranks.size, ranks.communicator) == (0, 1, None)
    data = [1, 2, 3]
    assert ranks.share_of(data) is data
    assert ranks.on_first(lambda: 5) == ranks.in_turn(lambda: 5) == 5
    assert ranks.largest(2.5) == 2.5
    with pytest.raises(OSError, match="no file"):
        ranks.fail(OSError("no file"))


@pytest.mark.parametrize("name, size", [("naive", None), ("auto", "2")])
def test_a_missing_mpi_is_named(name, size, monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    if size:
        monkeypatch.setenv("PMI_RANK", "0")
        monkeypatch.setenv("PMI_SIZE", size)
    with pytest.raises(ImportError, match=r"chainer-mmix\[mpi\]"):
        multinode.join(name)


@pytest.mark.parametrize("name", ["flat", "pure_nccl"])
def test_a_communicator_of_gpus_is_not_for_cpus(name):
    with pytest.raises(ValueError, match="use naive"):
        multinode.join(name)


@pytest.mark.parametrize(
    "words, said",
    [
        (("--communicator", "pure_nccl"), "pure_nccl is for GPUs"),
        (("--graph", "--sync-bn"), "--graph cannot replay"),
    ],
)
def test_what_is_wrong_on_all_ranks_is_said_once(words, said, in_ranks):
    done = in_ranks(2, "-m", "chainer_mmix.cli", "train", *words)
    assert done.returncode == 2
    assert done.stderr.count(said) == 1


def test_without_nccl_there_is_a_way(monkeypatch):
    chainermn = pytest.importorskip("chainermn")
    pytest.importorskip("mpi4py", reason="needs the extra mpi")

    def create(name):
        raise RuntimeError("PureNcclCommunicator requires NCCL 2.0+.")

    monkeypatch.setattr(chainermn, "create_communicator", create)
    with pytest.raises(ValueError, match=r"NCCL 2.0\+\): install nvidia-nccl-cu12"):
        multinode.join("pure_nccl", is_gpu=True)


@pytest.mark.parametrize(
    ("link", "said"),
    [
        (lambda: links.Linear(2, 2), "no batch normalisation .*train it without"),
        (lambda: links.BatchNormalization(axis=0), "give it its size"),
    ],
)
def test_statistics_that_cannot_be_shared_are_refused(link, said):
    pytest.importorskip("chainermn")
    with pytest.raises(ValueError, match=said):
        multinode.synchronize_statistics(chainer.Sequential(link()), None)


def test_an_mpiexec_of_another_mpi_is_noticed(in_ranks):
    code = (
        "import os, sys; os.environ |= {'OMPI_COMM_WORLD_RANK': '0', "
        "'OMPI_COMM_WORLD_SIZE': '2'}; from chainer_mmix.cli import train; "
        "train.main(['--model', 'cnn'])"
    )
    done = in_ranks(0, "-c", code)
    assert done.returncode == 2
    assert "error: mpiexec has started 2 ranks, but MPI knows 1" in done.stderr


def test_it_starts_itself_by_mpiexec(monkeypatch):
    called = []
    monkeypatch.setattr(os, "execv", lambda *words: called.append(words))
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    multinode.start(3, ["--gpus", "0,1,2"])
    ((path, words),) = called
    assert path == words[0] == "/bin/mpiexec"
    assert words[1:4] == ["-n", "3", "/nowhere/python"]
    assert words[4:] == ["-m", "chainer_mmix.cli", "train", "--gpus", "0,1,2"]
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ImportError, match="no mpiexec"):
        multinode.start(3, [])


@pytest.mark.parametrize(
    "scaling, warmup, size, scale, epochs",
    [
        ("none", None, 4, 1, None),
        ("linear", None, 4, 4, 5),
        ("sqrt", 2, 4, 2, 2),
        ("linear", 0, 3, 3, 0),
    ],
)
def test_the_rate_grows_with_the_ranks(scaling, warmup, size, scale, epochs):
    args = argparse.Namespace(lr_scaling=scaling, warmup=warmup, epoch=10)
    assert scale_rate(args, LR_SCALING, size) == pytest.approx(scale)
    assert args.warmup == epochs
