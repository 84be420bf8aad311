//! Two tiny models with random weights in [GGUF](https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), so that a real
//! Ollama is tested without a download. What they say is noise; protocol, token counts and dimensions are real.

use std::{fs, io, path::Path};

/// Numbers of a token's vector, and so of an embedding.
pub(crate) const WIDTH: usize = 64;
/// The most tokens of a text.
pub(crate) const CONTEXT: usize = 512;
const FORWARD: usize = 128;
const LAYERS: usize = 2;
const HEADS: usize = 4;
/// Where tensors begin, and what each is filled up to.
const ALIGNMENT: usize = 32;
const F32: u32 = 0;

/// What llama.cpp calls the kinds of tokens.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const BYTE: i32 = 6;

/// A BERT of two layers: embeddings of [`WIDTH`] numbers over words of single characters.
pub(crate) fn write_embed(path: &Path) -> io::Result<()> {
    let letters: Vec<char> = (33..=126_u8).map(char::from).filter(|c| !c.is_ascii_uppercase()).collect();
    let mut tokens: Vec<String> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned).to_vec();
    let mut kinds = vec![CONTROL; tokens.len()];
    // A leading ▁ starts a word, a bare token goes on with it.
    tokens.extend(letters.iter().map(|c| format!("▁{c}")));
    tokens.extend(letters.iter().map(char::to_string));
    kinds.resize(tokens.len(), NORMAL);

    let mut file = File::new("bert", "tiny-embed");
    file.float("bert.attention.layer_norm_epsilon", 1e-12);
    file.flag("bert.attention.causal", false);
    // The mean of all tokens.
    file.number("bert.pooling_type", 1);
    file.number("tokenizer.ggml.token_type_count", 2);
    file.vocabulary("bert", &tokens, &kinds);
    for (name, token) in
        [("padding", 0), ("unknown", 1), ("bos", 2), ("seperator", 3), ("eos", 3), ("mask", 4)]
    {
        file.number(&format!("tokenizer.ggml.{name}_token_id"), token);
    }

    file.weight("token_embd.weight", &[WIDTH, tokens.len()]);
    file.weight("token_types.weight", &[WIDTH, 2]);
    file.weight("position_embd.weight", &[WIDTH, CONTEXT]);
    file.norm("token_embd_norm");
    for layer in 0..LAYERS {
        for name in ["attn_q", "attn_k", "attn_v", "attn_output"] {
            file.dense(&format!("blk.{layer}.{name}"), WIDTH, WIDTH);
        }
        file.norm(&format!("blk.{layer}.attn_output_norm"));
        file.dense(&format!("blk.{layer}.ffn_up"), FORWARD, WIDTH);
        file.dense(&format!("blk.{layer}.ffn_down"), WIDTH, FORWARD);
        file.norm(&format!("blk.{layer}.layer_output_norm"));
    }
    fs::write(path, file.bytes())
}

/// A llama of two layers over bytes.
pub(crate) fn write_chat(path: &Path) -> io::Result<()> {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    let mut kinds = vec![UNKNOWN, CONTROL, CONTROL];
    tokens.extend((0..=255_u8).map(|byte| format!("<0x{byte:02X}>")));
    kinds.resize(tokens.len(), BYTE);
    let letters = ('a'..='z').chain('A'..='Z').chain('0'..='9').chain(" .,!?▁".chars());
    tokens.extend(letters.map(String::from));
    kinds.resize(tokens.len(), NORMAL);

    let mut file = File::new("llama", "tiny-chat");
    file.number("llama.attention.head_count_kv", HEADS);
    file.float("llama.attention.layer_norm_rms_epsilon", 1e-5);
    file.number("llama.rope.dimension_count", WIDTH / HEADS);
    file.number("llama.vocab_size", tokens.len());
    file.vocabulary("llama", &tokens, &kinds);
    for (name, token) in [("unknown", 0), ("bos", 1), ("eos", 2)] {
        file.number(&format!("tokenizer.ggml.{name}_token_id"), token);
    }

    file.weight("token_embd.weight", &[WIDTH, tokens.len()]);
    for layer in 0..LAYERS {
        file.tensor(&format!("blk.{layer}.attn_norm.weight"), &[WIDTH], |_| 1.0);
        for name in ["attn_q", "attn_k", "attn_v", "attn_output"] {
            file.weight(&format!("blk.{layer}.{name}.weight"), &[WIDTH, WIDTH]);
        }
        file.tensor(&format!("blk.{layer}.ffn_norm.weight"), &[WIDTH], |_| 1.0);
        file.weight(&format!("blk.{layer}.ffn_gate.weight"), &[WIDTH, FORWARD]);
        file.weight(&format!("blk.{layer}.ffn_up.weight"), &[WIDTH, FORWARD]);
        file.weight(&format!("blk.{layer}.ffn_down.weight"), &[FORWARD, WIDTH]);
    }
    file.tensor("output_norm.weight", &[WIDTH], |_| 1.0);
    file.weight("output.weight", &[WIDTH, tokens.len()]);
    fs::write(path, file.bytes())
}

/// A file in the making.
struct File {
    architecture: &'static str,
    values: Vec<u8>,
    value_count: u64,
    tensors: Vec<u8>,
    tensor_count: u64,
    data: Vec<u8>,
    random: u64,
}

impl File {
    fn new(architecture: &'static str, name: &str) -> Self {
        let mut file = Self {
            architecture,
            values: Vec::new(),
            value_count: 0,
            tensors: Vec::new(),
            tensor_count: 0,
            data: Vec::new(),
            random: 7,
        };
        file.text("general.architecture", architecture);
        file.text("general.name", name);
        for (key, number) in [
            ("context_length", CONTEXT),
            ("embedding_length", WIDTH),
            ("block_count", LAYERS),
            ("feed_forward_length", FORWARD),
            ("attention.head_count", HEADS),
        ] {
            file.number(&format!("{}.{key}", file.architecture), number);
        }
        file
    }

    fn vocabulary(&mut self, model: &str, tokens: &[String], kinds: &[i32]) {
        self.text("tokenizer.ggml.model", model);
        self.text("tokenizer.ggml.pre", "default");
        self.list("tokenizer.ggml.tokens", 8, tokens.iter().map(|token| text(token)));
        self.list("tokenizer.ggml.scores", 6, tokens.iter().map(|_| 0.0_f32.to_le_bytes().to_vec()));
        self.list("tokenizer.ggml.token_type", 5, kinds.iter().map(|kind| kind.to_le_bytes().to_vec()));
    }

    fn value(&mut self, key: &str, kind: u32, value: &[u8]) {
        self.value_count += 1;
        self.values.extend(text(key));
        self.values.extend(kind.to_le_bytes());
        self.values.extend(value);
    }

    fn number(&mut self, key: &str, number: usize) {
        self.value(key, 4, &u32::try_from(number).expect("a small number").to_le_bytes());
    }

    fn float(&mut self, key: &str, number: f32) {
        self.value(key, 6, &number.to_le_bytes());
    }

    fn flag(&mut self, key: &str, flag: bool) {
        self.value(key, 7, &[u8::from(flag)]);
    }

    fn text(&mut self, key: &str, value: &str) {
        self.value(key, 8, &text(value));
    }

    fn list(&mut self, key: &str, kind: u32, items: impl ExactSizeIterator<Item = Vec<u8>>) {
        let mut value = kind.to_le_bytes().to_vec();
        value.extend((items.len() as u64).to_le_bytes());
        value.extend(items.flatten());
        self.value(key, 9, &value);
    }

    /// A tensor of numbers; the first dimension is the one that lies together.
    fn tensor(&mut self, name: &str, shape: &[usize], mut number: impl FnMut(&mut u64) -> f32) {
        self.tensor_count += 1;
        self.tensors.extend(text(name));
        self.tensors.extend(u32::try_from(shape.len()).expect("few dimensions").to_le_bytes());
        self.tensors.extend(shape.iter().flat_map(|&length| (length as u64).to_le_bytes()));
        self.tensors.extend(F32.to_le_bytes());
        self.tensors.extend((self.data.len() as u64).to_le_bytes());
        for _ in 0..shape.iter().product() {
            self.data.extend(number(&mut self.random).to_le_bytes());
        }
        fill_up(&mut self.data);
    }

    fn weight(&mut self, name: &str, shape: &[usize]) {
        self.tensor(name, shape, random);
    }

    fn dense(&mut self, name: &str, rows: usize, columns: usize) {
        self.weight(&format!("{name}.weight"), &[columns, rows]);
        self.weight(&format!("{name}.bias"), &[rows]);
    }

    fn norm(&mut self, name: &str) {
        self.tensor(&format!("{name}.weight"), &[WIDTH], |_| 1.0);
        self.tensor(&format!("{name}.bias"), &[WIDTH], |_| 0.0);
    }

    fn bytes(self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3_u32.to_le_bytes());
        bytes.extend(self.tensor_count.to_le_bytes());
        bytes.extend(self.value_count.to_le_bytes());
        bytes.extend(self.values);
        bytes.extend(self.tensors);
        fill_up(&mut bytes);
        bytes.extend(self.data);
        bytes
    }
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

fn fill_up(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
}

/// Evenly spread around 0, with a deviation of about 0.2 ([xorshift](https://www.jstatsoft.org/article/view/v008i14)).
fn random(state: &mut u64) -> f32 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    #[allow(clippy::cast_possible_truncation, reason = "the upper 24 bits fit")]
    let upper = (*state >> 40) as u32;
    (upper as f32 / 16_777_216.0 - 0.5) * 0.7
}
