"""Finished runs: their files, comparisons and reports."""
