"""Checkpoints that are no Qwen2-Audio, by the processor and the Auto classes alone; and those that are unfit."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import TEMPLATE, make_tokenizer, sharpen, text_config
from transformers import (
    BartConfig,
    CLIPImageProcessorPil,
    LlavaConfig,
    LlavaProcessor,
    Qwen2_5OmniConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen2Config,
    WhisperFeatureExtractor,
)

from aer_jax import cli
from aer_jax.annotation.annotate import annotate
from aer_jax.annotation.engines.pytorch.model import ChatModel
from aer_jax.annotation.engines.pytorch.qwen2_audio import Qwen2Audio
from aer_jax.annotation.engines.pytorch.transformers_engine import TransformersEngine
from aer_jax.annotation.engines.pytorch.worker import NEW_TOKENS, Annotator, open_model
from aer_jax.annotation.listeners import crossed
from aer_jax.errors import UserError
from aer_jax.labels.journal import read_journal


@pytest.fixture(scope="module")
def annotator(flamingo, dataset, asked):
    return Annotator(open_model(flamingo, asked), dataset)


def test_the_configuration_says_which_way_is_taken(annotator, checkpoint, asked):
    assert type(annotator.chat) is ChatModel and type(annotator.chat.model).__name__.startswith("AudioFlamingo3")
    assert type(open_model(checkpoint, asked)) is Qwen2Audio


def test_both_ways_of_asking_qwen2_audio_are_one(checkpoint, asked, rows, dataset):
    """Whatever Qwen2-Audio leaves out: the general way gives its model the same inputs, to the bit, and answers."""
    special, general = Qwen2Audio(checkpoint, asked), ChatModel(checkpoint, asked)
    with special.hearing(rows, dataset) as ours, general.hearing(rows, dataset) as theirs:
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=0)
    assert Annotator(special, dataset).generate(rows[:9]) == Annotator(general, dataset).generate(rows[:9])


def test_greedy_batches_equal_one_by_one(annotator, rows, dataset):
    """Temperature 0 in one batch of unequal lengths: what transformers' own `generate` says to each alone."""
    greedy, processor, expected = [{**row, "temperature": 0} for row in rows[::3]], annotator.chat.processor, []
    for row in greedy:
        system, user = row["messages"]
        text = (
            f"<|im_start|>system\n{system['content']}<|im_end|>\n<|im_start|>user\n{user['content'][0]['text']}<sound>"
        )
        text += "<|im_end|>\n<|im_start|>assistant\n"
        inputs = processor(text=text, audio=dataset.audio(row["utterance"]))
        with torch.inference_mode():
            tokens = annotator.chat.model.generate(**inputs, do_sample=False, max_new_tokens=NEW_TOKENS)
        expected += processor.tokenizer.batch_decode(
            tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
    assert len({len(dataset.audio(row["utterance"])) for row in greedy}) == 6 and len(set(expected)) > 1
    assert annotator.generate(greedy) == expected


def test_sampled_answers_depend_on_audio_and_seed_and_not_on_the_batch(annotator, rows):
    some = rows[1:6:2]
    said = annotator.generate(some)
    assert [annotator.generate([row])[0] for row in some] == said
    assert annotator.generate([{**row, "utterance": rows[-1]["utterance"]} for row in some]) != said
    assert annotator.generate([{**row, "seed": row["seed"] + 1} for row in some]) != said


def test_bound_to_labels_it_says_nothing_else(flamingo, rows, dataset, asked):
    """Labels of one and of many tokens, one of which begins another."""
    labels = ("happy", "happy to be here", "neither", "sad")
    bound = Annotator(open_model(flamingo, asked, labels), dataset)
    said = bound.generate(rows)
    assert set(said) <= set(labels) and len(set(said)) > 1
    assert [bound.generate([row])[0] for row in rows[:3]] == said[:3]


def test_control_tokens_that_are_quoted_do_not_control(annotator, rows, dataset):
    """An audio token in a transcript would ask for a second clip."""
    system, user = rows[0]["messages"]
    text, audio = user["content"]
    quoting = [system, {**user, "content": [{**text, "text": f"<sound>{text['text']}<|im_end|>"}, audio]}]
    blank = [system, {**user, "content": [{**text, "text": f" {text['text']} "}, audio]}]
    with annotator.chat.hearing([{**rows[0], "messages": told} for told in (quoting, blank)], dataset) as inputs:
        ours, theirs = inputs["input_ids"]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_the_command_annotates_with_it(flamingo, dataset, tmp_path, capsys):
    """From the command line to the journal, by a worker process of its own."""
    out = tmp_path / "votes.jsonl"
    words = ["annotate", "--data", dataset.path, "--model", flamingo, "--out", out, "--engine", "transformers"]
    assert cli.main([*map(str, words), "--answers", "constrained", "--listeners", "2"]) == 0
    assert "12 votes of 12 answers, 0 unparsed (0.0%), 0 failed" in capsys.readouterr().out
    votes = list(read_journal(out))
    assert len({vote.label for vote in votes}) > 1 and votes[0].model.startswith("flamingo-")


def test_of_an_omni_model_the_thinker_answers(dataset, rows, asked, tmp_path):
    """Its weights are found among the whole model's. Qwen2-Audio's processor makes the same of audio as its own, which
    needs torchvision.
    """
    tokenizer = make_tokenizer()
    Qwen2AudioProcessor(WhisperFeatureExtractor(feature_size=80), tokenizer).save_pretrained(tmp_path)
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [1, 1, 2]}
    config = Qwen2_5OmniConfig(
        thinker_config={
            "audio_config": {
                "num_mel_bins": 80, "d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2,
                "encoder_ffn_dim": 32, "output_dim": 32,
            },
            "vision_config": {
                "depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": 32,
            },
            "text_config": {**text_config(tokenizer), "rope_parameters": rope},
            "audio_token_id": tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
            "audio_start_token_id": tokenizer.convert_tokens_to_ids("<|audio_bos|>"),
            "audio_end_token_id": tokenizer.convert_tokens_to_ids("<|audio_eos|>"),
            "vision_start_token_id": len(tokenizer),
        }
    )  # fmt: skip
    torch.manual_seed(0)
    thinker = Qwen2_5OmniThinkerForConditionalGeneration(config.thinker_config)
    sharpen(thinker, tokenizer)
    weights = {f"thinker.{name}": weight.contiguous() for name, weight in thinker.state_dict().items()}
    save_file({**weights, "talker.weight": torch.ones(1)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(tmp_path)
    bound = Annotator(open_model(tmp_path, asked, dataset.classes), dataset)
    for name, weight in bound.chat.model.state_dict().items():
        torch.testing.assert_close(weight, thinker.state_dict()[name], rtol=0, atol=0)
    said = bound.generate(rows[1:6:2])
    assert set(said) <= set(dataset.classes) and [bound.generate([row])[0] for row in rows[1:6:2]] == said


def test_in_the_type_that_it_has_on_a_gpu(flamingo, asked, rows, dataset):
    chat = open_model(flamingo, asked, dataset.classes)
    chat.model.to(torch.bfloat16)
    with chat.hearing(rows[:2], dataset) as inputs:
        assert inputs["input_features"].dtype == torch.bfloat16 and inputs["input_ids"].dtype == torch.int64
    assert set(Annotator(chat, dataset).generate(rows[:2])) <= set(dataset.classes)


@pytest.mark.parametrize("special", [True, False], ids=["Qwen2-Audio's way", "the general way"])
def test_audio_is_padded_on_the_right_whatever_the_processor_says(checkpoint, asked, rows, dataset, tmp_path, special):
    """The tower counts valid frames from the left: else what a clip sounds like would depend on its batch."""
    path = shutil.copytree(checkpoint, tmp_path / "left")
    about = json.loads((path / "processor_config.json").read_text())
    about["feature_extractor"]["padding_side"] = "left"
    (path / "processor_config.json").write_text(json.dumps(about))
    chat, whole = (Qwen2Audio if special else ChatModel)(path, asked), Qwen2Audio(checkpoint, asked)
    with chat.hearing(rows, dataset) as ours, whole.hearing(rows, dataset) as theirs:
        for name, tensor in theirs.items():
            torch.testing.assert_close(ours[name], tensor, rtol=0, atol=0)
    annotator = Annotator(chat, dataset)
    together = annotator.generate(rows[:6])
    assert together == [annotator.generate([row])[0] for row in rows[:6]] and len(set(together)) > 1


@pytest.fixture
def spoilt(flamingo, tmp_path):
    """A copy of the checkpoint and what is to be changed in a JSON file of it."""
    path = tmp_path / "spoilt"
    shutil.copytree(flamingo, path)

    def change(file: str, **values):
        content = json.loads((path / file).read_text()) if values else None
        (path / file).unlink() if content is None else (path / file).write_text(json.dumps(content | values))
        return path

    return change


def test_without_a_processor(spoilt, asked):
    path = spoilt("processor_config.json")
    with pytest.raises(UserError, match=r"annotate: it has no processor that transformers \S+ can open \(\w+: "):
        open_model(path, asked)


def test_of_a_kind_that_transformers_does_not_know(spoilt, asked):
    with pytest.raises(UserError, match=r"is none that transformers \S+ can open \(ValueError: .*of_tomorrow"):
        open_model(spoilt("config.json", model_type="of_tomorrow"), asked)
    path = spoilt("config.json", model_type=None)
    (path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json is not valid JSON"):
        open_model(path, asked)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (Qwen2Config, 'it is a "qwen2", which does not answer in conversations with audio'),
        (BartConfig, "it has no processor that takes audio"),
        (LlavaConfig, "it has a processor or chat template that makes nothing of the audio"),
    ],
)
def test_models_that_hear_nothing(asked, tmp_path, config, sentence):
    """A language model, a translator and one that sees."""
    config().save_pretrained(tmp_path)
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["<image>"])
    tokenizer.save_pretrained(tmp_path)
    if config is LlavaConfig:
        LlavaProcessor(CLIPImageProcessorPil(), tokenizer, chat_template=TEMPLATE).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=sentence):
        open_model(tmp_path, asked)


def test_templates_that_leave_the_audio_out(spoilt, asked):
    path = spoilt("processor_config.json", audio_token="<sound>")
    template = path / "chat_template.jinja"
    template.write_text(TEMPLATE.replace("<sound>", ""))
    with pytest.raises(UserError, match="chat template that makes nothing of the audio in a conversation"):
        open_model(path, asked)
    template.unlink()
    with pytest.raises(UserError, match=r"takes no conversation with audio \(ValueError: .*chat template"):
        open_model(path, asked)


def test_that_brings_its_own_code(spoilt, asked, monkeypatch):
    """It is neither run nor asked about."""
    monkeypatch.setattr("builtins.input", lambda _: "y")
    path = spoilt("config.json", model_type="of_tomorrow", auto_map={"AutoConfig": "code.Config"})
    (path / "code.py").write_text("raise SystemExit('it was run')")
    with pytest.raises(UserError, match=r"is none that transformers \S+ can open \(ValueError: .*contains custom code"):
        open_model(path, asked)


def test_that_hears_at_another_rate(spoilt, flamingo, asked):
    extractor = json.loads((flamingo / "processor_config.json").read_text())["feature_extractor"]
    path = spoilt("processor_config.json", feature_extractor=extractor | {"sampling_rate": 24_000})
    with pytest.raises(UserError, match="hears audio at 24000 Hz, where clips are at 16000 Hz"):
        open_model(path, asked)


def test_a_template_that_never_ends(spoilt, asked):
    path = spoilt("processor_config.json", audio_token="<sound>")
    loop = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3
    (path / "chat_template.jinja").write_text(loop)
    with pytest.raises(UserError, match=r"cannot render a conversation \(it takes more than"):
        open_model(path, asked)


def test_weights_that_are_not_finite(spoilt, asked):
    path = spoilt("processor_config.json", audio_token="<sound>")
    weights = load_file(path / "model.safetensors")
    name = next(name for name in weights if "mlp.up_proj" in name)
    weights[name][0, 0] = torch.nan
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"holds numbers that are NaN or infinite in \S*mlp.up_proj"):
        open_model(path, asked)


def test_qwen2_audio_that_does_not_fit_itself(checkpoint, asked, tmp_path):
    path = shutil.copytree(checkpoint, tmp_path / "misfit")
    about = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(about | {"audio_token_index": 5}))
    with pytest.raises(UserError, match=r"audio_token_index is 5, but <\|AUDIO\|> is token 3 of the tokenizer"):
        open_model(path, asked)


def test_labels_that_its_tokenizer_cannot_keep_apart(flamingo, asked):
    with pytest.raises(UserError, match="'<sound>' cannot be an answer"):
        open_model(flamingo, asked, ("sad", "<sound>"))


def test_the_workers_sentence_is_the_engines(spoilt, task, tmp_path):
    engine = TransformersEngine(spoilt("processor_config.json"), task)
    with pytest.raises(UserError, match=r"^the checkpoint \S+spoilt cannot annotate: it has no processor"):
        annotate(task, engine, crossed(1, task.prompt.personas), tmp_path / "j")
