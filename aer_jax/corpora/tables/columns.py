"""Columns of a manifest: fields by common names in any case, or by `--map`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aer_jax.corpora.text import brief
from aer_jax.errors import UserError, nearest

# Field -> the names that are taken for it; its own name goes before the others.
NAMES: dict[str, tuple[str, ...]] = {
    "id": ("utt_id", "utterance_id", "uttid", "utt", "clip_id", "clip", "segment_id", "seg_id", "sample_id", "turn_id"),
    "audio": (
        *("file", "path", "filename", "file_name", "filepath", "file_path", "wav", "wav_path", "wav_file", "wavfile"),
        *("audio_path", "audio_file", "audio_filepath", "audio_filename", "audio_file_path", "recording"),
    ),
    "speaker": ("speaker_id", "spk", "spk_id", "spkr", "spkrid", "spkr_id", "speakerid", "speaker_name", "actor"),
    "transcript": ("transcription", "text", "sentence"),
    "split": ("partition", "subset", "set", "split_set"),
    "rater": (
        *("rater_id", "annotator", "annotator_id", "worker", "worker_id", "listener", "listener_id"),
        *("evaluator", "evaluator_id", "coder", "coder_id", "judge", "judge_id"),
    ),
    "votes": ("vote", "label", "labels", "emotion", "emotions", "emotion_label", "emotion_labels"),
    "distribution": ("dist", "shares", "soft_label", "soft_labels", "probabilities", "probs"),
    "start": (
        "start_time",
        "starttime",
        "stime",
        "begin",
        "begin_time",
        "onset",
        "onset_time",
        "segment_start",
        "seg_start",
        "xmin",
        "tmin",
    ),
    "end": ("end_time", "endtime", "etime", "stop", "stop_time", "finish", "xmax", "tmax"),
    "duration": ("dur",),
    "offset": ("offset_time",),
}
TIMES = ("start", "end", "duration", "offset")
# Several columns at once: whole numbers of votes, shares that sum to 1, one label a rater.
MANY = ("counts", "shares", "raters")
_VOTES = ("votes", "distribution", *MANY)
_RATER_COLUMN = re.compile(r"(?:rater|annotator|listener|evaluator|coder|worker|judge|ann)_?\d+")
_UNITS = {**dict.fromkeys(("s", "sec", "secs", "second", "seconds"), False)}
_UNITS |= dict.fromkeys(("ms", "msec", "msecs", "millis", "millisecond", "milliseconds"), True)
_TIME_OR_CHANNEL = re.compile(
    r"(?:.*_)?(?:start|end|begin|beg|stop|onset|offset|dur|duration|length|time|times|timestamp|xmin|xmax|tmin|tmax|t[01]"
    r"|from|to|frames?|samples?|seconds?|secs?|ms|msec|interval|segment|channels?|chan|ch|side)(?:_.*)?"
)


@dataclass(frozen=True)
class Columns:
    """Columns of a table by field.

    Attributes:
        one: field -> its column.
        many: "counts", "shares" or "raters" -> their columns.
        milliseconds: fields whose column says so.
        duration: the column of durations in a table of starts and ends, whether of the segments or of the recordings;
            None where there is none, or where it is read.
    """

    one: dict[str, str]
    many: dict[str, tuple[str, ...]] = field(default_factory=dict)
    milliseconds: frozenset[str] = frozenset()
    duration: str | None = None

    @property
    def used(self) -> set[str]:
        """All columns that are read."""
        return {*self.one.values(), *(name for names in self.many.values() for name in names)}

    def of(self, row: Mapping[str, Any], name: str) -> Any:
        """The value of a field in a row, None where there is none."""
        return row.get(self.one[name]) if name in self.one else None


def normalise(name: str) -> str:
    """`File Name`, `fileName`, `file-name` -> `file_name`."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[^\w]+", "_", apart.casefold()).strip("_")


def parse_map(text: str | None) -> dict[str, str]:
    """`audio=file_name,counts=Angry+Happy` as field -> column or columns; "" where a field is to be left unread.

    Raises:
        UserError: it is not of this form, or names a field twice or one that is unknown.
    """
    known = (*NAMES, *MANY)
    mapping: dict[str, str] = {}
    for part in text.split(",") if text else []:
        name, equals, column = (word.strip() for word in part.partition("="))
        if not equals:
            raise UserError(f'--map: "{part.strip()}" is not field=column, for instance audio=file_name,speaker=spk.')
        if name not in known:
            raise UserError(f'--map: unknown field "{name}".{nearest(name, known)} Known: {", ".join(known)}.')
        if name in mapping:
            raise UserError(f'--map names the field "{name}" twice; name it once.')
        mapping[name] = column
    return mapping


def find_columns(columns: Sequence[str], mapping: Mapping[str, str], where: str) -> Columns:
    """Which of a table's columns are the fields of a manifest.

    Args:
        columns: their names.
        mapping: what `parse_map` returned.
        where: where the names stand.

    Raises:
        UserError: a field is missing or could be several columns, or a mapped column is not there.
    """
    mapped = {name: _column(word, columns, name, where) for name, word in mapping.items() if name not in MANY and word}
    many = {
        name: tuple(_column(one.strip(), columns, name, where) for one in words.split("+"))
        for name, words in mapping.items()
        if name in MANY and words
    }
    for name, names in many.items():
        if len(set(names)) < max(len(names), 2):
            raise UserError(
                f"--map: {name} needs two or more columns, each named once, for instance {name}=A+B; one "
                "column is votes=COLUMN or distribution=COLUMN."
            )
    free = [name for name in NAMES if name not in mapping and not (name in TIMES and mapping.get("start") == "")]
    if any(name in mapped or name in many for name in _VOTES):
        free = [name for name in free if name not in _VOTES]
    taken = {*mapped.values(), *(name for names in many.values() for name in names)}
    chosen = {name: column for name in free if (column := choose(columns, name, where, taken))}
    one = _segment(chosen | mapped, mapped, where)
    if not any(name in one or name in many for name in _VOTES):
        many |= _rater_columns(columns)
    elif "raters" not in many and (raters := _rater_columns(columns)) and not any(name in mapping for name in _VOTES):
        raise UserError(
            f'{where}: the votes could be "{one.get("votes") or one.get("distribution")}" or '
            f"{'+'.join(raters['raters'])}; say which with --map votes=COLUMN or --map raters=COLUMN+COLUMN."
        )
    if len(many) + sum(name in mapped for name in _VOTES) > 1:
        raise UserError(f"--map gives votes in several ways; keep one of {', '.join(_VOTES)}.")
    both = "start" in one and "end" in one and "duration" not in one
    duration = chosen.get("duration") if both else None
    timed = one | ({"duration": duration} if duration else {})
    milliseconds = frozenset(name for name in TIMES if name in timed and _unit(normalise(timed[name]))[1])
    found_columns = Columns(one, many, milliseconds, duration)
    _check(found_columns, columns, where)
    return found_columns


def choose(columns: Sequence[str], name: str, where: str, taken: Collection[str] = ()) -> str | None:
    """The column of one field by its names; None where there is none.

    Raises:
        UserError: several columns could be it.
    """
    forms = {column: normalise(column) for column in columns if column not in taken}
    if name in TIMES:
        forms = {column: _unit(form)[0] for column, form in forms.items()}
    for words in ((name,), NAMES[name]):
        fits = [column for column, form in forms.items() if form in words]
        if len(fits) > 1:
            listed = " and ".join(f'"{column}"' for column in fits)
            raise UserError(f"{where}: the columns {listed} could both be {name}; say which with --map {name}=COLUMN.")
        if fits:
            return fits[0]
    return None


def looks_like_time_or_channel(column: str) -> bool:
    """Whether leaving this column unread may mean that more of a recording is taken than is meant."""
    return _TIME_OR_CHANNEL.fullmatch(normalise(column)) is not None


def _column(word: str, columns: Sequence[str], name: str, where: str) -> str:
    if word in columns:
        return word
    fits = [column for column in columns if normalise(column) == normalise(word)]
    if len(fits) != 1:
        raise UserError(
            f'{where}: there is no column "{word}", which --map names as {name}.{nearest(word, columns)} '
            f"The columns: {', '.join(columns)}."
        )
    return fits[0]


def _unit(form: str) -> tuple[str, bool]:
    """A normalised name of a time without what it is of and without its unit, and whether that is milliseconds."""
    form = re.sub(r"^(?:segment|seg|utterance|utt|clip|turn|t)_(?=.)", "", form)
    name, _, unit = form.rpartition("_")
    return (name, _UNITS[unit]) if name and unit in _UNITS else (form, False)


def _segment(one: dict[str, str], mapped: Mapping[str, str], where: str) -> dict[str, str]:
    """Decide what `offset` is, and leave times aside that add nothing.

    lhotse and NeMo write `offset` and `duration`, so it is a start; `onset` and `offset` are a start and an end.
    """
    one = dict(one)
    if offset := one.pop("offset", None):
        if "end" not in one and "start" not in one and "duration" in one:
            one["start"] = offset
        elif "end" not in one and "duration" not in one and "onset" in normalise(one.get("start", "")):
            one["end"] = offset
        elif not ("start" in one and ("end" in one or "duration" in one)):
            raise UserError(
                f'{where}: "{offset}" could be the start or the end of a segment; say which with --map start={offset} '
                f"or --map end={offset} (or --map offset= to leave it unread)."
            )
    if "duration" in one and ("end" in one or "start" not in one) and "duration" not in mapped:
        del one["duration"]  # of the whole recording, or said twice
    if "duration" in one and ("end" in one or "start" not in one):
        raise UserError("--map duration=... goes with a start and without an end; leave it out.")
    return one


def _rater_columns(columns: Sequence[str]) -> dict[str, tuple[str, ...]]:
    raters = tuple(column for column in columns if _RATER_COLUMN.fullmatch(normalise(column)))
    return {"raters": raters} if len(raters) > 1 else {}


def _listed(columns: Sequence[str]) -> str:
    more = f" and {len(columns) - 10} more" if len(columns) > 10 else ""
    return ", ".join(map(brief, columns[:10])) + more or "none"


def _check(layout: Columns, columns: Sequence[str], where: str) -> None:
    rest = [column for column in columns if column not in layout.used]
    for name in ("audio", "speaker"):
        if name not in layout.one:
            hint = "" if name in rest else nearest(name, rest)  # --map leaves it unread
            raise UserError(
                f'{where}: the column "{name}" is missing.{hint} Name it with --map {name}=COLUMN; '
                f"the columns: {_listed(columns)}."
            )
    if not any(name in layout.one or name in layout.many for name in _VOTES):
        example = "+".join(map(brief, rest[:4])) if len(rest) > 1 else "A+B"
        raise UserError(
            f'{where}: a column "votes" or "distribution" is missing; name it with --map votes=COLUMN, or several: '
            f"--map counts={example} for a column of counts per class, shares=... of shares, raters=... for a column "
            f"of labels per rater; the columns: {_listed(columns)}."
        )
