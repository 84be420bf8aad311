//! The encoder of [BERT](https://arxiv.org/abs/1810.04805) and of those that followed it: `RoBERTa`, `DistilBERT`, and
//! [MPNet](https://arxiv.org/abs/2004.09297), which adds to each attention what the distance of two tokens counts.
//!
//! One computation with the tensors' names of each family.

use std::collections::HashMap;

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::ops::{layer_norm, softmax_last_dim};

use super::config::{self, Activation, Family};

/// What a token of padding adds to an attention, so that nothing of it is left.
const NOTHING: f32 = -1e9;
/// From this distance on, `MPNet` counts all as equally far.
const FAR: f32 = 128.0;

/// The weights by their names in the file, whichever prefix the file gives all of them.
pub(super) struct Weights(HashMap<String, Tensor>);

/// A loaded encoder.
#[derive(Debug)]
pub(super) struct Encoder {
    config: config::Encoder,
    words: Tensor,
    positions: Tensor,
    /// Added to every token: we embed one text at a time, which is of the first type.
    first_type: Option<Tensor>,
    norm: Norm,
    layers: Vec<Layer>,
    /// `MPNet`'s, by bucket and head.
    distances: Option<Tensor>,
}

#[derive(Debug)]
struct Layer {
    /// Queries, keys and values by one multiplication.
    attend: Linear,
    attended: Linear,
    attention_norm: Norm,
    up: Linear,
    down: Linear,
    norm: Norm,
}

#[derive(Debug)]
struct Linear {
    /// `(in, out)`
    weight: Tensor,
    bias: Tensor,
}

#[derive(Debug)]
struct Norm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f32,
}

/// Names below a layer, in the order of [`Layer`]'s parts; the first three are joined.
struct Names {
    layer: &'static str,
    attend: [&'static str; 3],
    attended: &'static str,
    attention_norm: &'static str,
    up: &'static str,
    down: &'static str,
    norm: &'static str,
}

impl Names {
    fn of(family: Family) -> Self {
        match family {
            Family::Bert => Self {
                layer: "encoder.layer",
                attend: ["attention.self.query", "attention.self.key", "attention.self.value"],
                attended: "attention.output.dense",
                attention_norm: "attention.output.LayerNorm",
                up: "intermediate.dense",
                down: "output.dense",
                norm: "output.LayerNorm",
            },
            Family::DistilBert => Self {
                layer: "transformer.layer",
                attend: ["attention.q_lin", "attention.k_lin", "attention.v_lin"],
                attended: "attention.out_lin",
                attention_norm: "sa_layer_norm",
                up: "ffn.lin1",
                down: "ffn.lin2",
                norm: "output_layer_norm",
            },
            Family::MpNet => Self {
                layer: "encoder.layer",
                attend: ["attention.attn.q", "attention.attn.k", "attention.attn.v"],
                attended: "attention.attn.o",
                attention_norm: "attention.LayerNorm",
                up: "intermediate.dense",
                down: "output.dense",
                norm: "output.LayerNorm",
            },
        }
    }
}

impl Weights {
    pub(super) fn load(path: &std::path::Path) -> Result<Self> {
        let tensors = candle_core::safetensors::load(path, &Device::Cpu)?;
        // `bert.embeddings…` of a file that held more than the encoder is `embeddings…` to us.
        let named = tensors.into_iter().map(|(name, tensor)| {
            let bare =
                ["bert.", "roberta.", "distilbert.", "mpnet."].iter().find_map(|p| name.strip_prefix(p));
            (bare.unwrap_or(&name).to_owned(), tensor)
        });
        Ok(Self(named.collect()))
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn get(&self, name: &str) -> Result<Tensor> {
        match self.0.get(name) {
            Some(tensor) => tensor.to_dtype(DType::F32),
            None => candle_core::bail!("the tensor `{name}` is missing"),
        }
    }

    fn shaped(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let tensor = self.get(name)?;
        if tensor.dims() != shape {
            candle_core::bail!("the tensor `{name}` has the shape {:?}, not {shape:?}", tensor.dims());
        }
        Ok(tensor)
    }

    fn linear(&self, names: &[String], width: usize) -> Result<Linear> {
        let weights =
            names.iter().map(|name| self.get(&format!("{name}.weight"))).collect::<Result<Vec<_>>>()?;
        let biases =
            names.iter().map(|name| self.get(&format!("{name}.bias"))).collect::<Result<Vec<_>>>()?;
        let (weight, bias) = (Tensor::cat(&weights, 0)?, Tensor::cat(&biases, 0)?);
        let (out, wide) = weight.dims2()?;
        if wide != width || bias.dims() != [out] {
            candle_core::bail!("the tensors of `{}` do not fit to a width of {width}", names[0]);
        }
        Ok(Linear { weight: weight.t()?.contiguous()?, bias })
    }

    fn norm(&self, name: &str, config: &config::Encoder) -> Result<Norm> {
        let weight = self.shaped(&format!("{name}.weight"), &[config.width])?;
        let bias = self.shaped(&format!("{name}.bias"), &[config.width])?;
        Ok(Norm { weight, bias, epsilon: config.norm_epsilon })
    }
}

impl Linear {
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        x.matmul(&self.weight)?.broadcast_add(&self.bias)
    }
}

impl Norm {
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        layer_norm(x, &self.weight, &self.bias, self.epsilon)
    }
}

impl Layer {
    fn load(weights: &Weights, config: &config::Encoder, number: usize) -> Result<Self> {
        let names = Names::of(config.family);
        let full = |name: &str| format!("{}.{number}.{name}", names.layer);
        let up = weights.linear(&[full(names.up)], config.width)?;
        let forward = up.bias.elem_count();
        let attend: Vec<String> = names.attend.iter().map(|name| full(name)).collect();
        let layer = Self {
            attend: weights.linear(&attend, config.width)?,
            attended: weights.linear(&[full(names.attended)], config.width)?,
            attention_norm: weights.norm(&full(names.attention_norm), config)?,
            up,
            down: weights.linear(&[full(names.down)], forward)?,
            norm: weights.norm(&full(names.norm), config)?,
        };
        let outs = [&layer.attend, &layer.attended, &layer.down].map(|linear| linear.bias.elem_count());
        if outs != [3 * config.width, config.width, config.width] {
            candle_core::bail!("the tensors of `{}.{number}` do not fit to each other", names.layer);
        }
        Ok(layer)
    }

    /// `x` is `(texts · tokens, width)`; `bias` is added to attentions.
    fn apply(
        &self,
        x: &Tensor,
        shape: (usize, usize),
        config: &config::Encoder,
        bias: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (texts, tokens) = shape;
        let head = config.width / config.heads;
        // (3, texts, heads, tokens, head)
        let parts = self
            .attend
            .apply(x)?
            .reshape((texts, tokens, 3, config.heads, head))?
            .permute((2, 0, 3, 1, 4))?;
        let scale = 1.0 / (head as f64).sqrt();
        let query = (parts.get(0)?.contiguous()? * scale)?;
        let (key, value) = (parts.get(1)?.contiguous()?, parts.get(2)?.contiguous()?);
        let mut scores = query.matmul(&key.t()?)?;
        if let Some(bias) = bias {
            scores = scores.broadcast_add(bias)?;
        }
        let attended = softmax_last_dim(&scores)?.matmul(&value)?;
        let attended = attended.transpose(1, 2)?.reshape((texts * tokens, config.width))?;
        let x = self.attention_norm.apply(&(self.attended.apply(&attended)? + x)?)?;
        let up = self.up.apply(&x)?;
        let up = match config.activation {
            Activation::Gelu => up.gelu_erf()?,
            Activation::GeluTanh => up.gelu()?,
            Activation::Relu => up.relu()?,
        };
        self.norm.apply(&(self.down.apply(&up)? + x)?)
    }
}

impl Encoder {
    /// `positions` tokens must have a position.
    pub(super) fn load(weights: &Weights, config: &config::Encoder, positions: usize) -> Result<Self> {
        let types = "embeddings.token_type_embeddings.weight";
        let first_type = if weights.has(types) { Some(weights.get(types)?.get(0)?) } else { None };
        let distances = match config.family {
            Family::MpNet => {
                let shape = [config.buckets, config.heads];
                Some(weights.shaped("encoder.relative_attention_bias.weight", &shape)?)
            }
            Family::Bert | Family::DistilBert => None,
        };
        let encoder = Self {
            words: weights.get("embeddings.word_embeddings.weight")?,
            positions: weights.get("embeddings.position_embeddings.weight")?,
            first_type,
            norm: weights.norm("embeddings.LayerNorm", config)?,
            layers: (0..config.layers)
                .map(|number| Layer::load(weights, config, number))
                .collect::<Result<_>>()?,
            distances,
            config: config.clone(),
        };
        let (held, width) = encoder.positions.dims2()?;
        if held < config.first_position + positions || width != config.width {
            candle_core::bail!("the tensor of positions has the shape ({held}, {width})");
        }
        if encoder.words.dims2()?.1 != config.width {
            candle_core::bail!("the tensor of words has another width than {}", config.width);
        }
        Ok(encoder)
    }

    /// Tokens that have a vector.
    pub(super) fn vocabulary(&self) -> usize {
        self.words.dims()[0]
    }

    /// A vector for each token: `(texts, tokens, width)`. Every text is padded to the same number of tokens; `lengths` says how
    /// many of them count.
    pub(super) fn forward(&self, ids: &[u32], lengths: &[usize]) -> Result<Tensor> {
        let texts = lengths.len();
        let tokens = ids.len() / texts;
        let ids = Tensor::from_slice(ids, ids.len(), &Device::Cpu)?;
        let positions = self.positions.narrow(0, self.config.first_position, tokens)?;
        let positions = match &self.first_type {
            Some(first) => positions.broadcast_add(first)?,
            None => positions,
        };
        let words = self.words.index_select(&ids, 0)?.reshape((texts, tokens, self.config.width))?;
        let mut x = words.broadcast_add(&positions)?.reshape((texts * tokens, self.config.width))?;
        x = self.norm.apply(&x)?;
        let bias = self.bias(lengths, tokens)?;
        for layer in &self.layers {
            x = layer.apply(&x, (texts, tokens), &self.config, bias.as_ref())?;
        }
        x.reshape((texts, tokens, self.config.width))
    }

    /// What is added to attentions: nothing of padding, and what distances count.
    fn bias(&self, lengths: &[usize], tokens: usize) -> Result<Option<Tensor>> {
        let padding = if lengths.iter().all(|&length| length == tokens) {
            None
        } else {
            let mask: Vec<f32> = lengths
                .iter()
                .flat_map(|&length| (0..tokens).map(move |at| if at < length { 0.0 } else { NOTHING }))
                .collect();
            Some(Tensor::from_vec(mask, (lengths.len(), 1, 1, tokens), &Device::Cpu)?)
        };
        let Some(distances) = &self.distances else { return Ok(padding) };
        let buckets: Vec<u32> = (0..tokens)
            .flat_map(|from| (0..tokens).map(move |to| (from, to)))
            .map(|(from, to)| bucket(from, to, self.config.buckets))
            .collect();
        let buckets = Tensor::from_vec(buckets, tokens * tokens, &Device::Cpu)?;
        let bias = distances.index_select(&buckets, 0)?.reshape((1, tokens, tokens, self.config.heads))?;
        let bias = bias.permute((0, 3, 1, 2))?.contiguous()?;
        Ok(Some(match padding {
            Some(padding) => bias.broadcast_add(&padding)?,
            None => bias,
        }))
    }
}

/// Near distances have a bucket each, far ones share theirs by the logarithm; those ahead have the second half.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positions and buckets are small numbers"
)]
fn bucket(from: usize, to: usize, buckets: usize) -> u32 {
    let half = buckets / 2;
    let distance = from.abs_diff(to);
    let exact = half / 2;
    let near = if distance < exact {
        distance
    } else {
        let share = (distance as f32 / exact as f32).ln() / (FAR / exact as f32).ln();
        (exact + (share * (half - exact) as f32) as usize).min(half - 1)
    };
    (near + if to > from { half } else { 0 }) as u32
}

/// The tokens' vectors of each text as one, by one way of pooling: `(texts, width)`.
pub(super) fn pool(tokens: &Tensor, lengths: &[usize], way: config::Pooling) -> Result<Tensor> {
    let pooled = lengths.iter().enumerate().map(|(at, &length)| {
        let counted = tokens.get(at)?.narrow(0, 0, length)?;
        match way {
            config::Pooling::Cls => counted.get(0),
            config::Pooling::Max => counted.max(0),
            config::Pooling::Mean => counted.mean(0),
        }
    });
    Tensor::stack(&pooled.collect::<Result<Vec<_>>>()?, 0)
}

/// Each row divided by its length.
pub(super) fn normalised(vectors: &Tensor) -> Result<Tensor> {
    let lengths = vectors.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
    vectors.broadcast_div(&lengths.maximum(1e-12)?)
}
