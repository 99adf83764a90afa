import pytest

from chainer_mmix.datasets import DATASETS
from chainer_mmix.lookup import lookup


@pytest.mark.parametrize(
    "name, near",
    [
        ("digit", "did you mean digits?"),
        ("CIFAR-10", "cifar10"),
        ("fmn", "did you mean fashion-mnist?"),
        ("imagenet", "there are"),
    ],
)
def test_unknown_names_get_the_near_ones(name, near):
    with pytest.raises(ValueError, match="unknown dataset") as e:
        lookup(DATASETS, name, "dataset")
    assert repr(name) in str(e.value)
    assert near in str(e.value)
    assert "digits, mnist5k, mnist, cifar10, cifar100" in str(e.value)


def test_lookup_returns_the_entry():
    assert lookup(DATASETS, "digits", "dataset") is DATASETS["digits"]
