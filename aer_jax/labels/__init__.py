"""Votes: attempts, journal, parsing, pooling and targets.

No audio and no models.
"""
