"""Corpora on disk, read into clips with votes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aer_jax.corpora.base import Corpus
from aer_jax.errors import UserError, nearest

CORPORA = ("crema-d", "manifest", "toy")


def read_corpus(name: str, root: str | Path | None, classes: Sequence[str] | None = None) -> Corpus:
    """Read a corpus.

    Args:
        name: one of `CORPORA`.
        root: where it lies; None for `toy`, which is generated.
        classes: the classes wanted, in order; None takes the corpus' own.

    Raises:
        UserError: an unknown name or class, or a corpus that cannot be read.
    """
    if name not in CORPORA:
        raise UserError(f'unknown corpus "{name}".{nearest(name, CORPORA)} Known: {", ".join(CORPORA)}.')
    if name == "toy":
        from aer_jax.corpora import toy

        if root is not None:
            raise UserError("the toy corpus is generated and read from nowhere; leave --root out.")
        corpus = toy.generate()
    elif root is None:
        raise UserError(f"the corpus {name} lies on disk; say where with --root.")
    elif name == "crema-d":
        from aer_jax.corpora import crema_d

        corpus = crema_d.read(Path(root))
    else:
        from aer_jax.corpora import manifest

        corpus = manifest.read(Path(root))
    corpus.classes = choose_classes(corpus, classes)
    return corpus


def choose_classes(corpus: Corpus, classes: Sequence[str] | None) -> tuple[str, ...]:
    """`classes`, or the corpus' own, refused where one is unknown, named twice or alone."""
    chosen = tuple(corpus.classes if classes is None else classes)
    for label in chosen:
        if label not in corpus.labels:
            raise UserError(
                f'no vote in {corpus.name} is for class "{label}".{nearest(label, corpus.labels)} '
                f"Its labels: {', '.join(corpus.labels)}."
            )
        if chosen.count(label) > 1:
            raise UserError(f'class "{label}" is named twice; name each class once.')
    if len(chosen) < 2:
        raise UserError(
            f"a distribution needs at least two classes, not {len(chosen)} ({', '.join(chosen)}); "
            f"the votes in {corpus.name} name {', '.join(corpus.labels)}."
        )
    return chosen
