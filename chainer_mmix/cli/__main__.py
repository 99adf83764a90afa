"""Lets ``python -m chainer_mmix.cli`` stand for ``chainer-mmix``."""

import sys

from chainer_mmix.cli.main import main

sys.exit(main())
