//! Walks of any length through what can happen to an index.

use lakehouse_plan::cluster::{Kind, Run, vector_index::Plan};
use proptest::prelude::*;
use serde_json::json;

use super::world::Shelf;
use crate::world::End;

/// What can happen.
#[derive(Clone, Debug)]
enum Step {
    Visit,
    /// The operator is killed after so many steps.
    Killed(usize),
    /// Two operators have planned the same; the second is late.
    Late(End),
    Tick(End),
    Slow(End),
    Pass(i64),
    Dataset(Option<u64>),
    Weights(Option<u8>),
    Text(u8),
    Shards(u8),
    Refresh(u8),
    Memory(u8),
    Suspend(bool),
    Pin(bool),
    Secret(Option<u8>),
    /// Whether the pods that serve the index can be asked.
    Asked(bool),
    Empty,
    DeleteJobs,
    DeleteConfigMaps,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Visit),
        2 => (0usize..4).prop_map(Step::Killed),
        1 => end().prop_map(Step::Late),
        8 => end().prop_map(Step::Tick),
        3 => end().prop_map(Step::Slow),
        3 => (1i64..2000).prop_map(Step::Pass),
        2 => proptest::option::weighted(0.8, 1u64..4).prop_map(Step::Dataset),
        2 => proptest::option::weighted(0.8, 0u8..2).prop_map(Step::Weights),
        1 => (0u8..2).prop_map(Step::Text),
        1 => (1u8..4).prop_map(Step::Shards),
        1 => (0u8..3).prop_map(Step::Refresh),
        1 => (1u8..3).prop_map(Step::Memory),
        1 => any::<bool>().prop_map(Step::Suspend),
        1 => any::<bool>().prop_map(Step::Pin),
        1 => proptest::option::of(0u8..3).prop_map(Step::Secret),
        2 => any::<bool>().prop_map(Step::Asked),
        1 => Just(Step::Empty),
        1 => Just(Step::DeleteJobs),
        1 => Just(Step::DeleteConfigMaps),
    ]
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        4 => Just(End::Done),
        1 => Just(End::Failed("EmbedderFailed")),
        1 => Just(End::Failed("InvalidData")),
        1 => Just(End::OutOfMemory),
        1 => Just(End::Crash),
    ]
}

fn take(shelf: &mut Shelf, step: &Step) {
    match step {
        Step::Visit => {
            shelf.visit();
        }
        Step::Killed(steps) => {
            let plan = shelf.plan();
            shelf.apply_steps(&plan, *steps);
        }
        Step::Late(end) => {
            let plan = shelf.visit();
            shelf.tick(*end);
            shelf.apply_steps(&plan, usize::MAX);
        }
        Step::Tick(end) => shelf.tick(*end),
        Step::Slow(end) => shelf.tick_but(*end, |job| job.metadata.deletion_timestamp.is_some()),
        Step::Pass(seconds) => shelf.world.pass(*seconds),
        Step::Dataset(version) => shelf.dataset = *version,
        Step::Weights(weights) => shelf.weights = weights.map(|weights| weights.to_string()),
        Step::Text(text) => shelf.spec["source"]["text"] = json!(format!("{{a}} {text}")),
        Step::Shards(shards) => shelf.spec["shards"] = json!(shards),
        Step::Refresh(value) => shelf.refresh = Some(value.to_string()),
        Step::Memory(gib) => {
            shelf.spec["build"] = json!({"resources": {"limits": {"memory": format!("{gib}Gi")}}});
        }
        Step::Suspend(suspend) => shelf.spec["suspend"] = json!(suspend),
        Step::Pin(true) => shelf.spec["version"] = json!(1),
        Step::Pin(false) => {
            shelf.spec.as_object_mut().unwrap().remove("version");
        }
        Step::Secret(revision) => {
            let secret = revision.map(|revision| ("lakehouse-store".to_owned(), format!("store/{revision}")));
            shelf.world.secrets = secret.into_iter().collect();
        }
        Step::Asked(is_asked) => shelf.is_asked = *is_asked,
        Step::Empty => shelf.empty(),
        Step::DeleteJobs => {
            let names: Vec<String> =
                shelf.world.jobs.iter().map(|job| job.metadata.name.clone().unwrap()).collect();
            for name in names {
                shelf.world.change(&name, |job, now| {
                    let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now);
                    job.metadata.deletion_timestamp = Some(time);
                });
            }
        }
        Step::DeleteConfigMaps => shelf.world.config_maps.clear(),
    }
}

/// Everything that stood in the way is gone, and all that runs ends well.
fn settle(shelf: &mut Shelf) {
    shelf.spec["suspend"] = json!(false);
    shelf.spec.as_object_mut().unwrap().remove("version");
    shelf.world.secrets = [("lakehouse-store".to_owned(), "store/9".to_owned())].into();
    shelf.dataset.get_or_insert(1);
    shelf.weights.get_or_insert("0".to_owned());
    shelf.is_asked = true;
    for _ in 0..60 {
        let before = (shelf.world.jobs.clone(), shelf.world.config_maps.clone(), shelf.world.pods.clone());
        let plan = shelf.visit();
        shelf.tick(End::Done);
        let after = (shelf.world.jobs.clone(), shelf.world.config_maps.clone(), shelf.world.pods.clone());
        if before == after && plan.next_visit.is_none() && plan.rollback.is_none() {
            return;
        }
        shelf.world.pass(1);
        if let Some(next) = plan.next_visit {
            shelf.world.now = shelf.world.now.max(next);
        }
    }
    panic!("no rest after 60 rounds: {:#?}", shelf.plan());
}

/// Whether a plan changes nothing.
fn rests(plan: &Plan) -> bool {
    let makes = plan.children.iter().any(|child| matches!(child.kind(), Kind::Job | Kind::ConfigMap));
    !makes && plan.delete.is_empty() && plan.suspend.is_none() && plan.rollback.is_none()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_walk_ends_at_rest_with_what_was_asked_for(
        manual in any::<bool>(), steps in proptest::collection::vec(step(), 0..60),
    ) {
        let refresh = if manual { "Manual" } else { "OnDatasetChange" };
        let mut shelf = Shelf::new(json!({"refresh": refresh}));
        for step in &steps {
            take(&mut shelf, step);
            prop_assert!(shelf.world.at_work() <= 1, "two Jobs work at once after {step:?}");
        }
        settle(&mut shelf);

        let plan = shelf.plan();
        prop_assert_eq!(&plan.run, &Run::Idle);
        prop_assert!(rests(&plan), "{:?}", plan);
        prop_assert_eq!(plan.clone(), shelf.plan());
        let there = shelf.stored.as_ref().unwrap();
        prop_assert!(shelf.ready().is_made_as_asked(there, shelf.model().as_ref()), "{:?}", there);
        prop_assert!(manual || shelf.is_as_asked());
        prop_assert!(shelf.world.jobs.len() <= 2, "{} Jobs are kept", shelf.world.jobs.len());
        prop_assert!(shelf.world.config_maps.len() <= shelf.world.jobs.len());
    }

    #[test]
    fn what_is_built_is_not_built_again(steps in proptest::collection::vec(step(), 0..60)) {
        let mut shelf = Shelf::new(json!({}));
        settle(&mut shelf);
        let built = shelf.built();
        for step in &steps {
            match step {
                // These ask for something else; and while nobody says what is there, a record that is gone cannot be told from
                // one that never was.
                Step::Dataset(Some(_)) | Step::Weights(Some(_)) | Step::Text(_) | Step::Shards(_) | Step::Empty
                | Step::DeleteJobs | Step::Asked(_) | Step::Refresh(_) => {}
                step => take(&mut shelf, step),
            }
        }
        (shelf.dataset, shelf.weights) = (Some(1), Some("a".to_owned()));
        settle(&mut shelf);
        prop_assert_eq!(shelf.built(), built);
    }
}
