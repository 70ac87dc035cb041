"""A CLIP of a few thousand random weights in a folder, as published ones are saved."""

from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer


def save_toy_clip(folder: Path) -> CLIPModel:
    """Save model, image processor and tokenizer (letters, and two words made of merges) into a folder."""
    letters = sorted(ByteLevel.alphabet())
    merges = [("r", "e"), ("re", "d</w>"), ("b", "l"), ("bl", "u"), ("blu", "e</w>")]
    ends = ["<|startoftext|>", "<|endoftext|>"]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges), *ends]
    CLIPTokenizer({piece: number for number, piece in enumerate(pieces)}, merges).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    end = len(pieces) - 1
    text = {"vocab_size": end + 1, "max_position_embeddings": 24, "bos_token_id": end - 1, "eos_token_id": end}
    config = CLIPConfig(
        text_config=sizes | text,
        vision_config=sizes | {"hidden_size": 48, "image_size": 32, "patch_size": 8},
        projection_dim=16,
        logit_scale_init_value=3.0,
    )
    torch.manual_seed(0)
    model = CLIPModel(config).eval()
    model.save_pretrained(folder)
    return model
