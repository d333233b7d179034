import json

import pytest

from aer_jax.corpora.label_names import LabelNames, is_missing, read_synonyms
from aer_jax.errors import UserError

MISSING = "nan NaN NA n/a N/A #N/A #NA <NA> NaT None NULL null - -- \u2014 ? ??? . ... * / __ n.a. n.a"


@pytest.mark.parametrize("text", ["", " ", "(empty)", "missing", "Undefined", *MISSING.split()])
def test_not_available(text):
    assert is_missing(text)
    names = LabelNames()
    assert names.of(text, "line 2") is None and names.missing[text.strip()] == 1


@pytest.mark.parametrize(
    "text",
    [
        "no",
        "Nan-like",
        "nano",
        "-x-",
        "neutral",
        "\u00e4rger",
        "\U0001f600",
        "don't know",
        "non-neutral",
        "e1",
        "sandy",
        "n.b",
        "a (b)",
        "\u6124",
    ],
)
def test_labels(text):
    names = LabelNames()
    assert not is_missing(text) and names.of(f" {text} ", "line 2") == text and not names.missing


NO_LABELS = "a,b a|b a/b a;b ['a' 'a' \"a\" a:1 a&b a+b {a} [] {} () !? #REF! a\\b a=b ' ';"


COUNTED = (
    "happy (2)",
    "2 happy",
    "happy x2",
    "happy 2",
    "happy*2",
    "2x happy",
    "happy?",
    "happy and sad",
    "happy OR sad",
    "a - b",
    "a\uff1bb",  # separators of Chinese and Japanese keyboards
    "a\u3001b",
    "a\uff0cb",
)


@pytest.mark.parametrize("text", ["a\tb", "a\nb", *NO_LABELS.split(), *COUNTED])
def test_what_is_no_label(text):
    with pytest.raises(UserError, match=r"line 2: .* is no label because of its .*; separate votes by semicolons"):
        LabelNames().of(text, "line 2")


@pytest.mark.parametrize("text", ["3", "-1", "0.5", "0,5", "70%"])
def test_numbers_are_no_labels(text):
    with pytest.raises(UserError, match=r"line 2: the label .* is a number; give --labels"):
        LabelNames().of(text, "line 2")


def test_sentences_are_no_labels():
    with pytest.raises(UserError, match=r"line 2: .* is 189 characters long and no label"):
        LabelNames().of("well " * 38, "line 2")


def test_synonyms(tmp_path):
    table = tmp_path / "synonyms.csv"
    table.write_text("Anger,angry\nMad,angry\nHappy/Excited,happy\n3,sad\nother,\nnone,neutral\n")
    names = LabelNames(read_synonyms(table))
    for written, label in [
        ("anger", "angry"), ("MAD", "angry"), ("Angry", "angry"), ("happy/excited", "happy"), ("3", "sad"), 
        ("Other", None),
        ("None", "neutral"), ("nan", None), ("Calm", "calm"), ("sad", "sad"),
    ]:  # fmt: skip
        assert names.of(written, "line 2") == label
    assert names.knows("Happy/Excited ") and not names.knows("calm")
    said = " ".join(names.notes())
    assert '"nan" 1' in said and "Other -> no vote 1" in said and "Calm -> calm 1" in said


@pytest.mark.parametrize(
    "content", ["a;b\nc;b", "\ufeffa\tb\r\nc\tb\r\n", json.dumps({"A": "b", "c": "b"}), '"a","b"\n\n"c",b']
)
def test_forms_of_synonyms(tmp_path, content):
    (tmp_path / "s.csv").write_text(content, encoding="utf-8")
    assert read_synonyms(tmp_path / "s.csv") == {"a": "b", "b": "b", "c": "b"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b,c", "line 1 is not two cells"),
        ("a", "line 1 is not two cells"),
        ("a,b\nA,c", 'line 2: "A" has two labels'),
        ("a,b/c", 'line 1: "b/c" is no label'),
        ("", "names no label"),
        ("{", "is not valid JSON"),
        ('{"a": ["b"]}', r'"a" must be given a label'),
        ("{" + '"a":{' * 100_000, "is not valid JSON"),
    ],
)
def test_bad_synonyms(tmp_path, content, message):
    (tmp_path / "s.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        read_synonyms(tmp_path / "s.csv")
