//! `lexical`: a model without weights, for everything that shall work before a real one is chosen.
//!
//! Two texts are near each other when they share words, or parts of words: spelling, names and codes are found, synonyms are not,
//! nor is the same thing in another language. Words and their runs of three and four characters are hashed into a vector's
//! places with a sign ([feature hashing](https://arxiv.org/abs/0902.2206), with the word parts of
//! [fastText](https://arxiv.org/abs/1607.04606)); what occurs often counts with the root of how often; the length is one.
//!
//! Equal texts give equal bits on every machine: only operations that IEEE 754 rounds in one way are used, in a fixed order.
//! Whatever would change a bit counts [`VERSION`] up, and with it the identity's digest.

use lakehouse_contract::{embed::ModelIdentity, vectors::MAX_DIMENSION};
use lakehouse_embed::{EmbedError, LocalModel, Vector};
use rayon::prelude::*;

/// The version of the algorithm.
const VERSION: u32 = 1;
/// The name of the model with the usual dimension.
pub const NAME: &str = "lexical";
const DEFAULT_DIMENSION: u32 = 384;
/// With fewer places, most features would share theirs with others.
const MIN_DIMENSION: u32 = 32;
/// What all parts of a word count together, beside the word itself.
const PARTS: f32 = 1.0;
/// Texts of a list that one thread takes at a time.
const PIECE: usize = 32;

/// The model for one dimension.
#[derive(Clone, Debug)]
pub struct Lexical {
    identity: ModelIdentity,
}

impl Lexical {
    /// `lexical` (384 numbers) or `lexical-<n>` (32 to 16,384); `None` for any other name.
    pub fn named(name: &str) -> Option<Self> {
        let dimension = if name == NAME {
            DEFAULT_DIMENSION
        } else {
            let digits = name.strip_prefix(NAME)?.strip_prefix('-')?;
            let dimension: u32 = digits.parse().ok()?;
            // One model has one name: no `+64`, no `064`.
            (dimension.to_string() == digits).then_some(dimension)?
        };
        if !(MIN_DIMENSION..=MAX_DIMENSION).contains(&dimension) {
            return None;
        }
        let model = format!("local/{name}");
        let digest = format!("{NAME}-v{VERSION}-{dimension}");
        Some(Self { identity: ModelIdentity { model, digest, dimension, normalised: true } })
    }

    /// The vector of one text; a text without any letter or digit is taken for one word.
    pub fn vector(&self, text: &str) -> Vector {
        let mut features = Features::default();
        features.add_text(text);
        features.vector(self.identity.dimension as usize).into()
    }
}

impl LocalModel for Lexical {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vector>, EmbedError> {
        let one = |text: &&str| self.vector(text);
        if texts.len() <= PIECE {
            return Ok(texts.iter().map(one).collect());
        }
        Ok(texts.par_iter().with_min_len(PIECE).map(one).collect())
    }

    fn is_quick(&self) -> bool {
        true
    }
}

/// Hashes of a text's words and parts of words, each with the square of what it counts.
#[derive(Default)]
struct Features {
    found: Vec<(u64, f32)>,
    word: String,
    /// Where the characters of `word` begin, and its end.
    starts: Vec<usize>,
}

impl Features {
    fn add_text(&mut self, text: &str) {
        for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
            self.add_word(word);
        }
        if self.found.is_empty() {
            self.add_word(text);
        }
    }

    fn add_word(&mut self, word: &str) {
        // Markers tell the parts at a word's ends from those within.
        self.word.clear();
        self.word.push('^');
        self.word.extend(word.chars().flat_map(char::to_lowercase));
        self.word.push('$');
        self.starts.clear();
        self.starts.extend(self.word.char_indices().map(|(at, _)| at));
        self.starts.push(self.word.len());

        let weight = weight(self.starts.len() - 3, word);
        self.found.push((hash(self.word.as_bytes()), weight * weight));
        let characters = self.starts.len() - 1;
        let runs = |length: usize| (characters + 1).saturating_sub(length);
        // A part that is the whole word would count twice.
        let lengths = [3, 4].into_iter().filter(|&length| length < characters);
        let parts: usize = lengths.clone().map(runs).sum();
        if parts == 0 {
            return;
        }
        let share = PARTS * PARTS * weight * weight / parts as f32;
        for length in lengths {
            for ends in self.starts.windows(length + 1) {
                let part = &self.word.as_bytes()[ends[0]..ends[length]];
                self.found.push((hash(part), share));
            }
        }
    }

    fn vector(mut self, dimension: usize) -> Vec<f32> {
        // In one order, so that sums are rounded in one way. Equal hashes have equal signs and places.
        self.found.sort_unstable_by(|(a, x), (b, y)| a.cmp(b).then(x.total_cmp(y)));
        let mut vector = vec![0.0_f32; dimension];
        for same in self.found.chunk_by(|(a, _), (b, _)| a == b) {
            let squares: f32 = same.iter().map(|(_, square)| square).sum();
            let (at, sign) = place(same[0].0, dimension);
            vector[at] += sign * squares.sqrt();
        }
        let length = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
        if length > 0.0 {
            for x in &mut vector {
                #[allow(clippy::cast_possible_truncation, reason = "a vector's numbers have 32 bits")]
                let scaled = (f64::from(*x) / length) as f32;
                *x = scaled;
            }
        } else {
            // All features met in pairs of opposite signs.
            vector[place(self.found[0].0, dimension).0] = 1.0;
        }
        vector
    }
}

/// Short words are mostly those that every text has; a short code with a digit is not.
fn weight(characters: usize, word: &str) -> f32 {
    if word.bytes().any(|byte| byte.is_ascii_digit()) {
        return 1.0;
    }
    match characters {
        0 | 1 => 0.4,
        2 => 0.55,
        3 => 0.75,
        _ => 1.0,
    }
}

/// The lowest bit gives the sign, the high bits give the place.
fn place(hash: u64, dimension: usize) -> (usize, f32) {
    #[allow(clippy::cast_possible_truncation, reason = "it is below the dimension")]
    let at = ((u128::from(hash) * dimension as u128) >> 64) as usize;
    (at, if hash & 1 == 0 { 1.0 } else { -1.0 })
}

/// [FNV-1a](https://datatracker.ietf.org/doc/html/rfc9923) with the finalizer of
/// [splitmix64](https://prng.di.unimi.it/splitmix64.c), which makes every bit depend on every byte.
fn hash(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for &byte in bytes {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use lakehouse_contract::dataset::hex;
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn equal_texts_give_these_bits_for_ever() {
        let texts = ["forklift operator", "Zürich, 8001", "日本語のテキスト", "!?", "a", "The the THE"];
        let bits: Vec<u8> = texts
            .iter()
            .flat_map(|text| model("lexical").vector(text).to_vec())
            .flat_map(|x| x.to_bits().to_le_bytes())
            .collect();
        let digest = hex(&Sha256::digest(&bits));
        assert_eq!(
            digest, "b3e059e59c8be0ee61164088c759b2dcea80d11391d00027d9705abf31ddfb76",
            "other bits need another VERSION"
        );
        assert_eq!(model("lexical").identity().digest, "lexical-v1-384");
    }

    #[test]
    fn shared_words_and_parts_of_words_are_near() {
        let near = cosine("forklift operator in Chicago", "Chicago: operators of forklifts");
        let typo = cosine("forklift operator in Chicago", "forklfit operater in Chicgo");
        let other = cosine("forklift operator in Chicago", "registered nurse, night shifts");
        assert!(near > 0.5 && typo > 0.3 && other < 0.15, "{near} {typo} {other}");
    }

    #[test]
    fn case_and_punctuation_do_not_count_and_order_does_not() {
        assert_eq!(model(NAME).vector("Hello, World!"), model(NAME).vector("world hello"));
    }

    #[test]
    fn a_word_that_is_repeated_counts_less_each_time() {
        let (once, often) = (cosine("red apple", "red"), cosine("red apple", "red red red red"));
        assert!(often > once - 1e-6 && often < 1.0);
        let (four, sixteen) =
            (cosine("red apple", &"red ".repeat(4)), cosine("red apple", &"red ".repeat(16)));
        assert!((four - sixteen).abs() < 1e-6);
    }

    #[test]
    fn names_say_the_dimension() {
        assert_eq!(model("lexical").identity.dimension, 384);
        assert_eq!(model("lexical-64").vector("x").len(), 64);
        for name in
            ["lexical-", "lexical-31", "lexical-16385", "lexical-064", "lexical-+64", "Lexical", "lex", ""]
        {
            assert!(Lexical::named(name).is_none(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn every_text_has_a_vector_of_length_one(text in "\\PC{1,40}|[a-c ]{1,9}|\\s", dimension in 32_u32..100) {
            let vector = model(&format!("lexical-{dimension}")).vector(&text);
            let length: f32 = vector.iter().map(|x| x * x).sum();
            prop_assert!((length - 1.0).abs() < 1e-5, "{length}");
        }

        #[test]
        fn a_text_has_the_same_vector_in_any_list(texts in proptest::collection::vec("[a-e ]{1,12}", 1..100)) {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let together = model(NAME).embed(&texts).unwrap();
            for (text, vector) in texts.iter().zip(together) {
                prop_assert_eq!(model(NAME).vector(text), vector);
            }
        }
    }

    fn cosine(a: &str, b: &str) -> f32 {
        model(NAME).vector(a).iter().zip(model(NAME).vector(b).iter()).map(|(x, y)| x * y).sum()
    }

    fn model(name: &str) -> Lexical {
        Lexical::named(name).unwrap()
    }
}
