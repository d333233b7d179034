"""Metrics, baselines, intervals and tests: predicted distributions against human ones.

No models and no training.
"""
