"""Synthetic votes: what a listener is asked, by which engine, and how the answers get into a journal.

The journal itself and what becomes of its votes live in `labels/`; how good they are, in `evaluation/raters/`.
"""
