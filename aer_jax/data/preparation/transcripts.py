"""Bound on the length of transcripts, for attention takes the square of a prompt's tokens."""

from __future__ import annotations

import dataclasses

from aer_jax.corpora.base import Corpus

# Characters: more than four minutes of fast speech, where a clip is read up to 30 s.
LONGEST_TRANSCRIPT = 4_000


def cut_transcripts(corpus: Corpus) -> Corpus:
    """The corpus with longer transcripts cut at a word, and a note that says which."""
    long = {clip.id: len(clip.transcript) for clip in corpus.clips if len(clip.transcript) > LONGEST_TRANSCRIPT}
    if not long:
        return corpus
    first = next(iter(long))
    note = (
        f"{len(long):,} transcript(s) are longer than {LONGEST_TRANSCRIPT:,} characters and are cut there, the first "
        f"that of {first} ({long[first]:,} characters)."
    )
    clips = [
        dataclasses.replace(clip, transcript=_cut(clip.transcript)) if clip.id in long else clip
        for clip in corpus.clips
    ]
    return dataclasses.replace(corpus, clips=clips, notes=[*corpus.notes, note])


def _cut(text: str) -> str:
    cut = text[: LONGEST_TRANSCRIPT + 1].rpartition(" ")[0]
    return cut if len(cut) > 0.9 * LONGEST_TRANSCRIPT else text[:LONGEST_TRANSCRIPT]
