"""Votes: where they are born, stored, pooled and counted.

No audio and no models.
"""
