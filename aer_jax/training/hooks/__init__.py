"""What a training run does besides its steps: logging, saving, stopping, tracing; `hook.Hook` is the interface.

A hook may read and set the fields of `trainer.Training`; it computes no step and knows no other hook.
"""
