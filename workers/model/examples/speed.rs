//! How fast texts become vectors on this machine, as one line of JSON; `bench/run.sh` puts it beside the Python original.
//!
//!     speed MODEL TEXTS      a folder of a sentence transformer, and a file with a text in each line

use std::{error::Error, fs, hint::black_box, path::Path, sync::Arc, time::Instant};

use lakehouse_contract::provider::Providers;
use lakehouse_embed::{EmbedError, Embedd, Embedder, LocalModel, Settings};
use lakehouse_http::Metrics;
use lakehouse_model::{Lexical, Models, SentenceTransformer};
use serde_json::json;
use tokio::sync::watch;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, file] = arguments.as_slice() else { return Err("usage: speed MODEL TEXTS".into()) };
    let content = fs::read_to_string(file)?;
    let texts: Vec<&str> = content.lines().collect();
    let model = SentenceTransformer::load("bench", Path::new(folder))?;
    let (transformer, vectors) = texts_per_second(&texts, || model.embed(&texts))?;

    let lexical = Lexical::named("lexical").ok_or("lexical is always there")?;
    let many: Vec<&str> = texts.iter().cycle().copied().take(100_000).collect();
    let (one_thread, _) =
        texts_per_second(&many, || Ok(many.iter().map(|text| lexical.vector(text)).collect::<Vec<_>>()))?;
    let (all_threads, _) = texts_per_second(&many, || lexical.embed(&many))?;
    println!(
        "{}",
        json!({
            "transformer": transformer,
            "lexical": one_thread,
            "lexical_all_threads": all_threads,
            "cache_hit_ns": tokio::runtime::Runtime::new()?.block_on(cache_hit(texts[0]))?,
            "vectors": vectors.iter().take(8).map(|vector| vector.to_vec()).collect::<Vec<_>>(),
        })
    );
    Ok(())
}

/// The best of three.
fn texts_per_second<T>(
    texts: &[&str],
    embed: impl Fn() -> Result<T, EmbedError>,
) -> Result<(f64, T), Box<dyn Error>> {
    let mut best = 0.0_f64;
    let mut made = embed()?;
    for _ in 0..3 {
        let started = Instant::now();
        made = embed()?;
        best = best.max(texts.len() as f64 / started.elapsed().as_secs_f64());
    }
    Ok((best, made))
}

/// Nanoseconds of a request for one text that is in the cache: name, hash, look-up and answer.
async fn cache_hit(text: &str) -> Result<f64, Box<dyn Error>> {
    const ROUNDS: u32 = 200_000;
    let (_sender, providers) = watch::channel(Providers::default());
    let embedd = Embedd::new(Settings::default(), providers, Arc::new(Models::new()), &Metrics::default());
    let texts = [text.to_owned()];
    embedd.embed("local/lexical", &texts).await?;
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let started = Instant::now();
        for _ in 0..ROUNDS {
            black_box(embedd.embed("local/lexical", black_box(&texts)).await?);
        }
        best = best.min(started.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS));
    }
    Ok(best)
}
