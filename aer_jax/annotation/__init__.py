"""Synthetic votes: prompts, engines, and annotation into a journal.

The journal itself and what becomes of its votes live in `labels/`; how good they are, in `evaluation/raters/`.
"""
