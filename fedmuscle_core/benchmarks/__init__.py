"""Benchmarks: each prints ratios measured in one run, `python -m fedmuscle_core.benchmarks.loss` and `.round`."""
