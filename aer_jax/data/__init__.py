"""From a prepared dataset to batches: records, prompts, DiME-Aug and augmentation.

No Flax modules and no losses.
"""
