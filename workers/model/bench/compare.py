"""Texts a second, ours beside the original's. Run by run.sh: compare.py SPEED FOLDER TEXTS"""
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

WORDS = 30_000


def word(number):
    """A pronounceable word for each number."""
    letters = []
    while True:
        number, digit = divmod(number, 100)
        letters.append("bdfghklmnprstvwzcjxq"[digit % 20] + "aeiou"[digit // 20])
        if not number:
            return "".join(letters)


def make_texts(count):
    """From 3 to about 60 words, few of them often and many rarely, as in real texts."""
    choose = random.Random(1)
    def text():
        length = min(60, 3 + int(choose.expovariate(1 / 14)))
        return " ".join(word(min(WORDS - 1, int(choose.paretovariate(0.6)))) for _ in range(length))
    return [text() for _ in range(count)]


def make_model(folder):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    known = special + sorted({word(number) for number in range(WORDS)})
    tokenizer = Tokenizer(models.WordPiece({token: at for at, token in enumerate(known)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=256,
    )
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(known), hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536,
        max_position_embeddings=512,
    )
    parts = folder / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    BertModel(config).eval().save_pretrained(parts)
    fast.save_pretrained(parts)
    modules = [Transformer(str(parts), max_seq_length=256), Pooling(384, "mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)
    shutil.rmtree(parts)


def original(folder, texts, threads):
    torch.set_num_threads(threads)
    model = SentenceTransformer(str(folder), device="cpu")
    best, vectors = 0, None
    model.encode(texts[:64], batch_size=32)
    for _ in range(3):
        started = time.perf_counter()
        vectors = model.encode(texts, batch_size=32, convert_to_numpy=True)
        best = max(best, len(texts) / (time.perf_counter() - started))
    return best, vectors


def main():
    speed, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    model, file = folder / "minilm-shaped", folder / f"texts-{count}.txt"
    if not (model / "modules.json").exists():
        make_model(model)
    texts = make_texts(count)
    file.write_text("\n".join(texts) + "\n")

    cores = len(os.sched_getaffinity(0))
    print(f"{count:,} texts, a model of the shape of all-MiniLM-L6-v2 (6 layers of 384), texts/s, best of 3\n")
    print(f"{'threads':>8} {'lakehouse':>10} {'original':>10} {'ratio':>7}")
    ours = {}
    for threads in sorted({1, cores}):
        ran = subprocess.run(
            [speed, model, file], check=True, capture_output=True, env={**os.environ, "RAYON_NUM_THREADS": str(threads)}
        )
        ours = json.loads(ran.stdout)
        theirs, vectors = original(model, texts, threads)
        apart = np.abs(np.array(ours["vectors"]) - vectors[:8]).max()
        if apart > 1e-4:
            sys.exit(f"the vectors are {apart} apart: nothing was compared")
        print(f"{threads:>8} {ours['transformer']:>10,.0f} {theirs:>10,.0f} {ours['transformer'] / theirs:>7.2f}")
    print(f"\nlexical (384): {ours['lexical']:,.0f} texts/s on one thread, {ours['lexical_all_threads']:,.0f} on {cores}")
    print(f"a text that is in the cache: {ours['cache_hit_ns']:,.0f} ns")


if __name__ == "__main__":
    main()
