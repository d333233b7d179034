"""Training: from settings and a dataset to a run directory.

No corpora and no reports.
"""
