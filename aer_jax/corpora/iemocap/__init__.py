"""IEMOCAP as its owners ship it."""
