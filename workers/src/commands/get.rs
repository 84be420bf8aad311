//! `lakehouse get`: resources as `kubectl get` shows them, read from a running `lakehouse up`.

use std::{
    collections::HashMap,
    io::{self, Write},
    time::Duration,
};

use anyhow::{Context, bail};
use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use lakehouse_crds::definitions;
use lakehouse_plan::DEFAULT_NAMESPACE;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    client::{Client, Connection},
    terminal::table::plain,
};

/// How often `--watch` looks again.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Show resources and their status
///
/// The columns are those that `kubectl get` shows in a cluster.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakehouse get
  lakehouse get datasets -o wide
  lakehouse get lhd airports -o yaml
  lakehouse get datasets --watch")]
pub(crate) struct Get {
    #[command(flatten)]
    connection: Connection,

    /// datasets (lhd), vectorindexes (lhv), chatproviders (lhc) or all
    #[arg(value_name = "KIND", default_value = "all", value_parser = kinds)]
    kinds: Kinds,

    /// Only the resource of this name
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// How to show them [default: a table]
    #[arg(short, long, value_name = "FORM")]
    output: Option<Output>,

    /// Show each change as it comes, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// A table with more columns
    Wide,
    /// The whole resource with its status
    Yaml,
    /// The whole resource with its status
    Json,
}

/// One kind, or all of them.
#[derive(Clone, Debug)]
struct Kinds(Vec<CustomResourceDefinition>);

/// Reads a kind by any of the names that kubectl would take.
fn kinds(text: &str) -> Result<Kinds, String> {
    let asked = text.to_ascii_lowercase();
    let of_category = |definition: &CustomResourceDefinition| {
        definition.spec.names.categories.iter().flatten().any(|category| *category == asked)
    };
    let goes_by = |definition: &CustomResourceDefinition| {
        let names = &definition.spec.names;
        names.plural == asked
            || names.singular.as_ref() == Some(&asked)
            || names.short_names.iter().flatten().any(|name| *name == asked)
            || definition.metadata.name.as_ref() == Some(&asked)
    };
    let all = definitions::all();
    let found: Vec<_> = all
        .iter()
        .filter(|definition| asked == "all" || goes_by(definition) || of_category(definition))
        .cloned()
        .collect();
    if found.is_empty() {
        let known: Vec<_> = all.iter().map(|definition| definition.spec.names.plural.as_str()).collect();
        return Err(format!("there are {} and all", known.join(", ")));
    }
    Ok(Kinds(found))
}

/// Resources of one kind.
struct Listed {
    definition: CustomResourceDefinition,
    objects: Vec<Value>,
}

#[derive(Deserialize)]
struct List {
    items: Vec<Value>,
}

impl Get {
    /// Reads the resources and shows them.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let Self { connection, kinds: Kinds(kinds), name, output, watch } = self;
        if name.is_some() && kinds.len() > 1 {
            bail!("a name needs its kind, such as `lakehouse get dataset NAME`");
        }
        let whole = matches!(output, Some(Output::Yaml | Output::Json));
        if watch && (whole || kinds.len() > 1) {
            bail!("--watch shows one table of one kind, such as `lakehouse get datasets --watch`");
        }
        let client = connection.client()?;
        super::block_on(async {
            if watch {
                return follow(&client, &kinds, name.as_deref(), output == Some(Output::Wide)).await;
            }
            let listed = list(&client, &kinds, name.as_deref()).await?;
            let shown = match output {
                None | Some(Output::Wide) => tables(&listed, output.is_some(), Timestamp::now())?,
                Some(Output::Yaml) => serde_saphyr::to_string(&document(listed, name.is_some()))?,
                Some(Output::Json) => serde_json::to_string_pretty(&document(listed, name.is_some()))? + "\n",
            };
            if shown.is_empty() {
                // On standard error, as kubectl says it: a script sees an empty list.
                eprintln!("No resources found.");
            }
            super::unless_reader_left(io::stdout().lock().write_all(shown.as_bytes()))
        })
    }
}

async fn list(
    client: &Client,
    kinds: &[CustomResourceDefinition],
    name: Option<&str>,
) -> anyhow::Result<Vec<Listed>> {
    let mut listed = Vec::with_capacity(kinds.len());
    for definition in kinds {
        let plural = definition.spec.names.plural.as_str();
        let objects = match name {
            Some(name) => vec![client.resources(&["namespaces", DEFAULT_NAMESPACE, plural, name]).await?],
            None => client.resources::<List>(&[plural]).await?.items,
        };
        listed.push(Listed { definition: definition.clone(), objects });
    }
    Ok(listed)
}

/// One table a kind that has resources, with an empty line between two.
///
/// Where there are several tables, a name says its kind, as in `kubectl get all`.
fn tables(listed: &[Listed], wide: bool, now: Timestamp) -> anyhow::Result<String> {
    let found: Vec<_> = listed.iter().filter(|listed| !listed.objects.is_empty()).collect();
    let mut tables = Vec::with_capacity(found.len());
    for Listed { definition, objects } in &found {
        let mut table = lakehouse_plan::table::table(definition, objects, wide, now)?;
        if found.len() > 1 {
            let names = &definition.spec.names;
            let kind = names.singular.as_ref().unwrap_or(&names.plural);
            for name in table.rows.iter_mut().filter_map(|row| row.first_mut()) {
                *name = format!("{kind}.{}/{name}", definition.spec.group);
            }
        }
        tables.push(plain(&table.header, &table.rows));
    }
    Ok(tables.join("\n"))
}

/// The resource itself when one was asked for, a list otherwise.
fn document(listed: Vec<Listed>, single: bool) -> Value {
    let mut items: Vec<Value> = listed.into_iter().flat_map(|listed| listed.objects).collect();
    match items.pop() {
        Some(item) if single => item,
        last => {
            items.extend(last);
            json!({ "apiVersion": "v1", "kind": "List", "items": items })
        }
    }
}

/// Shows the table, then each resource again whenever it has changed.
async fn follow(
    client: &Client,
    kinds: &[CustomResourceDefinition],
    name: Option<&str>,
    wide: bool,
) -> anyhow::Result<()> {
    let mut seen = Seen::default();
    loop {
        let mut listed = list(client, kinds, name).await?;
        for listed in &mut listed {
            listed.objects.retain(|object| seen.is_news(object));
        }
        let table = tables(&listed, wide, Timestamp::now())?;
        // The header stands once, on top.
        let lines = if seen.shown { table.split_once('\n').map_or("", |(_, rows)| rows) } else { &table };
        seen.shown |= !table.is_empty();
        let mut out = io::stdout().lock();
        match out.write_all(lines.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.context("cannot write to standard output")?,
        }
        drop(out);
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

/// What a watcher has shown.
#[derive(Default)]
struct Seen {
    /// Resource versions by name.
    versions: HashMap<String, String>,
    shown: bool,
}

impl Seen {
    fn is_news(&mut self, object: &Value) -> bool {
        let field = |name| object["metadata"][name].as_str().unwrap_or_default().to_owned();
        let version = field("resourceVersion");
        self.versions.insert(field("name"), version.clone()) != Some(version)
    }
}

#[cfg(test)]
mod tests {
    use axum::{Json, Router, extract::Path, routing};

    use super::*;
    use crate::client::tests::{client, serve};

    #[test]
    fn a_kind_is_found_under_every_name_that_kubectl_takes() {
        for text in ["datasets", "dataset", "Dataset", "lhd", "datasets.lakehouse.dev"] {
            let Kinds(found) = kinds(text).unwrap();
            assert_eq!(found.len(), 1, "{text}");
            assert_eq!(found[0].spec.names.kind, "Dataset");
        }
        for text in ["all", "lakehouse"] {
            assert_eq!(kinds(text).unwrap().0.len(), 3, "{text}");
        }
        assert!(kinds("pods").unwrap_err().contains("datasets, vectorindexes, chatproviders and all"));
    }

    #[tokio::test]
    async fn resources_are_listed_with_the_definitions_columns() {
        let client = client(&serve(api()).await, None);
        let Kinds(one) = kinds("datasets").unwrap();
        let listed = list(&client, &one, None).await.unwrap();
        let shown = tables(&listed, false, Timestamp::now()).unwrap();
        let mut lines = shown.lines();
        assert!(lines.next().unwrap().starts_with("NAME       READY   "), "{shown}");
        assert!(lines.next().unwrap().starts_with("airports   True    "), "{shown}");

        let Kinds(all) = kinds("all").unwrap();
        let listed = list(&client, &all, None).await.unwrap();
        let shown = tables(&listed, false, Timestamp::now()).unwrap();
        assert!(shown.contains("\nairports   "), "one table needs no kinds: {shown}");
        assert_eq!(shown.lines().count(), 2, "kinds without resources show nothing: {shown}");
    }

    #[tokio::test]
    async fn a_whole_resource_is_shown_with_its_status() {
        let client = client(&serve(api()).await, None);
        let Kinds(one) = kinds("lhd").unwrap();
        let single = document(list(&client, &one, Some("airports")).await.unwrap(), true);
        assert_eq!(single, airports());
        let yaml = serde_saphyr::to_string(&single).unwrap();
        assert!(yaml.contains("rows: 3376"), "{yaml}");
        let many = document(list(&client, &one, None).await.unwrap(), false);
        assert_eq!(many, json!({ "apiVersion": "v1", "kind": "List", "items": [airports()] }));
    }

    #[test]
    fn a_watcher_hears_of_a_resource_once_a_version() {
        let mut seen = Seen::default();
        let object = |version: &str| json!({ "metadata": { "name": "a", "resourceVersion": version } });
        assert!(seen.is_news(&object("1")));
        assert!(!seen.is_news(&object("1")));
        assert!(seen.is_news(&object("2")));
    }

    /// Lists one Dataset and no resource of another kind.
    fn api() -> Router {
        let list = routing::get(async |Path(plural): Path<String>| {
            let items = if plural == "datasets" { vec![airports()] } else { vec![] };
            Json(json!({ "kind": "DatasetList", "items": items }))
        });
        let one = routing::get(async || Json(airports()));
        Router::new()
            .route("/apis/lakehouse.dev/v1alpha1/{plural}", list)
            .route("/apis/lakehouse.dev/v1alpha1/namespaces/default/datasets/airports", one)
    }

    fn airports() -> Value {
        json!({
            "apiVersion": "lakehouse.dev/v1alpha1",
            "kind": "Dataset",
            "metadata": { "name": "airports", "resourceVersion": "4" },
            "spec": { "source": { "upload": {} } },
            "status": { "rows": 3376, "conditions": [{ "type": "Ready", "status": "True" }] },
        })
    }
}
