"""A few clips of the toy corpus as a manifest, and a stand-in for a run that is trained and evaluated in no time."""

import csv
import json
import sys
from pathlib import Path

import soundfile

SPEAKERS = 6


def write(folder: Path, clips: int = 36) -> Path:
    """The manifest; six speakers, five listeners."""
    from aer_jax.corpora.toy import corpus as toy

    corpus = toy.generate(clips=clips, speakers=SPEAKERS)
    with (folder / "clips.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "audio", "speaker", "transcript", "votes"])
        for clip in corpus.clips:
            soundfile.write(folder / f"{clip.id}.wav", clip.audio.samples, clip.audio.rate, subtype="PCM_16")
            votes = ";".join(vote.label for vote in clip.votes)
            rows.writerow([clip.id, f"{clip.id}.wav", clip.speaker, clip.transcript, votes])
    return folder / "clips.csv"


def write_journal(folder: Path, manifest: Path) -> Path:
    """Four synthetic listeners who hear what the first human listeners heard, one of them always neutral."""
    path = folder / "votes.jsonl"
    lines = []
    for row in csv.DictReader(manifest.open()):
        for listener, label in enumerate([*row["votes"].split(";")[:3], "neutral"]):
            line = {"utterance": row["id"], "listener": listener, "persona": "", "temperature": 0.5, "seed": 1}
            lines.append(line | {"prompt": "p", "model": "m", "response": label, "label": label})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def stand_in(config: Path, run: Path) -> None:
    """Predict the votes mixed with a uniform share that depends on the arm; fail where the run's name is in FAIL."""
    import os
    import time

    import yaml

    settings = yaml.safe_load(config.read_text())
    if run.name in os.environ.get("FAIL", ""):
        print("aer-jax: the loss is not finite at step 3.")
        sys.exit(2)
    data = Path(settings["data"]["dataset"])
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.yaml").write_text(config.read_text())
    (run / "environment.json").write_text('{"base": "", "learns_from": {}}')
    began = time.time()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7}\n')
    time.sleep(float(os.environ.get("SLEEP", "0")))
    votes: dict[str, list[str]] = {}
    for line in (data / "votes.jsonl").read_text().splitlines():
        votes.setdefault(json.loads(line)["utterance"], []).append(json.loads(line)["label"])
    classes = json.loads((data / "dataset.json").read_text())["classes"]
    uniform = {"human": 0.3, "combined": 0.2, "synthetic": 0.9}[settings["labels"]["source"]]
    uniform += 0.01 * settings["seed"]
    lines = []
    for id in json.loads((data / "splits.json").read_text())["test"]:
        share = {name: votes[id].count(name) / len(votes[id]) for name in classes}
        probs = {name: (1 - uniform) * p + uniform / len(classes) for name, p in share.items()}
        lines.append(json.dumps({"id": id, "probs": probs}))
    folder = run / "evaluation" / "test"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "predictions.jsonl").write_text("\n".join(lines))
    metrics = {"js": 0.1, "baselines": {"train_mean": {"js": 0.2}}, "between": [began, time.time()]}
    (folder / "metrics.json").write_text(json.dumps(metrics))


if __name__ == "__main__":
    stand_in(*map(Path, sys.argv[1:]))
