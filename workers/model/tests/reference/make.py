"""Writes tiny sentence transformers with random weights, and the vectors that the original computes from them.

    pip install torch sentence-transformers
    python make.py                 anew into this folder; what is there already is the same up to the libraries' versions

Each folder is a model as `SentenceTransformer.save` writes it, so that the reader is tested on what people have.
`vectors.json` in it holds texts and their vectors.
"""
import json
import shutil
import sys
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig, BertModel, DistilBertConfig, DistilBertModel, MPNetConfig, MPNetModel, PreTrainedTokenizerFast,
    RobertaConfig, RobertaModel, XLMRobertaConfig, XLMRobertaModel,
)

HERE = Path(__file__).parent
WIDTH, FORWARD, LAYERS, HEADS, POSITIONS = 16, 32, 2, 4, 48
TEXTS = [
    "Forklift operator",
    "forklift operator in Chicago, night shifts, certified",
    "a",
    "  spaces around  ",
    "Zürich, 8001: naïve café owner",
    "日本語のテキスト",
    "!?",
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen",
]
CORPUS = [*TEXTS, "the quick brown fox jumps over the lazy dog", "operators of machines work in the night"]


def word_pieces():
    """BERT's: lower case, pieces of words."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=150, special_tokens=special))
    return tokenizer, "[CLS]", "[SEP]", special


def byte_pairs():
    """RoBERTa's: bytes, spaces belong to words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer, "<s>", "</s>", special


def unigrams():
    """XLM-RoBERTa's: pieces of text by their likelihood."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(
        CORPUS, trainers.UnigramTrainer(vocab_size=150, special_tokens=special, unk_token="<unk>")
    )
    return tokenizer, "<s>", "</s>", special


def finished(made):
    tokenizer, start, end, special = made
    ids = [(token, tokenizer.token_to_id(token)) for token in (start, end)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", pair=f"{start} $A {end} $B:1 {end}:1", special_tokens=ids
    )
    # As files in the wild do, it asks for padding and cutting of its own, which a reader must not follow.
    tokenizer.enable_padding(length=40, pad_id=tokenizer.token_to_id(special[0]), pad_token=special[0])
    tokenizer.enable_truncation(max_length=8)
    pad = "[PAD]" if "[PAD]" in special else "<pad>"
    unknown = "[UNK]" if "[UNK]" in special else "<unk>"
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, unk_token=unknown, cls_token=start, sep_token=end,
        bos_token=start, eos_token=end, mask_token=special[-1], model_max_length=POSITIONS - 8,
    )


def usual(config, tokenizer, **more):
    return config(
        vocab_size=len(tokenizer), hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        intermediate_size=FORWARD, max_position_embeddings=POSITIONS, pad_token_id=tokenizer.pad_token_id, **more,
    )


def save(name, model, tokenizer, modules, cut=None):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(11)
    with torch.no_grad():
        # Larger than those of a model before its training, so that each of them counts.
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4 + (1 if "norm" in name else 0))
    parts = folder / "parts"
    parts.mkdir(parents=True)
    model.eval().save_pretrained(parts)
    tokenizer.save_pretrained(parts)
    sentence = SentenceTransformer(
        modules=[Transformer(str(parts), max_seq_length=cut), *modules], device="cpu"
    )
    sentence.eval()
    vectors = sentence.encode(TEXTS, batch_size=3, convert_to_numpy=True)
    sentence.save(str(folder), create_model_card=False)
    shutil.rmtree(parts)
    (folder / "README.md").unlink(missing_ok=True)
    rounded = [[round(float(number), 7) for number in vector] for vector in vectors]
    (folder / "vectors.json").write_text(json.dumps({"texts": TEXTS, "vectors": rounded}, ensure_ascii=False) + "\n")
    print(name, vectors.shape, sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()), "bytes")


def main():
    pieces, pairs, grams = finished(word_pieces()), finished(byte_pairs()), finished(unigrams())
    save("bert", BertModel(usual(BertConfig, pieces)), pieces, [Pooling(WIDTH, "mean"), Normalize()], cut=16)
    save("bert-cls", BertModel(usual(BertConfig, pieces, hidden_act="gelu_new")), pieces, [Pooling(WIDTH, ("cls", "max"))])
    roberta = usual(RobertaConfig, pairs, type_vocab_size=1)
    save("roberta", RobertaModel(roberta), pairs, [Pooling(WIDTH, "mean")])
    xlm = usual(XLMRobertaConfig, grams, type_vocab_size=1)
    save("xlm-roberta", XLMRobertaModel(xlm), grams, [Pooling(WIDTH, "max"), Normalize()])
    distil = DistilBertConfig(
        vocab_size=len(pieces), dim=WIDTH, n_layers=LAYERS, n_heads=HEADS, hidden_dim=FORWARD,
        max_position_embeddings=POSITIONS, pad_token_id=pieces.pad_token_id,
    )
    save("distilbert", DistilBertModel(distil), pieces, [Pooling(WIDTH, "mean"), Normalize()])
    mpnet = usual(MPNetConfig, pairs)
    save("mpnet", MPNetModel(mpnet), pairs, [Pooling(WIDTH, "mean"), Normalize()])


if __name__ == "__main__":
    sys.exit(main())
