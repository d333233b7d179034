"""A base checkpoint on disk: where it is, its configuration, tokenizer, chat template and tensors.

No Flax modules; those are in `models/`.
"""
