"""Corpora on disk, read into clips with votes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from aer_jax.corpora.base import Corpus
from aer_jax.errors import UserError, nearest

# The choices that each reader offers besides `lenient`; their values are explained where it is defined.
CORPORA: dict[str, tuple[str, ...]] = {
    "crema-d": (),
    "iemocap": ("excited", "multi_label", "improvised"),
    "msp-podcast": (),
    "paper-json": ("excited", "audio"),
    "manifest": ("map", "labels"),
    "toy": (),
}


def read_corpus(
    name: str,
    root: str | Path | None,
    classes: Sequence[str] | None = None,
    lenient: bool = False,
    **choices: str | bool | Path | None,
) -> Corpus:
    """Read a corpus.

    Args:
        name: one of `CORPORA`.
        root: where it lies; None for `toy`, which is generated.
        classes: the classes wanted, in order; None takes the corpus' own.
        lenient: drop and count what cannot be read instead of refusing it.
        choices: of this reader; None takes the reader's default.

    Raises:
        UserError: an unknown name, class or choice, or a corpus that cannot be read.
    """
    if name not in CORPORA:
        raise UserError(f'unknown corpus "{name}".{nearest(name, CORPORA)} Known: {", ".join(CORPORA)}.')
    chosen = {choice: value for choice, value in choices.items() if value is not None}
    for choice in chosen:
        if choice not in CORPORA[name]:
            owners = ", ".join(corpus for corpus, known in CORPORA.items() if choice in known) or "no corpus"
            raise UserError(f"--{choice.replace('_', '-')} is a choice of {owners}, not of {name}; leave it out.")
    if name == "toy":
        from aer_jax.corpora.toy import corpus as toy

        if root is not None:
            raise UserError("the toy corpus is generated and read from nowhere; leave --root out.")
        corpus = toy.generate()
    elif root is None:
        raise UserError(f"the corpus {name} lies on disk; say where with --root.")
    else:
        corpus = _reader(name)(Path(root), lenient=lenient, **chosen)
    corpus.classes = choose_classes(corpus, classes)
    return corpus


def _reader(name: str) -> Callable[..., Corpus]:
    from aer_jax.corpora import crema_d, paper_json
    from aer_jax.corpora.iemocap import reader as iemocap
    from aer_jax.corpora.manifest import reader as manifest
    from aer_jax.corpora.msp_podcast import reader as msp_podcast

    modules = {"crema-d": crema_d, "iemocap": iemocap, "msp-podcast": msp_podcast, "paper-json": paper_json}
    return modules.get(name, manifest).read


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
