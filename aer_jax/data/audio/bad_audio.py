"""The error of a clip that cannot be used, and descriptions of files without audio."""

from __future__ import annotations

from aer_jax.errors import UserError

MISSING = "audio file missing"  # the reason of which the path is said
LOWEST_RATE, HIGHEST_RATE = 4000, 768_000


class BadAudio(UserError):
    """A clip that cannot be used.

    Attributes:
        reason: a few words, the same for every clip of its kind; the data report counts them.
    """

    def __init__(self, reason: str, sentence: str):
        super().__init__(sentence)
        self.reason = reason


def unreadable(where: str, why: object, advice: str = "convert it to WAV or FLAC") -> BadAudio:
    """`why` in one line; library errors span several."""
    return BadAudio("audio unreadable", f"cannot read {where} ({' '.join(str(why).split()).rstrip('.')}); {advice}.")


def cut_short(where: str, why: str) -> BadAudio:
    """The error of a truncated file: the votes are about the whole of it."""
    return BadAudio("audio cut short", f"{where} is shorter than its header says ({why}); copy it again.")


def damaged(where: str, why: str) -> BadAudio:
    """The error of a file with gaps."""
    return BadAudio("audio damaged", f"{where} is damaged ({why}); copy or convert it again.")


def joined(where: str, why: str) -> BadAudio:
    """The error of concatenated files: the votes are about one of them."""
    return BadAudio("two recordings in one file", f"{where} holds two recordings ({why}); write each to its own file.")


def check_rate(rate: int, where: str) -> None:
    """Refuse a sample rate that no speech recording has.

    Raises:
        BadAudio: below `LOWEST_RATE` or above `HIGHEST_RATE`.
    """
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise BadAudio(
            "audio sample rate impossible",
            f"{where} has a sample rate of {rate} Hz, speech has {LOWEST_RATE} to {HIGHEST_RATE} Hz; export it again.",
        )


def pointer(head: bytes, where: str) -> BadAudio | None:
    """A placeholder that Git LFS or git-annex leaves where the audio was not fetched.

    Args:
        head: the file's first bytes.
        where: how messages name it.
    """
    for start, tool, command in (
        (b"version https://git-lfs", "Git LFS", "git lfs pull"),
        (b"/annex/objects/", "git-annex", "git annex get"),
    ):
        if head.startswith(start):
            return BadAudio(
                f"{tool} pointer, run `{command}`",
                f"{where} is a {tool} pointer, not the audio itself; run `{command}` where it was cloned.",
            )
    return None


def text_of(head: bytes) -> str:
    """How a text file begins, or "" where the bytes are no text; a page saved as .wav is a failed download."""
    try:
        text = head.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # else a character is cut at the end of `head`
            return ""
        text = head[: error.start].decode("utf-8-sig").strip()
    return text[:40] if text and all(c.isprintable() or c.isspace() for c in text) else ""
