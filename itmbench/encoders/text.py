"""Words -> tokens, by BERT-like models of transformers: pretrained, or small and trained from scratch."""

import copy
import re
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from itmbench.data.corpus import Features, ImageFiles, Rows, Strings
from itmbench.encoders.base import Encoder, Inputs, masked_mean
from itmbench.encoders.embeddings import Embeddings
from itmbench.encoders.weights import reason
from itmbench.errors import InputError

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


class TextEncoder(Encoder):
    """Base of the text encoders: a transformers model and the tokenizer that goes with it.

    The pooled vector is the mean of the real tokens' last states, the best pooling in Reimers and Gurevych
    ("Sentence-BERT", EMNLP 2019).
    """

    reads = Strings
    model: Any
    tokenizer: Any
    max_length: int

    def recipe(self) -> str:
        words = tokenizer_state(self.tokenizer) if self.tokenizer.is_fast else self.tokenizer.get_vocab()
        return f"{super().recipe()} {transformers_model(self.model)} {words}"

    def processor(self) -> "TokenProcessor":
        return TokenProcessor(self.tokenizer, self.max_length)

    @property
    def word_embedding(self) -> nn.Embedding:  # type: ignore[override]
        embedding: nn.Embedding = self.model.get_input_embeddings()
        return embedding

    @property
    def marks(self) -> set[int]:
        """The tokens that are no words, such as [CLS] and padding."""
        names = ("pad", "cls", "sep", "bos", "eos", "mask")
        ids = (getattr(self.tokenizer, f"{name}_token_id", None) for name in names)
        return {number for number in ids if number is not None}

    def words(self, inputs: Inputs) -> Tensor:
        """The rows of the vocabulary that tokens are, int64 `[B, L]`; -1 for padding and for marks such as [CLS]."""
        ids = inputs["input_ids"]
        return ids.masked_fill(torch.isin(ids, torch.tensor(sorted(self.marks), device=ids.device)), -1)

    def unread(self, texts: Sequence[str]) -> list[str]:
        """What of each text is not read, in words; empty if all of it is."""
        notes, marks = [], self.marks
        for text, ids in zip(texts, self._ids(texts), strict=True):
            note = [f"cut to its first {self.max_length} tokens of {len(ids)}"] if len(ids) > self.max_length else []
            if unknown := ", ".join(dict.fromkeys(self.unknown_words(text, ids))):
                named = textwrap.shorten(unknown, 200, placeholder=" …")
                note.append(f"not in the vocabulary of this model, so may match poorly: {named}")
            if marks.issuperset(ids):
                note.append("has no words")
            notes.append("; ".join(note))
        return notes

    def unknown_words(self, text: str, ids: Sequence[int]) -> list[str]:
        """The words of a text, which is these tokens, that the vocabulary lacks."""
        unknown = {self.tokenizer.unk_token_id} - self.marks
        if not unknown.intersection(ids):
            return []
        words = text.split()
        return [word for word, parts in zip(words, self._ids(words), strict=True) if unknown.intersection(parts)]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of texts, all of them."""
        ids: list[list[int]] = self.tokenizer(list(texts), verbose=False)["input_ids"]
        return ids

    def word(self, number: int) -> str | None:
        return None if number < 0 else str(self.tokenizer.convert_ids_to_tokens(number))

    def embed(self, inputs: Inputs) -> Embeddings:
        """Embeddings of ``input_ids`` and ``attention_mask``, int64 `[B, L]`."""
        tokens = self.model(**inputs).last_hidden_state
        mask = inputs["attention_mask"].bool()
        return Embeddings(masked_mean(tokens, mask), tokens, mask, self.words(inputs))


class PretrainedTextEncoder(TextEncoder):
    """Any BERT-like model of transformers, with its own tokenizer.

    Args:
        name: a hub name such as ``bert-base-uncased``, or a local folder with the model and its tokenizer.
        max_length: longer texts are cut to this many tokens, special ones included.
        freeze: keep the weights fixed during training.
        lr_multiplier: factor on the learning rate of these weights.
        feature_dropout: probability, in training, of dropping a number of the vectors it returns.
        centre: subtract the means of the training items; needs ``freeze``.

    Raises:
        InputError: there is no such model, it cannot be downloaded, weights or tokenizer files are missing, or it is
            not an encoder for texts of this length.
    """

    def __init__(
        self,
        name: str = "bert-base-uncased",
        max_length: int = 64,
        freeze: bool = False,
        lr_multiplier: float = 0.1,
        feature_dropout: float = 0.0,
        centre: bool = False,
    ) -> None:
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # of reading weights, a second; downloads show theirs
        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
            model, loading = AutoModel.from_pretrained(name, dtype=torch.float32, output_loading_info=True)
        except Exception as error:  # transformers, tokenizers and safetensors each raise their own
            raise InputError(
                f"text encoder {name}: cannot be loaded ({reason(error)}); give a hub name that can "
                "be reached, or a local folder with config.json, the weights and the tokenizer"
            ) from error
        _check_complete(name, model, tokenizer, loading, max_length)
        super().__init__(model.config.hidden_size, freeze, lr_multiplier, feature_dropout, centre)
        self.model, self.tokenizer, self.max_length = model, tokenizer, max_length
        self.pretraining = "image-text" if "clip" in str(model.config.model_type) else _pretraining(name)
        if getattr(model, "pooler", None) is not None:
            model.pooler = None  # unused, and DDP stops at weights that never get a gradient
        self.model.train()  # transformers returns models in evaluation mode, without dropout
        self.freeze_if_asked()


_CAPTIONS = re.compile("caption|flickr|coco|snli|all-nli", re.IGNORECASE)
"""Names of data sets with captions of photographs; the premises of SNLI are captions of Flickr30K."""


def _pretraining(name: str) -> str:
    """Pretraining class of a language model: "captions" if the head of its model card names data sets of captions."""
    from transformers.utils import cached_file

    card = cached_file(
        name,
        "README.md",
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    head = Path(card).read_text("utf-8", "replace").split("---")[1:2] if card else []
    return "captions" if _CAPTIONS.search("".join(head)) else "unimodal"


def _check_complete(name: str, model: Any, tokenizer: Any, loading: Mapping[str, Any], max_length: int) -> None:
    """Refuse a model without its weights or its vocabulary, and one that does not read texts as BERT does.

    Raises:
        InputError: says what is wrong.
    """
    config = model.config
    missing = sorted(key for key in loading["missing_keys"] if not key.startswith("pooler."))
    parts = {key.partition(".")[0] for key in model.state_dict()}
    names = [key.removeprefix(f"{model.base_model_prefix}.") for key in loading["unexpected_keys"]]
    surplus = sorted(key for key in names if key.partition(".")[0] in parts and re.search(r"\.\d+\.", key))  # layers
    if surplus:
        raise InputError(
            f"text encoder {name}: config.json has fewer layers than the weights ({len(surplus)} are left over, "
            f"{surplus[0]}, ...); put the config of these weights beside them"
        )
    if missing:
        raise InputError(
            f"text encoder {name}: {len(missing)} of its weights are missing ({missing[0]}, ...); give a folder with "
            "all of them, under the names that transformers uses"
        )
    if config.is_encoder_decoder or tokenizer.pad_token is None:
        raise InputError(f"text encoder {name}: {config.model_type} is not an encoder like BERT; give one")
    if not 0.9 * config.vocab_size <= len(tokenizer) <= config.vocab_size:  # models pad their vocabulary a little
        raise InputError(
            f"text encoder {name}: the model knows {config.vocab_size} tokens and the tokenizer {len(tokenizer)}; put "
            "the files of its own tokenizer (tokenizer.json, or vocab.txt) beside it"
        )
    longest = getattr(config, "max_position_embeddings", max_length)
    if longest < max_length:
        raise InputError(f"text encoder {name}: reads at most {longest} tokens; set max_length to that or less")


class LearnedTextEncoder(TextEncoder):
    """Base of the text encoders trained from scratch: a WordPiece vocabulary is learned from the training texts.

    The vocabulary is part of the checkpoint, so that a trained model reads other datasets with its own vocabulary.
    """

    tokenizer: Any = None
    vocab_size: int

    def fit(self, source: ImageFiles | Features | Strings, rows: Rows) -> None:
        """Learn the vocabulary from the training texts, once."""
        super().fit(source, rows)
        if self.tokenizer is None:
            self.tokenizer = _wrap(_learn_wordpiece(tuple(str(source[row]) for row in rows), self.vocab_size))

    def unknown_words(self, text: str, ids: Sequence[int]) -> list[str]:
        """Words that the vocabulary lacks, because no training text has them, or few, and that are read in pieces."""
        parts = self.tokenizer.backend_tokenizer
        words = [word for word, _ in parts.pre_tokenizer.pre_tokenize_str(parts.normalizer.normalize_str(text))]
        unknown = [word for word in words if parts.token_to_id(word) is None]
        return [word for word in unknown if not unicodedata.category(word[0]).startswith("P")]  # no punctuation

    def get_extra_state(self) -> Tensor:
        """The tokenizer as a tensor of bytes (uint8), so that checkpoints hold no pickled objects."""
        if self.tokenizer is None:
            return torch.empty(0, dtype=torch.uint8)
        return torch.frombuffer(bytearray(tokenizer_state(self.tokenizer).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        from tokenizers import Tokenizer

        if len(state):
            try:
                self.tokenizer = _wrap(Tokenizer.from_str(bytes(state.cpu().numpy()).decode()))
            except Exception as error:  # tokenizers raises no other
                raise InputError(f"the tokenizer of the checkpoint is damaged ({error}); use another one") from None


class ScratchTextEncoder(LearnedTextEncoder):
    """A small BERT with random weights and a WordPiece vocabulary learned from the training texts.

    Args:
        width: size of the hidden states.
        depth: number of layers.
        heads: number of attention heads.
        vocab_size: most pieces that the vocabulary may hold.
        max_length: longer texts are cut to this many tokens, special ones included.
        dropout: probability, in training, of dropping a hidden unit or an attention weight.
        lr_multiplier: factor on the learning rate of these weights.
    """

    def __init__(
        self,
        width: int = 128,
        depth: int = 2,
        heads: int = 4,
        vocab_size: int = 5000,
        max_length: int = 40,
        dropout: float = 0.0,
        lr_multiplier: float = 1.0,
    ) -> None:
        from transformers import BertConfig, BertModel

        super().__init__(width, lr_multiplier=lr_multiplier)
        config = BertConfig(
            vocab_size=vocab_size,
            hidden_size=width,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            max_position_embeddings=max_length,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
        self.model = BertModel(config, add_pooling_layer=False)
        self.vocab_size, self.max_length = vocab_size, max_length


@dataclass(frozen=True)
class TokenProcessor:
    """Texts -> ``{"input_ids", "attention_mask"}``, int64 `[B, L]`, padded to the longest of the batch."""

    tokenizer: Any
    max_length: int

    def __call__(self, items: Sequence[str], train: bool) -> Inputs:
        encoded = self.tokenizer(
            list(items),
            padding=True,
            truncation=True,
            max_length=self.max_length,
            return_token_type_ids=False,
            return_tensors="pt",
        )
        return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


def tokenizer_state(tokenizer: Any) -> str:
    """A fast tokenizer as JSON, without the padding and truncation that its last call left in it."""
    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    backend.no_truncation()
    backend.no_padding()
    state: str = backend.to_str()
    return state


def transformers_model(model: Any) -> str:
    """Everything but its weights that decides the output of a transformers model."""
    return f"transformers {version('transformers')} {model.config.to_json_string()}"


@lru_cache(maxsize=4)  # the methods of a benchmark learn from the same texts
def _learn_wordpiece(texts: tuple[str, ...], vocab_size: int) -> Any:
    """A WordPiece tokenizer (BERT's lower-casing and splitting) learned from texts; deterministic.

    The trainer numbers the letters inside words in the order in which it meets them, which changes from run to run, and
    breaks ties by number. It is therefore given all letters first, sorted; a fresh tokenizer then takes the vocabulary.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    def tokenizer(vocabulary: dict[str, int] | None) -> Any:
        made = Tokenizer(models.WordPiece(vocabulary, unk_token=SPECIAL["unk_token"]))
        made.normalizer = normalizers.BertNormalizer(lowercase=True)
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        return made

    learner = tokenizer(None)
    letters = sorted({letter for text in texts for letter in learner.normalizer.normalize_str(text)} - {" "})
    first = [*SPECIAL.values(), *(f"##{letter}" for letter in letters)]
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=first, show_progress=False)
    learner.train_from_iterator(texts, trainer)
    learned = tokenizer(learner.get_vocab())
    ends = [(token, learned.token_to_id(token)) for token in (SPECIAL["cls_token"], SPECIAL["sep_token"])]
    learned.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return learned


def _wrap(tokenizer: Any) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL)
