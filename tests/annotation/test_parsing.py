"""Strict parsing: exactly one label, however it is dressed, and nothing else."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from aer_jax.errors import UserError
from aer_jax.labels.parsing import SYNONYMS, label_table, parse, synonyms_of

LABELS = ("angry", "happy", "Neutral state", "sad")
dressing = st.text(alphabet=" \n\t\"'`“”«».,;:!?()[]*_", max_size=4)


@given(st.sampled_from(LABELS), dressing, dressing, st.sampled_from([str.upper, str.lower, str.title, str]))
def test_a_dressed_label_is_that_label(label, before, after, case):
    assert parse(before + case(label) + after, LABELS) == label


@given(st.text())
def test_only_labels_are_parsed(response):
    label = parse(response, LABELS)
    letters = "".join(c for c in response.casefold() if c.isalnum())
    if label is None:
        assert response.strip().casefold() not in {known.casefold() for known in LABELS}
    else:
        assert letters == "".join(label.casefold().split())


@given(st.sampled_from(LABELS), st.text(alphabet="abehnotu-/0 ", min_size=1).filter(str.strip))
def test_anything_added_is_unparsed(label, more):
    assert parse(f"{more}{label}", LABELS) is None
    assert parse(f"{label}{more}", LABELS) is None


@given(st.lists(st.sampled_from(LABELS), min_size=2, max_size=4), st.sampled_from([" ", ", ", " or ", "/", "\n"]))
def test_several_labels_are_unparsed(labels, between):
    assert parse(between.join(labels), LABELS) is None


@pytest.mark.parametrize(
    "response",
    [
        "not angry",
        "unhappy",
        "not anger but sadness",
        "neutral",
        "sadness",
        "",
        "...",
        "-happy",
        "~sad",
        "hap py",
    ],
)
def test_unparsed(response):
    assert parse(response, LABELS) is None


def test_spaces_inside_a_label():
    assert parse("neutral \n State.", LABELS) == "Neutral state"


@pytest.mark.parametrize("labels", [("sad", "Sad"), ("sad", "sad."), ("sad", "!")])
def test_labels_that_cannot_be_told_apart(labels):
    with pytest.raises(UserError):
        label_table(labels)


CREMA = ("angry", "disgust", "fear", "happy", "neutral", "sad")
WORDS = synonyms_of("crema-d", CREMA)


@given(st.sampled_from(sorted(WORDS)), dressing, dressing, st.sampled_from([str.upper, str.lower, str.title, str]))
def test_a_dressed_synonym_is_its_label(word, before, after, case):
    assert parse(before + case(word) + after, CREMA, WORDS) == WORDS[word]


@given(
    st.sampled_from(["not", "un", "no", "never", "hardly", "isn't", "don't think it is"]),
    st.sampled_from(["", " ", "-"]),
    st.sampled_from([*CREMA, *sorted(WORDS)]),
)
def test_negations_and_containment_are_unparsed(no, between, word):
    assert parse(f"{no}{between}{word}", CREMA, WORDS) is None
    assert parse(f"it is {word}, {no} {word}", CREMA, WORDS) is None


@given(
    st.lists(st.sampled_from([*CREMA, *sorted(WORDS)]), min_size=2, max_size=3), st.sampled_from([" ", ", ", " or "])
)
def test_several_words_are_unparsed_even_of_one_label(words, between):
    said = between.join(words)
    assert parse(said, CREMA, WORDS) is None


@pytest.mark.parametrize(
    "refusal",
    [
        "I'm sorry, but I can't judge emotions from audio.",
        "I cannot tell.",
        "N/A",
        "unknown",
        "",
        " \n",
        "The speaker is sad.",
    ],
)
def test_refusals_are_unparsed(refusal):
    assert parse(refusal, CREMA, WORDS) is None


def test_synonyms_are_the_corpus_own():
    assert parse("Excited!", ("happy", "sad"), synonyms_of("iemocap", ("happy", "sad"))) == "happy"
    assert parse("Excited!", ("happy", "sad"), synonyms_of("crema-d", ("happy", "sad"))) is None
    apart = ("excited", "happy", "sad")
    assert parse("excited", apart, synonyms_of("iemocap", apart)) == "excited"
    assert synonyms_of("no such corpus", CREMA) == {}
    assert parse("anger", ("happy", "sad"), synonyms_of("iemocap", ("happy", "sad"))) is None


def test_no_table_gives_a_word_to_two_labels():
    for corpus, table in yaml.safe_load(SYNONYMS.read_text()).items():
        if corpus == "manifest":  # its labels are anybody's; several spellings of one label stand side by side
            continue
        words = [word for others in table.values() for word in others]
        assert len(words) == len(set(words)), corpus
        assert all(word == word.casefold().strip() for word in words)
