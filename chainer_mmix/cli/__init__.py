"""The commands of ``chainer-mmix``."""
