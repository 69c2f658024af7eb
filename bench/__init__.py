"""Benchmarks: ratios against a baseline in the same run. Run with ``make bench``."""
