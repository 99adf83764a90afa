"""What keeps Chainer alive on today's Python, NumPy and CuPy."""
