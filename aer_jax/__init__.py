"""Emotion in speech as a distribution: Qwen2-Audio fine-tuned in JAX on human and synthetic votes."""

__version__ = "0.1.0"
