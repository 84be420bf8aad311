//! Sentence transformers: models of the BERT family as [their Python original](https://sbert.net) saves them.
//!
//! Receives a folder with `config.json`, `tokenizer.json` and `model.safetensors`, and with `modules.json` and `1_Pooling` where
//! the original wrote them; hands on vectors equal to the original's up to rounding.

mod config;
mod encoder;

use std::{
    fmt, fs,
    io::Read,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use lakehouse_contract::{dataset::hex, embed::ModelIdentity};
use lakehouse_embed::{EmbedError, LocalModel, Reason, Vector};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use tokenizers::{Tokenizer, TruncationParams};
use tracing::warn;

use crate::Unusable;
use config::Recipe;
use encoder::{Encoder, Weights, normalised, pool};

/// The file of weights.
pub(crate) const WEIGHTS: &str = "model.safetensors";
/// The file of tokens.
const TOKENIZER: &str = "tokenizer.json";
/// Files that decide about vectors: those at the top of a model's folder, and those of its pooling.
pub(crate) const FILES: [&str; 7] = [
    "config.json",
    "config_sentence_transformers.json",
    "modules.json",
    "sentence_bert_config.json",
    TOKENIZER,
    "tokenizer_config.json",
    WEIGHTS,
];
/// Tokens that are computed at a time, padding too.
const PIECE_TOKENS: usize = 2_048;
/// Texts that are computed at a time.
const PIECE_TEXTS: usize = 32;

/// A loaded model.
pub struct SentenceTransformer {
    identity: ModelIdentity,
    recipe: Recipe,
    tokenizer: Tokenizer,
    encoder: Encoder,
    /// Whether it was said that texts are cut.
    warned: AtomicBool,
}

impl fmt::Debug for SentenceTransformer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SentenceTransformer").field(&self.identity).finish()
    }
}

/// A text's tokens, and where it stands in its list.
struct Tokens {
    at: usize,
    ids: Vec<u32>,
}

impl SentenceTransformer {
    /// Loads a folder under a name. Blocks, for as long as reading its weights takes.
    pub fn load(name: &str, folder: &Path) -> Result<Self, Unusable> {
        let recipe = Recipe::read(folder)?;
        let tokenizer = tokenizer(folder, recipe.max_tokens)?;
        let wrong = |error: candle_core::Error| Unusable::new(WEIGHTS, error.to_string());
        let weights = Weights::load(&config::file(folder, WEIGHTS)?).map_err(wrong)?;
        let encoder = Encoder::load(&weights, &recipe.encoder, recipe.max_tokens).map_err(wrong)?;
        if tokenizer.get_vocab_size(true) > encoder.vocabulary() {
            let what = format!("it has more tokens than the {} that {WEIGHTS} has", encoder.vocabulary());
            return Err(Unusable::new(TOKENIZER, what));
        }
        let identity = ModelIdentity {
            model: format!("local/{name}"),
            digest: digest(folder)?,
            dimension: u32::try_from(recipe.dimension())
                .map_err(|_| Unusable::new("config.json", "its vectors are too long".to_owned()))?,
            normalised: recipe.normalise,
        };
        Ok(Self { identity, recipe, tokenizer, encoder, warned: AtomicBool::new(false) })
    }

    fn tokens(&self, texts: &[&str]) -> Result<Vec<Tokens>, EmbedError> {
        let given: Vec<String> = texts
            .iter()
            .map(|text| {
                let text = format!("{}{text}", self.recipe.prompt);
                if self.recipe.lowercase { text.to_lowercase() } else { text }
            })
            .collect();
        let encodings = self.tokenizer.encode_batch_fast(given, true).map_err(|error| self.failed(&error))?;
        let cut = encodings.iter().filter(|encoding| !encoding.get_overflowing().is_empty()).count();
        if cut > 0 && !self.warned.swap(true, Ordering::Relaxed) {
            let (model, tokens) = (&self.identity.model, self.recipe.max_tokens);
            warn!(
                model,
                tokens,
                "Texts are longer than the {tokens} tokens of `{model}`: the rest of each is not looked at"
            );
        }
        if let Some(at) = encodings.iter().position(tokenizers::Encoding::is_empty) {
            let says = format!("model `{}` finds no token in it", self.identity.model);
            return Err(EmbedError::new(Reason::EmptyText, says).at(at));
        }
        let tokens = encodings.iter().enumerate();
        Ok(tokens.map(|(at, encoding)| Tokens { at, ids: encoding.get_ids().to_vec() }).collect())
    }

    fn compute(&self, piece: &[Tokens]) -> candle_core::Result<Vec<Vec<f32>>> {
        let longest = piece.iter().map(|tokens| tokens.ids.len()).max().unwrap_or(0);
        let lengths: Vec<usize> = piece.iter().map(|tokens| tokens.ids.len()).collect();
        let mut ids = Vec::with_capacity(piece.len() * longest);
        for tokens in piece {
            ids.extend(&tokens.ids);
            // Whatever stands there is hidden from attention and pooling.
            ids.resize(ids.len().next_multiple_of(longest), 0);
        }
        let tokens = self.encoder.forward(&ids, &lengths)?;
        let pooled: Vec<_> = self
            .recipe
            .pooling
            .iter()
            .map(|&way| pool(&tokens, &lengths, way))
            .collect::<candle_core::Result<_>>()?;
        let mut vectors = candle_core::Tensor::cat(&pooled, 1)?;
        if self.recipe.normalise {
            vectors = normalised(&vectors)?;
        }
        vectors.to_vec2()
    }

    fn failed(&self, error: &dyn fmt::Display) -> EmbedError {
        EmbedError::new(Reason::Unusable, format!("model `{}` failed: {error}", self.identity.model))
    }
}

impl LocalModel for SentenceTransformer {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    /// Texts of like length are computed together.
    fn embed(&self, texts: &[&str]) -> Result<Vec<Vector>, EmbedError> {
        let mut tokens = self.tokens(texts)?;
        tokens.sort_by_key(|tokens| tokens.ids.len());
        let computed = pieces(&tokens)
            .into_par_iter()
            .map(|piece| Ok((piece, self.compute(piece).map_err(|error| self.failed(&error))?)))
            .collect::<Result<Vec<_>, EmbedError>>()?;
        let mut vectors = vec![Vector::from([]); texts.len()];
        for (piece, computed) in computed {
            for (tokens, vector) in piece.iter().zip(computed) {
                if vector.iter().any(|number| !number.is_finite()) {
                    return Err(self.failed(&"its weights give numbers that are none").at(tokens.at));
                }
                vectors[tokens.at] = vector.into();
            }
        }
        Ok(vectors)
    }
}

/// Of texts in the order of their lengths.
fn pieces(tokens: &[Tokens]) -> Vec<&[Tokens]> {
    let mut pieces = Vec::new();
    let mut rest = tokens;
    while !rest.is_empty() {
        let fits = |&(count, tokens): &(usize, &Tokens)| (count + 1) * tokens.ids.len() <= PIECE_TOKENS;
        let count = rest.iter().take(PIECE_TEXTS).enumerate().take_while(fits).count().max(1);
        let (piece, others) = rest.split_at(count);
        pieces.push(piece);
        rest = others;
    }
    pieces
}

/// Neither padding nor cutting as the file may ask for: the model's own length counts.
fn tokenizer(folder: &Path, max_tokens: usize) -> Result<Tokenizer, Unusable> {
    let wrong = |error: tokenizers::Error| Unusable::new(TOKENIZER, error.to_string());
    let mut tokenizer = Tokenizer::from_file(config::file(folder, TOKENIZER)?).map_err(wrong)?;
    let cut = TruncationParams { max_length: max_tokens, ..TruncationParams::default() };
    tokenizer.with_padding(None).with_truncation(Some(cut)).map_err(wrong)?;
    Ok(tokenizer)
}

/// SHA-256 over the names and contents of all files that decide about vectors.
fn digest(folder: &Path) -> Result<String, Unusable> {
    let mut names: Vec<String> = FILES.iter().map(|&name| name.to_owned()).collect();
    let folders = fs::read_dir(folder).map_err(|error| Unusable::new("the folder", error.to_string()))?;
    for entry in folders.flatten() {
        if let Some(name) = entry.file_name().to_str()
            && is_pooling(name)
        {
            names.push(format!("{name}/config.json"));
        }
    }
    names.sort();
    let mut all = Sha256::new();
    for name in names {
        let path = folder.join(&name);
        if path.is_file() {
            let content = file_digest(&path).map_err(|error| Unusable::new(&name, error.to_string()))?;
            all.update(format!("{name} {content}\n"));
        }
    }
    Ok(format!("sha256:{}", hex(&all.finalize())))
}

/// `1_Pooling`
pub(crate) fn is_pooling(folder: &str) -> bool {
    folder.ends_with("_Pooling")
}

fn file_digest(path: &Path) -> std::io::Result<String> {
    let mut file = fs::File::open(path)?;
    let (mut hash, mut piece) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hex(&hash.finalize())),
            count => hash.update(&piece[..count]),
        }
    }
}
