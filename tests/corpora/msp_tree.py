"""A miniature of MSP-Podcast in the spellings of its releases, and its votes worked out by hand."""

import csv
import json

import numpy as np
import soundfile

# turn -> worker, primary, secondary (None: the field is absent), label by hand
ANSWERS = {
    "MSP-PODCAST_0001_0008": [
        ("WORKER0000001", "Neutral", "Neutral,Confused", "neutral"),
        ("WORKER0000002", "Happy", "Happy,Amused", "happy"),
        ("WORKER0000003", "Neutral", "", "neutral"),
        ("WORKER0000004", 'Other-A: amused; V:ery, "so" (she says); D: no', "Neutral", "other"),
        ("WORKER0000005", "Contempt", None, "contempt"),
    ],
    "MSP-PODCAST_0001_0009": [
        ("WORKER0000001", "Sad", "Sad", "sad"),
        ("WORKER0000002", "Other", "Other-sad; angry", "other"),
        ("WORKER0000006", "Other-Neutral", "Neutral", "other"),
        ("WORKER0000007", "Sad", "Disgust,Fear", "sad"),
        ("WORKER0000008", "Disgust", "Disgust", "disgust"),
    ],
    "MSP-PODCAST_0002_0003": [
        ("WORKER0000001", "Angry", "Angry", "angry"),
        ("WORKER0000002", "Surprise", "", "surprise"),
    ],
    "MSP-PODCAST_0003_0001": [("WORKER0000009", "Fear", "Fear", "fear"), ("WORKER0000001", "Happy", None, "happy")],
    "MSP-PODCAST_0003_0002_0001": [("WORKER0000009", "Happy", "Happy", "happy"), ("WORKER0000002", "Sad", "", "sad")],
    "MSP-PODCAST_0004_0001": [("WORKER0000001", "Neutral", "Neutral", "neutral")],
}
VOTES = {turn: [(worker, label) for worker, _, _, label in given] for turn, given in ANSWERS.items()}
# turn -> partition, speaker, gender; the two tests share a speaker, Test3 has neither labels nor a row in the table
PLACES = {
    "MSP-PODCAST_0001_0008": ("Train", "30", "Male"),
    "MSP-PODCAST_0001_0009": ("Train", "Unknown", "Unknown"),
    "MSP-PODCAST_0002_0003": ("Development", "7", "Female"),
    "MSP-PODCAST_0003_0001": ("Test1", "12", "Female"),
    "MSP-PODCAST_0003_0002_0001": ("Test1", "12", "Female"),
    "MSP-PODCAST_0004_0001": ("Test2", "12", "Female"),
}
TEST3 = "MSP-PODCAST_0005_0001"
SPLIT = {"Train": "train", "Development": "validation", "Test1": "test1", "Test2": "test2"}
SPEAKER = {turn: speaker for turn, (_, speaker, _) in PLACES.items()}
ATTRIBUTES = (4.0, 3.0, 1.0)

RELEASES = {
    "1.6": dict(
        labels="label", audio="Audios", consensus="labels_concensus.csv", partitions="Partitions.txt", votes="columns"
    ),
    "1.7": dict(
        labels="Labels", audio="Audio", consensus="labels_concensus.csv", partitions="partition.txt", votes="detail"
    ),
    "1.8": dict(
        labels="Labels", audio="Audios", consensus="labels_concensus.csv", partitions="Partitions.txt", votes="text"
    ),
    "1.9": dict(
        labels="labels", audio="Audios", consensus="labels_concensus.csv", partitions="partitions.txt", votes="json"
    ),
    "1.12": dict(
        labels="Labels", audio="Audios", consensus="labels_consensus.csv", partitions="Partitions.txt", votes="detail"
    ),
    "2.0": dict(
        labels="Labels", audio="Audios", consensus="labels_consensus.csv", partitions="Partitions.txt", votes="worker"
    ),
}


def rater_line(worker, primary, secondary):
    act, val, dom = ATTRIBUTES
    middle = "" if secondary is None else f" {secondary};"
    return f"{worker}; {primary};{middle} A:{act}; V:{val}; D:{dom};"


def text():
    lines = []
    for turn, given in ANSWERS.items():
        lines.append(f"{turn}.wav; N; A:2.200000; V:4.000000; D:2.600000;")
        lines += [rater_line(*answer[:3]) for answer in given]
        lines.append("")
    return "\n".join(lines)


def write_votes(folder, form):
    if form == "text":
        (folder / "labels.txt").write_text(text())
    elif form == "json":
        act, val, dom = ATTRIBUTES
        record = {
            f"{turn}.wav": {
                worker: {
                    "EmoClass_Major": primary,
                    **({} if secondary is None else {"EmoClass_Second": secondary}),
                    **{"EmoAct": act, "EmoDom": dom, "EmoVal": val},
                }
                for worker, primary, secondary, _ in given
            }
            for turn, given in ANSWERS.items()
        }
        (folder / "labels_detailed.json").write_text(json.dumps(record))
    else:
        with (folder / "labels_detailed.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            worker_column = {"columns": "Workers", "worker": "WorkerID"}.get(form)
            tail = ["EmoClass_Major", "EmoClass_Second", "EmoAct", "EmoVal", "EmoDom"]
            rows.writerow(["FileName", "EmoDetail"] if form == "detail" else ["FileName", worker_column, *tail])
            for turn, given in ANSWERS.items():
                for worker, primary, secondary, _ in given:
                    line = [rater_line(worker, primary, secondary)]
                    columns = [worker, primary, secondary or "", *ATTRIBUTES]
                    rows.writerow([f"{turn}.wav", *(line if form == "detail" else columns)])


def write(root, release="2.0", table=True, speakers=True, partitions=True):
    names = RELEASES[release]
    labels, audio = root / names["labels"], root / names["audio"]
    labels.mkdir(parents=True)
    audio.mkdir()
    (root / "Transcripts").mkdir()
    development = "Validation" if release in ("1.6", "1.7", "1.8") else "Development"
    write_votes(labels, names["votes"])
    if table:
        rows = ["FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"]
        for turn, (part, speaker, gender) in PLACES.items():
            rows.append(f"{turn}.wav,N,2.2,4.0,2.6,{speaker},{gender},{part.replace('Development', development)}")
        (labels / names["consensus"]).write_text("\r\n".join(rows) + "\r\n")
    if speakers:
        known = sorted({(s, g) for _, s, g in PLACES.values() if s != "Unknown"})
        lines = [f"Speaker_{speaker}; {gender}" for speaker, gender in known]
        lines += ["", *(f"{turn}.wav; {speaker}" for turn, (_, speaker, _) in PLACES.items()), ""]
        (root / "Speaker_ids.txt").write_text("\n".join(lines))
    if partitions:
        lines = [f"{part.replace('Development', development)}; {turn}.wav" for turn, (part, _, _) in PLACES.items()]
        (root / names["partitions"]).write_text("\n".join([*lines, f"Test3; {TEST3}.wav", ""]))
    for i, turn in enumerate([*PLACES, TEST3]):
        noise = np.random.default_rng(i).normal(0, 0.1, 3200)
        soundfile.write(audio / f"{turn}.wav", noise, 16_000, subtype="PCM_16")
        if i:
            (root / "Transcripts" / f"{turn}.txt").write_bytes(f"words of {i}, caf\u00e9\r\n".encode("latin-1"))
    return root
