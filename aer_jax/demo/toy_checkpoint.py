"""The tiny Qwen2-Audio of the demo, trained from nothing to answer the annotation prompt about toy speech.

    python -m aer_jax.demo.toy_checkpoint OUT_DIR

writes a checkpoint in Hugging Face layout, about 2 MB, in some ten minutes on two cores. Its voices and votes come
from other seeds of the toy corpus than the demo's, so the demo's speakers are new to it. It stands in for the
7B model where nothing can be downloaded; no figure taken on it says anything about real speech.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import tqdm
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)

from aer_jax.annotation.prompts import Prompt, load_prompt
from aer_jax.base.lengths import frame_count, token_count
from aer_jax.corpora.base import Corpus, Waveform
from aer_jax.corpora.toy import corpus as toy
from aer_jax.data.prompt import SYSTEM, TASK
from aer_jax.files.atomic import whole_directory
from aer_jax.models.qwen2_audio import Qwen2Audio
from aer_jax.models.weights import base_tensors

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
VOCABULARY = 512
CORPUS_SEED = 1000  # the demo's corpus has seed 0
CLIPS, SPEAKERS, RATERS = 3000, 60, 5
STEPS, BATCH, PEAK_RATE = 1500, 32, 2e-3


def make_processor(corpus: Corpus, prompt: Prompt) -> Qwen2AudioProcessor:
    """Byte-level BPE over the prompts and the toy sentences, and Whisper's features with 80 mels."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [SYSTEM, TASK, prompt.system, prompt.question, *prompt.personas, *prompt.labels, "Audio 1: "]
    tokenizer.train_from_iterator(texts * 20 + [clip.transcript for clip in corpus.clips], trainer)
    return Qwen2AudioProcessor(
        feature_extractor=WhisperFeatureExtractor(feature_size=80, return_attention_mask=True),
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            eos_token="<|im_end|>",
            pad_token="<|endoftext|>",
            additional_special_tokens=list(SPECIAL),
        ),
    )


def make_config(processor: Qwen2AudioProcessor) -> Qwen2AudioConfig:
    """Three layers and 64 channels on either side."""
    tokenizer = processor.tokenizer
    return Qwen2AudioConfig(
        audio_config=dict(
            model_type="qwen2_audio_encoder",
            num_mel_bins=80,
            d_model=64,
            encoder_layers=3,
            encoder_attention_heads=4,
            encoder_ffn_dim=256,
            max_source_positions=1500,
        ),
        text_config=dict(
            model_type="qwen2",
            vocab_size=VOCABULARY,
            hidden_size=64,
            intermediate_size=192,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            rope_parameters={"rope_theta": 10000.0, "rope_type": "default"},
            tie_word_embeddings=False,
            bos_token_id=tokenizer.convert_tokens_to_ids("<|im_start|>"),
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )


class Lessons:
    """Batches of annotation prompts, each answered by one randomly chosen vote.

    Args:
        corpus: clips with votes.
        processor: renders and tokenizes.
        prompt: the annotation prompt, personas included.
    """

    def __init__(self, corpus: Corpus, processor: Qwen2AudioProcessor, prompt: Prompt):
        self.clips, self.processor, self.prompt = corpus.clips, processor, prompt
        samples = [len(clip.audio.samples) for clip in self.clips if isinstance(clip.audio, Waveform)]
        self.window = -(-(max(samples) + 1600) // 640) * 640
        self.length = max(len(self.tokens(clip, prompt.personas[0], prompt.labels[0])[0]) for clip in self.clips) + 16

    def tokens(self, clip, persona: str, label: str) -> tuple[list[int], int]:
        """Prompt and answer as tokens, and how many belong to the answer."""
        tokenizer = self.processor.tokenizer
        text = self.processor.apply_chat_template(
            self.prompt.messages(clip.transcript, persona), add_generation_prompt=True, tokenize=False
        )
        count = token_count(frame_count(len(clip.audio.samples)))
        question = tokenizer(text.replace("<|AUDIO|>", "<|AUDIO|>" * count))["input_ids"]
        answer = [*tokenizer(label)["input_ids"], tokenizer.eos_token_id]
        return question + answer, len(answer)

    def batch(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """One batch: audio, tokens, and which tokens are answers."""
        audio_bs = np.zeros((BATCH, self.window), np.float32)
        samples_b = np.zeros(BATCH, np.int32)
        tokens_bt = np.zeros((BATCH, self.length), np.int32)
        mask_bt = np.zeros((BATCH, self.length), bool)
        answer_bt = np.zeros((BATCH, self.length), bool)
        for b, i in enumerate(rng.integers(len(self.clips), size=BATCH)):
            clip = self.clips[i]
            persona = self.prompt.personas[rng.integers(len(self.prompt.personas))]
            tokens, answered = self.tokens(clip, persona, clip.votes[rng.integers(len(clip.votes))].label)
            samples_b[b] = len(clip.audio.samples)
            audio_bs[b, : samples_b[b]] = clip.audio.samples
            tokens_bt[b, : len(tokens)] = tokens
            mask_bt[b, : len(tokens)] = True
            answer_bt[b, len(tokens) - answered : len(tokens)] = True
        return dict(audio=audio_bs, samples=samples_b, tokens=tokens_bt, mask=mask_bt, answer=answer_bt)


def teach(model: Qwen2Audio, lessons: Lessons, seed: int) -> None:
    """Train every parameter by next-token cross-entropy on the answers, in place."""
    graphdef, parameters, *rest = nnx.split(model, nnx.Param, ...)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(optax.warmup_cosine_decay_schedule(0, PEAK_RATE, 100, STEPS), weight_decay=0.01),
    )
    moments = optimizer.init(parameters)

    def loss(parameters, batch):
        model = nnx.merge(graphdef, parameters, *rest)
        features = model(batch["audio"], batch["samples"], batch["tokens"], batch["mask"])
        log_p_btv = jax.nn.log_softmax(model.logits(features.hidden_bth[:, :-1]))
        next_bt = jnp.take_along_axis(log_p_btv, batch["tokens"][:, 1:, None], axis=2)[..., 0]
        return -(next_bt * batch["answer"][:, 1:]).sum() / BATCH

    @jax.jit
    def step(parameters, moments, batch):
        value, gradient = jax.value_and_grad(loss)(parameters, batch)
        updates, moments = optimizer.update(gradient, moments, parameters)
        return optax.apply_updates(parameters, updates), moments, value

    rng = np.random.default_rng(seed)
    bar = tqdm(range(STEPS), desc="teach", unit="step")
    recent: list[float] = []
    for _ in bar:
        parameters, moments, value = step(parameters, moments, lessons.batch(rng))
        recent = [*recent[-49:], float(value)]
        bar.set_postfix(nats_an_answer=f"{np.mean(recent):.3f}", refresh=False)
    nnx.update(model, parameters)


def build(out: Path, seed: int = 0) -> None:
    """Make the checkpoint; `out` appears when it is whole."""
    corpus = toy.generate(clips=CLIPS, speakers=SPEAKERS, raters=RATERS, seed=CORPUS_SEED)
    prompt = load_prompt(corpus.classes)
    processor = make_processor(corpus, prompt)
    config = make_config(processor)
    model = Qwen2Audio(config, output_layer=True, rngs=nnx.Rngs(seed))
    teach(model, Lessons(corpus, processor, prompt), seed)
    config.architectures = ["Qwen2AudioForConditionalGeneration"]
    config.dtype = "float32"
    with whole_directory(out) as partial:
        config.save_pretrained(partial)
        processor.save_pretrained(partial)
        save_file(base_tensors(model), partial / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    build(args.out, args.seed)


if __name__ == "__main__":
    main()
