"""Benchmarks: aer_jax next to PyTorch on the same work, each in a process of its own.

Nothing outside the command line imports this package.
"""
