//! Walks of any length through what can happen: whatever was seen, missed, done twice or half, it ends at the same place.

use proptest::prelude::*;
use serde_json::json;

use crate::world::{End, World};
use lakehouse_plan::cluster::dataset::Run;

/// What can happen.
#[derive(Clone, Debug)]
enum Step {
    /// An operator plans and applies.
    Visit,
    /// It is killed after so many steps.
    Killed(usize),
    /// Two operators have planned the same; the second is late.
    Late(End),
    /// The cluster goes on.
    Tick(End),
    /// It goes on, but takes its time with what is deleted.
    Slow(End),
    Pass(i64),
    Refresh(u8),
    Entry(u8),
    Memory(u8),
    Suspend(bool),
    Pin(bool),
    Secret(Option<u8>),
    /// Somebody empties the bucket.
    Empty,
    /// Somebody deletes what he can by hand.
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
        1 => (0u8..3).prop_map(Step::Refresh),
        2 => (0u8..3).prop_map(Step::Entry),
        1 => (1u8..3).prop_map(Step::Memory),
        1 => any::<bool>().prop_map(Step::Suspend),
        1 => any::<bool>().prop_map(Step::Pin),
        1 => proptest::option::of(0u8..3).prop_map(Step::Secret),
        1 => Just(Step::Empty),
        1 => Just(Step::DeleteJobs),
        1 => Just(Step::DeleteConfigMaps),
    ]
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        4 => Just(End::Done),
        1 => Just(End::Failed("SourceMissing")),
        1 => Just(End::Failed("InvalidData")),
        1 => Just(End::Failed("NotSupported")),
        1 => Just(End::OutOfMemory),
        1 => Just(End::Crash),
    ]
}

fn take(world: &mut World, step: &Step) {
    match step {
        Step::Visit => {
            world.visit();
        }
        Step::Killed(steps) => {
            let plan = world.plan();
            world.apply_steps(&plan, *steps);
        }
        Step::Late(end) => {
            let plan = world.visit();
            world.tick(*end);
            world.apply(&plan);
        }
        Step::Tick(end) => world.tick(*end),
        Step::Slow(end) => world.tick_but(*end, |job| job.metadata.deletion_timestamp.is_some()),
        Step::Pass(seconds) => world.pass(*seconds),
        Step::Refresh(value) => world.refresh = Some(value.to_string()),
        Step::Entry(digest) => world.entry = (*digest > 0).then(|| format!("d{digest}")),
        Step::Memory(gib) => {
            world.spec["ingest"] = json!({"resources": {"limits": {"memory": format!("{gib}Gi")}}});
        }
        Step::Suspend(suspend) => world.spec["suspend"] = json!(suspend),
        Step::Pin(true) => world.spec["version"] = json!(1),
        Step::Pin(false) => {
            world.spec.as_object_mut().unwrap().remove("version");
        }
        Step::Secret(revision) => {
            world.secrets = revision
                .iter()
                .map(|revision| ("lakehouse-store".to_owned(), format!("store/{revision}")))
                .collect();
        }
        Step::Empty => world.manifest = None,
        Step::DeleteJobs => {
            for name in world.jobs.iter().map(|job| job.metadata.name.clone().unwrap()).collect::<Vec<_>>() {
                world.change(&name, |job, now| {
                    job.metadata.deletion_timestamp =
                        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
                });
            }
        }
        Step::DeleteConfigMaps => world.config_maps.clear(),
    }
}

/// Everything that stood in the way is gone, and all that runs ends well.
fn settle(world: &mut World) -> usize {
    world.spec["suspend"] = json!(false);
    world.spec.as_object_mut().unwrap().remove("version");
    world.secrets = [("lakehouse-store".to_owned(), "store/9".to_owned())].into();
    world.entry.get_or_insert("d1".to_owned());
    for round in 0..60 {
        let before = (world.jobs.clone(), world.config_maps.clone(), world.pods.clone());
        let plan = world.visit();
        world.tick(End::Done);
        let after = (world.jobs.clone(), world.config_maps.clone(), world.pods.clone());
        if before == after && plan.next_visit.is_none() {
            return round;
        }
        world.pass(1);
        if let Some(next) = plan.next_visit {
            world.now = world.now.max(next);
        }
    }
    panic!("no rest after 60 rounds: {:#?}", world.plan());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_walk_ends_at_rest_with_what_was_asked_for(steps in proptest::collection::vec(step(), 0..60)) {
        let mut world = World::of_config_map();
        for step in &steps {
            take(&mut world, step);
            prop_assert!(world.at_work() <= 1, "two Jobs work at once after {step:?}");
        }
        settle(&mut world);

        let plan = world.plan();
        prop_assert_eq!(&plan.run, &Run::Idle);
        prop_assert!(plan.children.is_empty() && plan.delete.is_empty() && plan.suspend.is_none(), "{:?}", plan);
        prop_assert_eq!(plan.clone(), world.plan());
        // What was asked for last is what was made last.
        let latest = world.jobs.iter().max_by_key(|job| job.metadata.annotations.as_ref().unwrap()["lakehouse.dev/run"].parse::<u32>().unwrap()).unwrap();
        prop_assert_eq!(world.done.last().unwrap(), &latest.metadata.annotations.as_ref().unwrap()["lakehouse.dev/inputs"]);
        prop_assert!(world.manifest.is_some(), "nothing is published");
        prop_assert!(world.jobs.len() <= 2, "{} Jobs are kept", world.jobs.len());
        // A finished Job needs its ConfigMap no more; one without its Job is left by nobody.
        prop_assert!(world.config_maps.len() <= world.jobs.len());
    }

    #[test]
    fn what_is_done_is_not_done_again(steps in proptest::collection::vec(step(), 0..60)) {
        let mut world = World::of_config_map();
        settle(&mut world);
        let done = world.done.clone();
        // Nothing that can happen asks for the same rows again, unless other rows or a refresh came between, or somebody
        // deletes the record of the work, or the work.
        for step in &steps {
            match step {
                Step::Refresh(_) | Step::Entry(_) | Step::DeleteJobs | Step::Empty => {}
                step => take(&mut world, step),
            }
        }
        settle(&mut world);
        prop_assert_eq!(&world.done, &done);
        prop_assert_eq!(world.jobs.len(), 1);
    }

    #[test]
    fn each_time_of_a_schedule_is_read_for_at_most_once(steps in proptest::collection::vec(step(), 0..80)) {
        let mut world = World::of_config_map();
        world.spec["schedule"] = json!("*/10 * * * *");
        for step in steps.iter().filter(|step| !matches!(step, Step::Pin(_))) {
            take(&mut world, step);
            prop_assert!(world.at_work() <= 1, "two Jobs work at once after {step:?}");
        }
        let mut slots = world.done_slots.clone();
        slots.sort();
        slots.dedup();
        prop_assert_eq!(slots.len(), world.done_slots.len());
    }
}
