from chainer_revive.atomic import write_atomically

__all__ = ["write_atomically"]
