"""The engine that samples with PyTorch, in worker processes.

Nothing but `worker`, `model` and `qwen2_audio` may import torch, and only those processes import them.
"""
