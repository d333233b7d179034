"""The engine that samples with PyTorch, in worker processes of its own.

Nothing but `worker`, `model` and `qwen2_audio` may import torch, and only those processes import them.
"""
