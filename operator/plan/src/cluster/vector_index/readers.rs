//! The pods that answer searches of one index, and the Services in front of them.
//!
//! ```text
//! one shard:    <index>-vectors ─► all pods
//! more shards:  <index>-vectors ─► all pods, each of which asks the others
//!               <index>-vectors-0, <index>-vectors-1 … ─► the pods of each shard
//! ```

use std::collections::BTreeMap;

use lakehouse_contract::{Role, vectors::IndexInfo};

use super::Place;
use crate::{
    ReadyVectorIndex,
    cluster::{
        Child, Kind,
        meta::{self, Component},
        names,
        pod::{self, Blueprint, Life},
        server,
        settings::Resources,
    },
};

/// Everything that serves an index.
///
/// While a build spreads the vectors over more than one shard, or gathers them in one again, the pods that serve them as they are stay
/// until the new version is published, and take all searches until then.
pub(super) fn children(
    index: &ReadyVectorIndex,
    place: &Place<'_>,
    stored: Option<&IndexInfo>,
) -> Vec<Child> {
    let (port, asked) = (Role::Vectord.port(), index.shards);
    let served = stored.map_or(asked, |stored| stored.shards.max(1));
    let name = names::vectors(index.name.as_str());
    let metadata = place.of.metadata(&name, Component::Vectors, Some(&place.of.owner()));
    let mut selector = selector(place, None);
    selector.insert(meta::SHARDS_LABEL.to_owned(), served.to_string());
    let mut children = vec![Child::of(Kind::Service, &server::service(metadata, selector, port))];
    children.extend(readers(index, place, served));
    if (served > 1) != (asked > 1) {
        children.extend(readers(index, place, asked));
    }
    children
}

/// The pods of an index of so many shards.
fn readers(index: &ReadyVectorIndex, place: &Place<'_>, shards: u32) -> Vec<Child> {
    if shards == 1 {
        let name = names::vectors(index.name.as_str());
        return deployment(index, place, &name, (meta::ALL_SHARDS.to_owned(), shards), Vec::new());
    }
    let (port, all) = (Role::Vectord.port(), names::vectors(index.name.as_str()));
    let of_shard = |shard: u32| {
        let name = names::vectors_of_shard(index.name.as_str(), shard);
        let metadata = place.of.metadata(&name, Component::Vectors, Some(&place.of.owner()));
        let service = server::service(metadata, selector(place, Some(&shard.to_string())), port);
        let args = ["--shard".to_owned(), format!("{shard}/{shards}"), "--peer".to_owned()];
        let args = args.into_iter().chain([format!("http://{all}-{{shard}}:{port}")]).collect();
        let mut children = vec![Child::of(Kind::Service, &service)];
        children.extend(deployment(index, place, &name, (shard.to_string(), shards), args));
        children
    };
    (0..shards).flat_map(of_shard).collect()
}

/// The pods that serve one shard, or all.
fn deployment(
    index: &ReadyVectorIndex,
    place: &Place<'_>,
    name: &str,
    (shard, shards): (String, u32),
    more: Vec<String>,
) -> Vec<Child> {
    let Place { of, surroundings, settings } = place;
    let port = Role::Vectord.port();
    let mut args = server::args("vectord", port);
    args.extend(["--index".to_owned(), index.name.to_string(), "--embedd".to_owned(), names::embedd()]);
    args.extend(more);
    let own = index.resources.as_ref().map(Resources::from).unwrap_or_default();
    let selector = selector(place, Some(&shard));
    let labels = [(meta::SHARD_LABEL, shard), (meta::SHARDS_LABEL, shards.to_string())];
    let labels = labels.map(|(key, value)| (key.to_owned(), value));
    let blueprint = Blueprint {
        component: Component::Vectors,
        args,
        env: Vec::new(),
        resources: settings.vectors_resources().under(&own),
        disk: &settings.vectors.cache_size,
        port: Some(port),
        life: Life::Server { spread: index.replicas > 1 },
        volumes: Vec::new(),
        labels: of.label().into_iter().chain(labels).collect(),
        annotations: Vec::new(),
    };
    let template = pod::template(blueprint, surroundings, settings);
    let metadata = of.metadata(name, Component::Vectors, Some(&of.owner()));
    server::deployment(metadata, selector, index.replicas, template)
}

/// What tells an index's pods, or those of one of its shards, from all others.
fn selector(place: &Place<'_>, shard: Option<&str>) -> BTreeMap<String, String> {
    let mut selector = meta::selector(Component::Vectors);
    selector.extend(place.of.label());
    selector.extend(shard.map(|shard| (meta::SHARD_LABEL.to_owned(), shard.to_owned())));
    selector
}
