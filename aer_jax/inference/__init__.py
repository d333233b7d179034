"""Trained runs at work: evaluated on a split, predicting recordings, exported for PyTorch.

Nothing is trained here, and nothing printed but progress and notes.
"""
