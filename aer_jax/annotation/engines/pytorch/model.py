"""A checkpoint that answers in conversations about audio, opened by transformers' Auto classes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import (
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoProcessor,
    BatchFeature,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
    WhisperFeatureExtractor,
)

from aer_jax.base.chat import Messages, reply
from aer_jax.base.chat_template import try_template
from aer_jax.data.dataset import Dataset
from aer_jax.errors import UserError

RATE = 16_000
# Audio-language models are registered under the first or, like Audio Flamingo, under the second alone.
_GENERATING: tuple[Mapping[Any, Any], ...] = (
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
)
# Without this setting transformers would ask on standard input, which is the pipe of the questions.
_FROM_HERE = {"local_files_only": True, "trust_remote_code": False}
_OF_TEXT = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"}


class ChatModel:
    """Any model whose processor turns a conversation with audio into the model's inputs.

    Args:
        checkpoint: directory in Hugging Face layout; nothing is downloaded, and no code that it brings is run.
        example: a conversation like those to come; the processor is tried with it before the weights are loaded.
        labels: the only answers there are; None for free answers.

    Attributes:
        processor, model: transformers'.
        device: where the model is: the GPU, where there is one.
        labels: tokens of each label, the one that ends the turn included; or None.

    Raises:
        UserError: transformers cannot open the checkpoint, it does not generate, its processor makes nothing of
            `example`, its tokenizer cannot express a label, or weights are missing.
    """

    def __init__(self, checkpoint: str | Path, example: Messages, labels: Sequence[str] | None = None):
        self._path = checkpoint
        by = f"transformers {transformers.__version__}"
        try:
            config = AutoConfig.from_pretrained(checkpoint, **_FROM_HERE)
        except Exception as error:  # as various as the configurations' own checks
            raise self._unfit(f"is none that {by} can open", error) from error
        config = getattr(config, "thinker_config", config)  # what writes in an omni model; its other parts speak
        model_class: type[PreTrainedModel] | None = next(
            (known[type(config)] for known in _GENERATING if type(config) in known), None
        )
        if model_class is None:
            raise self._unfit(f'is a "{config.model_type}", which does not answer in conversations with audio')
        try:
            self.processor = AutoProcessor.from_pretrained(checkpoint, **_FROM_HERE)
        except Exception as error:  # an architecture's own, or that of a package that it needs
            raise self._unfit(f"has no processor that {by} can open", error) from error
        try_template(self.processor, checkpoint)
        extractor = getattr(self.processor, "feature_extractor", None)
        if isinstance(extractor, WhisperFeatureExtractor):
            extractor.padding_side = "right"  # where these encoders look for audio, whatever the file says
        self._refuse_deaf(example)
        self.labels = None if labels is None else [reply(self.processor, example, label) for label in labels]
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = self._load(model_class, config)
        torch.nn.Module.to(self.model, self.device).eval()

    @contextmanager
    def hearing(self, rows: Sequence[Mapping[str, Any]], dataset: Dataset) -> Iterator[Mapping[str, torch.Tensor]]:
        """Context manager of the model's left-padded inputs, from which it may generate while the context lasts.

        Args:
            rows: {"utterance", "messages"} each.
            dataset: where the audio comes from.
        """
        clips = {id: dataset.audio(id) for id in dict.fromkeys(row["utterance"] for row in rows)}
        inputs = self._inputs([self._with_audio(row["messages"], clips[row["utterance"]]) for row in rows])
        yield inputs.to(self.device, dtype=self.model.dtype)

    def _inputs(self, conversations: list[Messages]) -> BatchFeature:
        return self.processor.apply_chat_template(
            conversations,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            # Of the text alone: how audio is padded is the processor's business.
            processor_kwargs={"text_kwargs": {"padding": True, "padding_side": "left"}, "return_tensors": "pt"},
        )

    def _with_audio(self, messages: Messages, clip: np.ndarray) -> list[dict[str, Any]]:
        """The conversation with its clip; control tokens that occur in quoted text are removed."""

        def plain(text: str) -> str:
            return self._control.sub(" ", text)

        def part(of: Mapping[str, Any]) -> dict[str, Any]:
            return {**of, "audio": clip} if of["type"] == "audio" else {**of, "text": plain(of["text"])}

        def content(of: str | Sequence[Mapping[str, Any]]) -> str | list[dict[str, Any]]:
            return plain(of) if isinstance(of, str) else [part(item) for item in of]

        return [{**message, "content": content(message["content"])} for message in messages]

    @cached_property
    def _control(self) -> re.Pattern[str]:
        tokens = self.processor.tokenizer.added_tokens_decoder.values()
        return re.compile("|".join(re.escape(token.content) for token in tokens if token.special) or "(?!)")

    def _refuse_deaf(self, example: Messages) -> None:
        if not isinstance(self.processor, ProcessorMixin):
            raise self._unfit("has no processor that takes audio")
        *before, question = example
        unheard = [*before, {**question, "content": [part for part in question["content"] if part["type"] != "audio"]}]
        try:
            with_audio, without = (
                self.processor.apply_chat_template(conversation, tokenize=False) for conversation in (example, unheard)
            )
            silence = np.zeros(RATE, np.float32)
            made = self._inputs([self._with_audio(example, silence)]).keys() if with_audio != without else set()
        except Exception as error:  # an architecture's or a template's own
            raise self._unfit("has a processor that takes no conversation with audio", error) from error
        if made <= _OF_TEXT:
            raise self._unfit("has a processor or chat template that makes nothing of the audio in a conversation")
        rate = getattr(getattr(self.processor, "feature_extractor", None), "sampling_rate", RATE)
        if rate != RATE:
            raise self._unfit(f"hears audio at {rate} Hz, where clips are at {RATE} Hz")

    def _load(self, model_class: type[PreTrainedModel], config: PreTrainedConfig) -> PreTrainedModel:
        loaded: dict[str, set[str]]
        model: PreTrainedModel
        # Its type does not say that it returns a pair where it is asked about what it loaded.
        model, loaded = model_class.from_pretrained(  # type: ignore[misc]
            self._path,
            config=config,
            local_files_only=True,
            dtype=torch.bfloat16 if self.device.type == "cuda" else torch.float32,
            output_loading_info=True,
        )
        # transformers fills what is missing with random numbers and only warns.
        if loaded["missing_keys"]:
            raise self._unfit(
                f"lacks the weights {', '.join(sorted(loaded['missing_keys'])[:3])}; copy the whole of it"
            )
        for name, weight in model.state_dict().items():
            if weight.is_floating_point() and not torch.isfinite(weight).all():
                raise self._unfit(f"holds numbers that are NaN or infinite in {name}; copy it again")
        return model

    def _unfit(self, why: str, error: Exception | None = None) -> UserError:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        cause = f" ({type(error).__name__}: {lines[0] if lines else 'no message'})" if error else ""
        return UserError(f"the checkpoint {self._path} cannot annotate: it {why}{cause}.")
