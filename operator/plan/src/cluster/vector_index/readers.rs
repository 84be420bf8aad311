//! The pods that answer searches of one index, and the Services in front of them.
//!
//! ```text
//! one shard:    <index>-vectors ─► all pods
//! more shards:  <index>-vectors ─► the pods of all shards, each of which asks the others
//!               <index>-vectors-0of2, <index>-vectors-1of2 ─► the pods of each shard
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::Pod;
use lakehouse_contract::{Role, vectors::IndexInfo};

use super::Place;
use crate::{
    ReadyVectorIndex,
    cluster::{
        Child, Kind,
        meta::{self, Component},
        names,
        pod::{self, Blueprint, Life},
        server, serving,
        settings::Resources,
    },
};

/// Everything that serves an index.
///
/// While the number of shards changes, the pods for the old one stay, and take all searches, until a build has published the new
/// one and its pods are ready.
pub(super) fn children(
    index: &ReadyVectorIndex,
    place: &Place<'_>,
    stored: Option<&IndexInfo>,
    pods: &[Arc<Pod>],
) -> Vec<Child> {
    let (port, asked) = (Role::Vectord.port(), index.shards);
    let served = stored.map_or(asked, |stored| stored.shards.max(1));
    let front = serving::layout(pods.iter().map(Arc::as_ref), served);
    let name = names::vectors(index.name.as_str());
    let metadata = place.of.metadata(&name, Component::Vectors, Some(&place.of.owner()));
    let mut selector = selector(place, None);
    selector.insert(meta::SHARDS_LABEL.to_owned(), front.to_string());
    let mut children = vec![Child::of(Kind::Service, &server::service(metadata, selector, port))];
    let layouts: BTreeSet<u32> = [front, served, asked].into();
    children.extend(layouts.into_iter().flat_map(|shards| readers(index, place, shards)));
    children
}

/// The pods of an index of so many shards.
fn readers(index: &ReadyVectorIndex, place: &Place<'_>, shards: u32) -> Vec<Child> {
    let (port, all) = (Role::Vectord.port(), names::vectors(index.name.as_str()));
    let of_shard = |shard: u32| {
        let name = names::vectors_of_shard(index.name.as_str(), shard, shards);
        if shards == 1 {
            return deployment(index, place, &name, (shard, shards), Vec::new());
        }
        let metadata = place.of.metadata(&name, Component::Vectors, Some(&place.of.owner()));
        let selector = selector(place, Some(&names::shard_of(shard, shards)));
        let service = server::service(metadata, selector, port);
        let peer = format!("http://{all}-{{shard}}of{shards}:{port}");
        let args = ["--shard".to_owned(), format!("{shard}/{shards}"), "--peer".to_owned(), peer];
        let mut children = vec![Child::of(Kind::Service, &service)];
        children.extend(deployment(index, place, &name, (shard, shards), args.into()));
        children
    };
    (0..shards).flat_map(of_shard).collect()
}

/// The pods that serve one shard, or all.
fn deployment(
    index: &ReadyVectorIndex,
    place: &Place<'_>,
    name: &str,
    (shard, shards): (u32, u32),
    more: Vec<String>,
) -> Vec<Child> {
    let Place { of, surroundings, settings } = place;
    let shard = names::shard_of(shard, shards);
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
        life: Life::server(index.replicas),
        volumes: Vec::new(),
        labels: of.label().into_iter().chain(labels).collect(),
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
