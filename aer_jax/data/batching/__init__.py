"""Batch shapes, and the batches of training, prediction and exact annotation."""
