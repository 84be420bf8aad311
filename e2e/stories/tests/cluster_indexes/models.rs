//! Models change, and the server that they run on goes away. Ollama is a real one with tiny models: what its vectors mean is noise.

use super::*;
use lakehouse_e2e::Ollama;

#[tokio::test]
async fn a_model_of_a_provider_embeds_and_another_one_is_built_beside() {
    Story::run("models", async |story| {
        Ollama::start(&story).await?;
        story.apply(&provider("ollama")).await?;
        story.dataset_of_text("workers", WORKERS).await?;
        story
            .apply(
                &index("near", "").replace("local: {model: lexical}", "provider: ollama, model: tiny-embed"),
            )
            .await?;
        let built = story.ready_of::<VectorIndex>("near").await?;
        let status = built.status.context("no status")?;
        ensure!(status.dimension == Some(64) && status.vectors == Some(4), "{status:?}");
        let model = status.embedding.context("no model")?;
        ensure!(model.model == "ollama/tiny-embed", "{model:?}");

        let load = Load::search(&story, 2, "near", &json!({"text": "welding"})).await?;
        story.apply(&index("near", "")).await?;
        let moved = |index: &VectorIndex| {
            condition(index, "Ready") == "True"
                && index
                    .status
                    .as_ref()
                    .is_some_and(|status| status.dimension == Some(384) && status.version == Some(2))
        };
        story.until("near", "the other model's version", moved).await?;
        let answer = search(&story, "near", json!({"text": "welding of stainless steel", "k": 1})).await?;
        ensure!(ids(&answer) == ["w-101"], "{answer}");
        load.stop_without_failures().await?;

        let refused = search(&story, "near", json!({"text": "welding", "model": "ollama/tiny-embed"})).await;
        let refusal = refused.err().context("another model was taken")?.to_string();
        for part in ["409", "model_mismatch", "ollama/tiny-embed", "local/lexical"] {
            ensure!(refusal.contains(part), "{part}: {refusal}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_embedder_that_is_away_is_told_and_waited_for_and_vectors_are_still_searched() {
    Story::run("embedder", async |story| {
        let ollama = Ollama::start(&story).await?;
        story.apply(&provider("ollama")).await?;
        story.dataset_of_text("workers", WORKERS).await?;
        story
            .apply(
                &index("near", "").replace("local: {model: lexical}", "provider: ollama, model: tiny-embed"),
            )
            .await?;
        story.ready_of::<VectorIndex>("near").await?;
        let jobs = story.api::<Job>().list(&ListParams::default()).await?.items.len();

        ollama.stop(&story).await?;
        story.text("workers", &format!("{WORKERS}105,crane operator,IL,tower cranes\n")).await?;
        story.ready_with("workers", 2).await?;
        let behind = story
            .until("near", "not fresh and without an embedder", |index: &VectorIndex| {
                condition(index, "Fresh") == "False" && condition(index, "EmbedderReady") == "False"
            })
            .await?;
        let told = message(&behind, "EmbedderReady");
        ensure!(told.contains("ollama"), "the provider is named: {told}");
        ensure!(condition(&behind, "Served") == "True", "{}", message(&behind, "Served"));
        let vector: Vec<f32> = (0..64).map(|i| if i == 3 { 1.0 } else { 0.25 }).collect();
        let answer = search(&story, "near", json!({"vector": vector})).await?;
        ensure!(ids(&answer).len() == 4, "{answer}");
        match search(&story, "near", json!({"text": "a text that nobody has asked for"})).await {
            Ok(answer) => bail!("embedded by nobody: {answer}"),
            Err(error) => {
                ensure!(error.to_string().contains("502") || error.to_string().contains("504"), "{error}")
            }
        }

        ollama.begin(&story).await?;
        let fresh = story
            .until("near", "fresh again", |index: &VectorIndex| condition(index, "Fresh") == "True")
            .await?;
        ensure!(
            reason(&fresh, "EmbedderReady") != "" && condition(&fresh, "EmbedderReady") == "True",
            "{fresh:?}"
        );
        ensure!(fresh.status.and_then(|status| status.vectors) == Some(5), "all rows are there");
        println!("{jobs} Jobs before");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_provider_without_its_secret_is_named_and_waited_for() {
    Story::run("keys", async |story| {
        Ollama::start(&story).await?;
        let keyed = provider("keyed")
            .replace("type: Ollama", "type: Ollama\n  apiKeySecretRef: {name: keyed, key: token}");
        story.apply(&keyed).await?;
        story.dataset_of_text("workers", WORKERS).await?;
        story
            .apply(
                &index("near", "").replace("local: {model: lexical}", "provider: keyed, model: tiny-embed"),
            )
            .await?;
        story.fails_of::<VectorIndex>("near", "SecretMissing", &["keyed"]).await?;
        story.secret("keyed", &[("token", "any".to_owned())]).await?;
        story.ready_of::<VectorIndex>("near").await?;
        Ok(())
    })
    .await;
}

fn provider(name: &str) -> String {
    format!(
        "apiVersion: lakehouse.dev/v1alpha1\nkind: ChatProvider\nmetadata: {{name: {name}}}\nspec:\n  \
         type: Ollama\n  url: http://ollama:11434\n  embeddings: {{models: [tiny-embed]}}\n"
    )
}
