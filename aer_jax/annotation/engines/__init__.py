"""Engines: each answers annotation requests by one kind of model.

An engine knows no journal and no dataset beyond the clips it is asked about.
"""
