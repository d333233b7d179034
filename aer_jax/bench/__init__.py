"""Benchmarks: aer_jax next to PyTorch on the same work, each in a separate process.

Nothing outside the command line imports this package.
"""
