//! The files of a sentence transformer's folder, as the Python original writes them, read into what there is to compute.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::Unusable;

/// What is computed, from a folder that was checked.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    pub(super) encoder: Encoder,
    /// Tokens of a text that count; the rest is cut off, as its authors mean it.
    pub(super) max_tokens: usize,
    pub(super) lowercase: bool,
    /// What stands before each text.
    pub(super) prompt: String,
    /// Concatenated in this order.
    pub(super) pooling: Vec<Pooling>,
    pub(super) normalise: bool,
}

/// The encoder, whatever its family calls its numbers.
#[derive(Clone, Debug)]
pub(super) struct Encoder {
    pub(super) family: Family,
    pub(super) width: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) activation: Activation,
    pub(super) norm_epsilon: f32,
    /// The position of a text's first token.
    pub(super) first_position: usize,
    /// Buckets of `MPNet`'s relative positions.
    pub(super) buckets: usize,
}

/// Families whose layers are the same and whose tensors have different names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// BERT, and with it `RoBERTa`, XLM-R and `CamemBERT`.
    Bert,
    DistilBert,
    MpNet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Activation {
    #[serde(rename = "gelu")]
    Gelu,
    #[serde(rename = "gelu_new", alias = "gelu_pytorch_tanh", alias = "gelu_fast")]
    GeluTanh,
    #[serde(rename = "relu")]
    Relu,
}

/// How the vectors of tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Pooling {
    /// That of the first token.
    Cls,
    /// The largest number in each place.
    Max,
    /// The mean.
    Mean,
}

#[derive(Deserialize)]
struct EncoderFile {
    model_type: String,
    #[serde(alias = "dim")]
    hidden_size: usize,
    #[serde(alias = "n_layers")]
    num_hidden_layers: usize,
    #[serde(alias = "n_heads")]
    num_attention_heads: usize,
    #[serde(alias = "activation")]
    hidden_act: Activation,
    #[serde(default = "usual_epsilon")]
    layer_norm_eps: f32,
    max_position_embeddings: usize,
    #[serde(default)]
    pad_token_id: Option<usize>,
    #[serde(default)]
    position_embedding_type: Option<String>,
    #[serde(default = "usual_buckets")]
    relative_attention_num_buckets: usize,
}

fn usual_epsilon() -> f32 {
    1e-12
}

fn usual_buckets() -> usize {
    32
}

#[derive(Deserialize)]
struct Module {
    #[serde(rename = "type")]
    kind: String,
    path: String,
}

#[derive(Deserialize)]
struct PoolingFile {
    #[serde(rename = "pooling_mode", default)]
    ways: Option<OneOrMore>,
    /// Before version 6 each way was a field of its own, such as `pooling_mode_mean_tokens`.
    #[serde(flatten)]
    earlier: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(Pooling),
    More(Vec<Pooling>),
}

#[derive(Default, Deserialize)]
struct SentenceFile {
    #[serde(default)]
    max_seq_length: Option<usize>,
    #[serde(default)]
    do_lower_case: bool,
}

#[derive(Default, Deserialize)]
struct TokenizerFile {
    /// An enormous number where nobody said.
    #[serde(default)]
    model_max_length: Option<f64>,
}

#[derive(Default, Deserialize)]
struct PromptsFile {
    #[serde(default)]
    prompts: Value,
    #[serde(default)]
    default_prompt_name: Option<String>,
}

impl Recipe {
    pub(super) fn read(folder: &Path) -> Result<Self, Unusable> {
        let (encoder, positions) = encoder(read(folder, "config.json")?)?;
        let SentenceFile { max_seq_length, do_lower_case } =
            read_or_default(folder, "sentence_bert_config.json")?;
        let TokenizerFile { model_max_length } = read_or_default(folder, "tokenizer_config.json")?;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is clamped to what fits"
        )]
        let told = model_max_length.map(|length| length.clamp(0.0, 1e9) as usize);
        let max_tokens = [max_seq_length, told].into_iter().flatten().fold(positions, usize::min);
        let (pooling, normalise) = modules(folder)?;
        Ok(Self {
            encoder,
            max_tokens,
            lowercase: do_lower_case,
            prompt: prompt(read_or_default(folder, "config_sentence_transformers.json")?)?,
            pooling,
            normalise,
        })
    }

    /// Numbers in a vector.
    pub(super) fn dimension(&self) -> usize {
        self.encoder.width * self.pooling.len()
    }
}

/// The encoder, and how many tokens it has positions for.
fn encoder(file: EncoderFile) -> Result<(Encoder, usize), Unusable> {
    let refuse = |what: String| Err(Unusable::new("config.json", what));
    let (family, offset) = match file.model_type.as_str() {
        "bert" => (Family::Bert, 0),
        // Positions begin behind the one of padding.
        "roberta" | "xlm-roberta" | "camembert" => (Family::Bert, file.pad_token_id.unwrap_or(1) + 1),
        "distilbert" => (Family::DistilBert, 0),
        "mpnet" => (Family::MpNet, file.pad_token_id.unwrap_or(1) + 1),
        other => {
            return refuse(format!(
                "models of the type `{other}` cannot be computed here; bert, roberta, xlm-roberta, camembert, \
                 distilbert and mpnet can"
            ));
        }
    };
    if let Some(kind) = file.position_embedding_type.filter(|kind| kind != "absolute") {
        return refuse(format!("positions of the kind `{kind}` cannot be computed here"));
    }
    let (width, heads) = (file.hidden_size, file.num_attention_heads);
    if heads == 0 || width == 0 || width % heads != 0 {
        return refuse(format!("{heads} heads do not divide a width of {width}"));
    }
    let encoder = Encoder {
        family,
        width,
        layers: file.num_hidden_layers,
        heads,
        activation: file.hidden_act,
        norm_epsilon: file.layer_norm_eps,
        first_position: offset,
        buckets: file.relative_attention_num_buckets,
    };
    Ok((encoder, file.max_position_embeddings.saturating_sub(offset)))
}

/// How vectors of tokens become one, and whether its length is made one. Without a list of modules: the mean, as it is.
fn modules(folder: &Path) -> Result<(Vec<Pooling>, bool), Unusable> {
    const FILE: &str = "modules.json";
    let Some(modules) = read_if_there::<Vec<Module>>(folder, FILE)? else {
        return Ok((vec![Pooling::Mean], false));
    };
    let kinds: Vec<&str> =
        modules.iter().map(|module| module.kind.rsplit('.').next().unwrap_or_default()).collect();
    let normalise = match kinds[..] {
        ["Transformer", "Pooling"] => false,
        ["Transformer", "Pooling", "Normalize"] => true,
        _ => {
            return Err(Unusable::new(
                FILE,
                format!(
                    "the modules {} cannot be computed here; Transformer, Pooling and Normalize can, in this order",
                    kinds.join(", ")
                ),
            ));
        }
    };
    if !modules[0].path.is_empty() {
        return Err(Unusable::new(
            FILE,
            format!("the encoder lies in `{}`, not in the folder itself", modules[0].path),
        ));
    }
    let path = &modules[1].path;
    if path.is_empty() || path.contains(['/', '\\']) || path.starts_with('.') {
        return Err(Unusable::new(FILE, format!("`{path}` is no folder within the model's")));
    }
    Ok((pooling(folder, path)?, normalise))
}

fn pooling(folder: &Path, path: &str) -> Result<Vec<Pooling>, Unusable> {
    let name = format!("{path}/config.json");
    let file: PoolingFile = read(folder, &name)?;
    let ways = match file.ways {
        Some(OneOrMore::One(way)) => vec![way],
        Some(OneOrMore::More(ways)) => ways,
        None => earlier(&file.earlier).map_err(|what| Unusable::new(&name, what))?,
    };
    if ways.is_empty() {
        return Err(Unusable::new(&name, "it names no way of pooling".to_owned()));
    }
    Ok(ways)
}

/// In the order in which the original concatenates them.
fn earlier(fields: &BTreeMap<String, Value>) -> Result<Vec<Pooling>, String> {
    const WAYS: [(&str, Pooling); 3] =
        [("cls_token", Pooling::Cls), ("max_tokens", Pooling::Max), ("mean_tokens", Pooling::Mean)];
    let named = |field: &str| WAYS.iter().position(|(name, _)| field == *name);
    let mut ways = Vec::new();
    for (field, set) in fields {
        if let Some(way) = field.strip_prefix("pooling_mode_")
            && *set == Value::Bool(true)
        {
            ways.push(named(way).ok_or_else(|| format!("`{field}` cannot be computed here"))?);
        }
    }
    ways.sort_unstable();
    Ok(ways.into_iter().map(|at| WAYS[at].1).collect())
}

fn prompt(file: PromptsFile) -> Result<String, Unusable> {
    let Some(name) = file.default_prompt_name else { return Ok(String::new()) };
    match &file.prompts[&name] {
        Value::String(prompt) => Ok(prompt.clone()),
        _ => Err(Unusable::new("config_sentence_transformers.json", format!("there is no prompt `{name}`"))),
    }
}

/// A model's folder holds this file.
pub(super) fn file(folder: &Path, name: &str) -> Result<PathBuf, Unusable> {
    let path = folder.join(name);
    if path.is_file() { Ok(path) } else { Err(Unusable::new(name, "it is missing".to_owned())) }
}

fn read<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<T, Unusable> {
    file(folder, name)?;
    read_if_there(folder, name)?.ok_or_else(|| Unusable::new(name, "it is missing".to_owned()))
}

fn read_or_default<T: DeserializeOwned + Default>(folder: &Path, name: &str) -> Result<T, Unusable> {
    Ok(read_if_there(folder, name)?.unwrap_or_default())
}

fn read_if_there<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<Option<T>, Unusable> {
    let path = folder.join(name);
    if !path.is_file() {
        return Ok(None);
    }
    let text = fs::read(&path).map_err(|error| Unusable::new(name, error.to_string()))?;
    serde_json::from_slice(&text).map(Some).map_err(|error| Unusable::new(name, error.to_string()))
}
