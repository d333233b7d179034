"""Grids of runs: settings, execution, and the tables of their results."""
