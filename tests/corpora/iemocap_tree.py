"""A miniature of IEMOCAP's full release with the quirks of the real one, and its votes worked out by hand."""

import numpy as np
import soundfile

HEADER = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]"

IMPRO01 = "\r\n".join(  # the real files have either line end
    [
        HEADER,
        "",
        "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]",
        "C-E2:\tNeutral;\t()",
        "C-E3:\tNeutral;\t()",
        "C-E4:\tNeutral;\t()",
        "C-F1:\tNeutral;\t()",
        "A-E3:\tval 3; act 2; dom  2;\t()",
        "A-E4:\tval 2; act 3; dom  3;\t(mildly aroused but staying polite, some attitude)",
        "A-F1:\tval 3; act 2; dom  1;\t()",
        "",
        # Several labels in one answer; comments with everything in them.
        "[10.0100 - 11.3925]\tSes01F_impro01_M000\txxx\t[2.5000, 3.0000, 3.0000]",
        "C-E2:\tFrustration;\t()",
        "C-E3:\tNeutral; Anger;\t(annoyed; Sadness: maybe (a bit))",
        "C-E4:\tExcited; Happiness; Neutral state;\t()",
        "C-M1:\tAnger;\t(me)",
        "A-E3:\tval ; act 3; dom  3;\t()",  # a blank value
        "A-M1:\tval ; act ; dom  ;\t()",
        "",
        # Four evaluators, spaces doubled, one answer blank, one free text; nobody on himself.
        "[14.8872 - 18.0175]\tSes01F_impro01_F001\texc\t[3.3333, 3.0000, 3.0000]",
        "C-E1:\tOther;\t(impatient; haughty)",
        "C-E2:\tNeutral  state;  Excited; \t()",
        "C-E3:\t;\t()",
        "C-E4:\tExcited;\t(caf\u00e9)",
        "A-E3:\tval 4; act 3; dom 3;\t()",
        "",
        "",
    ]
)
# The markers are on the woman (F after the session), the man speaks: the last token decides.
SCRIPT = "\n".join(
    [
        HEADER,
        "",
        "[1.0000 - 2.0000]\tSes01F_script01_1b_M000\tsad\t[1.0000, 2.0000, 2.0000]",
        "C-E2:\tSadness;\t()",
        "C-E3:\tSadness;\t()",
        "C-E5:\tDisgust; Fear; Surprise;\t()",
        "A-E3:\tval 1; act 2; dom  2;\t()",
    ]
)  # and no line end at the end
TRANSCRIPTION = "\n".join(
    [
        "Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.",
        "Ses01F_impro01_M000 [010.0100-011.3925]:  Do you  have your forms?: [LAUGHTER]",
        "Ses01F_impro01_FXX0 [012.0000-012.5000]: [BREATHING]",
        "M: Yeah.",
        "Ses01F_impro01_F001: no time",
    ]
)

# turn -> (rater, label, weight), Excited apart, an answer's labels sharing its vote.
VOTES = {
    "Ses01F_impro01_F000": [("E2", "neutral", 1), ("E3", "neutral", 1), ("E4", "neutral", 1)],
    "Ses01F_impro01_M000": [
        *[("E2", "frustrated", 1), ("E3", "neutral", 1 / 2), ("E3", "angry", 1 / 2)],
        *[("E4", "excited", 1 / 3), ("E4", "happy", 1 / 3), ("E4", "neutral", 1 / 3)],
    ],
    "Ses01F_impro01_F001": [
        ("E1", "other", 1),
        ("E2", "neutral", 1 / 2),
        ("E2", "excited", 1 / 2),
        ("E4", "excited", 1),
    ],
    "Ses01F_script01_1b_M000": [
        *[("E2", "sad", 1), ("E3", "sad", 1)],
        *[("E5", "disgust", 1 / 3), ("E5", "fear", 1 / 3), ("E5", "surprise", 1 / 3)],
    ],
}
SPEAKERS = {
    "Ses01F_impro01_F000": "Ses01_F",
    "Ses01F_impro01_M000": "Ses01_M",
    "Ses01F_impro01_F001": "Ses01_F",
    "Ses01F_script01_1b_M000": "Ses01_M",
}


def wav(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(str(path.name))).normal(0, 0.1, 3200)
    soundfile.write(path, noise, 16_000, subtype="PCM_16")


def write(root, sessions=5):
    """Session 1 by hand; the others have a man and a woman with one plain turn each."""
    session = root / "Session1"
    evaluations, words = session / "dialog" / "EmoEvaluation", session / "dialog" / "transcriptions"
    wavs = session / "sentences" / "wav"
    (evaluations / "Self-evaluation").mkdir(parents=True)
    words.mkdir()
    # Latin-1, as some of the real files are.
    (evaluations / "Ses01F_impro01.txt").write_bytes(IMPRO01.encode("latin-1"))
    (evaluations / "Ses01F_script01_1b.txt").write_text(SCRIPT)
    (evaluations / "._Ses01F_impro01.txt").write_bytes(b"\x00\x05\x16\x07 left by macOS")
    (evaluations / "Self-evaluation" / "Ses01F_impro01_f1.txt").write_text("not a block\n")
    (evaluations / "notes.txt").write_text("not a dialogue\n")
    (words / "Ses01F_impro01.txt").write_text(TRANSCRIPTION)
    for turn in VOTES:
        wav(wavs / turn.rpartition("_")[0] / f"{turn}.wav")
    folder = wavs / "Ses01F_impro01"
    (folder / "._Ses01F_impro01_F000.wav").write_bytes(b"left by macOS")
    (folder / "Ses01F_impro01.pk").write_bytes(b"peaks of an editor")
    wav(folder / "Ses01F_impro01_F099.wav")  # nobody judged it
    for number in range(2, sessions + 1):
        plain_session(root / f"Session{number}", number)
    return root


def plain_session(session, number):
    dialogue = f"Ses0{number}M_impro05a"
    lines = [HEADER, ""]
    for sex in "FM":
        lines += [
            f"[1.0 - 2.0]\t{dialogue}_{sex}000\thap\t[4.0, 3.0, 3.0]",
            *(f"C-E{rater}:\tHappiness;\t()" for rater in (2, 3)),
            "C-E4:\tSadness;\t()",
            "A-E3:\tval 4; act 3; dom 3;\t()",
            "",
        ]
        wav(session / "sentences" / "wav" / dialogue / f"{dialogue}_{sex}000.wav")
    (session / "dialog" / "EmoEvaluation").mkdir(parents=True)
    (session / "dialog" / "EmoEvaluation" / f"{dialogue}.txt").write_text("\n".join(lines))
