"""Inference with trained runs: evaluation on a split, prediction, export.

Nothing is trained here, and nothing printed but progress and notes.
"""
