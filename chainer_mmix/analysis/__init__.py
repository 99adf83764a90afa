"""Measurements and pictures of a network, without a Trainer."""
