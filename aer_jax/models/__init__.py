"""Flax modules, their weights and their sharding; no data pipelines and no training."""
