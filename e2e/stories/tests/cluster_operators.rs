//! Operators come, go and meet. Each story installs its own and no other may run beside it, so these run one by one, after all
//! others.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::{
    batch::v1::Job,
    coordination::v1::Lease,
    core::v1::{ConfigMap, Pod},
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, EvictParams, ListParams},
    runtime::{WatchStreamExt, watcher},
};
use lakehouse_e2e::{Helm, Load, Story, image_tag};
use serde_json::json;
use tokio::sync::Mutex as Turn;

/// Held by the story whose operator runs.
static TURN: Turn<()> = Turn::const_new(());

#[tokio::test]
async fn an_operator_for_one_namespace_needs_no_cluster_role() {
    let _turn = TURN.lock().await;
    Story::run("scoped", async |story| {
        let operator = Operator::install(&story, &[scope(&story)]).await?;
        let account = format!("{RELEASE}-operator");
        let bindings =
            Api::<ClusterRoleBinding>::all(story.client.clone()).list(&ListParams::default()).await?;
        let is_ours = |binding: &ClusterRoleBinding| {
            binding.subjects.iter().flatten().any(|subject| {
                subject.name == account && subject.namespace.as_deref() == Some(operator.namespace.as_str())
            })
        };
        ensure!(!bindings.iter().any(is_ours), "the operator is bound to a ClusterRole");
        let roles = Api::<ClusterRole>::all(story.client.clone()).list(&ListParams::default()).await?;
        ensure!(
            !roles.iter().any(|role| role.name_any().contains(&operator.namespace)),
            "it has a ClusterRole"
        );
        story.dataset_of_text("rows", "a\n1\n").await?;
        story.ready("rows").await?;
        operator.uninstall().await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_is_told_and_replaced_once_it_is_right() {
    let _turn = TURN.lock().await;
    Story::run("image", async |story| {
        let own = format!("operator.image.tag={}", image_tag());
        let operator = Operator::install(&story, &[scope(&story), own, "image.tag=absent".into()]).await?;
        story.dataset_of_text("rows", "a\n1\n").await?;
        story.fails("rows", "ImagePullFailed", &[":absent"]).await?;
        operator.upgrade(&[scope(&story)]).await?;
        story.ready("rows").await?;
        operator.uninstall().await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn of_two_operators_one_leads_and_the_other_goes_on_when_it_dies() {
    let _turn = TURN.lock().await;
    Story::run("leaders", async |story| {
        let operator = Operator::install(&story, &[scope(&story), "operator.replicas=2".into()]).await?;
        story.dataset_of_text("before", "a\n1\n").await?;
        story.ready("before").await?;
        let leader = operator.leader(&story).await?;
        let pods: Api<Pod> = Api::namespaced(story.client.clone(), &operator.namespace);
        let is_leader = |pod: &Pod| leader.contains(&pod.name_any());
        let pod = pods.list(&ListParams::default()).await?.items.into_iter().find(is_leader);
        let pod = pod.with_context(|| format!("the leader {leader} is no pod"))?.name_any();
        pods.delete(&pod, &DeleteParams::default().grace_period(0)).await?;
        story.dataset_of_text("after", "a\n2\n").await?;
        story.ready("after").await?;
        ensure!(operator.leader(&story).await? != leader, "the dead one still leads");
        operator.uninstall().await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_upgrade_of_the_operator_alone_restarts_no_worker() {
    let _turn = TURN.lock().await;
    Story::run("upgrade", async |story| {
        let operator = Operator::install(&story, &[scope(&story)]).await?;
        story.dataset_of_text("rows", "a\n1\n").await?;
        story.ready("rows").await?;
        let before = (story.who("gateway").await?, story.who("query").await?, jobs(&story).await?);
        let load = Load::start(&story, 2, "SELECT sum(a) FROM rows").await?;
        let pods_before = operator.pods(&story).await?;
        let values =
            [scope(&story), "operator.logLevel=debug".into(), "operator.podAnnotations.new=yes".into()];
        operator.upgrade(&values).await?;
        ensure!(operator.pods(&story).await? != pods_before, "the operator itself was not replaced");
        // The new one is proved to work before its work is judged.
        story.dataset_of_text("more", "a\n1\n").await?;
        story.ready("more").await?;
        let mut after = (story.who("gateway").await?, story.who("query").await?, jobs(&story).await?);
        after.2.retain(|(name, _)| !name.starts_with("more-"));
        ensure!(before == after, "{before:?} became {after:?}");
        load.stop_without_failures().await?;
        operator.uninstall().await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn of_two_pods_one_stays_while_a_node_is_drained() {
    let _turn = TURN.lock().await;
    Story::run("drained", async |story| {
        let two = ["gateway.replicas=2".to_owned(), "query.replicas=2".to_owned()];
        let operator = Operator::install(&story, &[&[scope(&story)], two.as_slice()].concat()).await?;
        story.dataset_of_text("rows", "a\n1\n").await?;
        story.ready("rows").await?;
        let load = Load::start(&story, 2, "SELECT sum(a) FROM rows").await?;
        for component in ["query", "gateway"] {
            let before = story.who(component).await?;
            ensure!(before.len() == 2, "{component}: {before:?}");
            for (pod, _) in &before {
                story
                    .eventually(&format!("the eviction of {pod}"), async || {
                        match story.api::<Pod>().evict(pod, &EvictParams::default()).await {
                            Ok(_) => Ok(Some(())),
                            // The budget says no for as long as the other one is not ready.
                            Err(kube::Error::Api(status)) if status.code == 429 => Ok(None),
                            Err(error) => Err(error.into()),
                        }
                    })
                    .await?;
            }
            story
                .eventually(&format!("two new {component} pods"), async || {
                    let now = story.who(component).await?;
                    Ok((now.len() == 2 && now.iter().all(|pod| !before.contains(pod))).then_some(()))
                })
                .await?;
        }
        story.ready("rows").await?;
        load.stop_without_failures().await?;
        operator.uninstall().await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_operator_killed_at_random_leaves_every_dataset_ready_and_no_job_run_twice() {
    const DATASETS: usize = 20;
    const ROUNDS: usize = 4;
    let _turn = TURN.lock().await;
    Story::run("chaos", async |story| {
        let operator = Operator::install(&story, &[scope(&story)]).await?;
        let seen = Seen::follow(&story);
        let name = |i: usize| format!("rows-{i:02}");
        for i in 0..DATASETS {
            story.dataset_of_text(&name(i), "a\n0\n").await?;
        }
        for round in 1..=ROUNDS {
            for i in 0..DATASETS {
                story.text(&name(i), &format!("a\n{round}\n")).await?;
                if i % 7 == round {
                    operator.kill(&story).await?;
                }
                tokio::time::sleep(Duration::from_millis(u64::from(rand::random::<u8>()))).await;
            }
        }
        for i in 0..DATASETS {
            let dataset = name(i);
            let sql = format!("SELECT a FROM \"{dataset}\"");
            story
                .eventually(&format!("{dataset} with the last round's rows"), async || {
                    // Before its first version there is no view of it, which is an error like any other.
                    let rows = story.sql(&sql).await.unwrap_or_default();
                    Ok((rows == [[json!(ROUNDS)]]).then_some(()))
                })
                .await?;
            story.ready(&dataset).await?;
        }
        seen.no_job_ran_twice()?;
        operator.uninstall().await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn uninstalling_leaves_data_and_service_and_says_how_to_remove_them() {
    let _turn = TURN.lock().await;
    Story::run("uninstall", async |story| {
        let operator = Operator::install(&story, &[]).await?;
        story.dataset_of_text("rows", "a\n1\n").await?;
        story.ready("rows").await?;
        let said = operator.uninstall().await?;
        ensure!(said.contains("what-stays"), "{said}");
        let maps: Api<ConfigMap> = Api::namespaced(story.client.clone(), &operator.namespace);
        let maps = maps.list(&ListParams::default()).await?;
        let told: String = maps.iter().filter_map(|map| map.data.as_ref()?.get("README")).cloned().collect();
        ensure!(told.contains("kubectl delete"), "{told}");
        ensure!(story.sql("SELECT a FROM rows").await? == [[json!(1)]], "what is served stays served");

        let again = Operator::install(&story, &[]).await?;
        story.edit("rows", json!({"spec": {"keepVersions": 5}})).await?;
        let dataset = story.ready("rows").await?;
        ensure!(dataset.status.and_then(|status| status.version) == Some(1), "something was made anew");
        again.uninstall().await?;
        Ok(())
    })
    .await;
}

/// An operator of a story's own, in a namespace of its own.
struct Operator {
    namespace: String,
    helm: Helm,
}

const RELEASE: &str = "own";

impl Operator {
    async fn install(story: &Story, values: &[String]) -> Result<Self> {
        // The one that the other stories share would do this one's work.
        let _ = Helm::new("lakehouse-system").uninstall("lakehouse").await;
        let namespace = format!("{}-operator", story.namespace);
        let helm = Helm::new(&namespace);
        let operator = Self { namespace, helm };
        operator.upgrade(values).await?;
        Ok(operator)
    }

    async fn upgrade(&self, values: &[String]) -> Result<()> {
        self.helm.install(RELEASE, values).await?;
        Ok(())
    }

    async fn uninstall(&self) -> Result<String> {
        self.helm.uninstall(RELEASE).await
    }

    async fn leader(&self, story: &Story) -> Result<String> {
        let leases: Api<Lease> = Api::namespaced(story.client.clone(), &self.namespace);
        let lease =
            leases.list(&ListParams::default()).await?.items.into_iter().next().context("no Lease")?;
        lease.spec.and_then(|spec| spec.holder_identity).context("nobody leads")
    }

    async fn pods(&self, story: &Story) -> Result<BTreeSet<String>> {
        let pods: Api<Pod> = Api::namespaced(story.client.clone(), &self.namespace);
        Ok(pods.list(&ListParams::default()).await?.iter().filter_map(ResourceExt::uid).collect())
    }

    async fn kill(&self, story: &Story) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(story.client.clone(), &self.namespace);
        for pod in pods.list(&ListParams::default()).await? {
            // It may be gone already: that is what killing is for.
            let _ = pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await;
        }
        Ok(())
    }
}

/// The Helm value that keeps an operator to the story's namespace.
fn scope(story: &Story) -> String {
    format!("watchNamespaces={{{}}}", story.namespace)
}

async fn jobs(story: &Story) -> Result<Vec<(String, Option<String>)>> {
    let jobs = story.api::<Job>().list(&ListParams::default()).await?;
    let mut jobs: Vec<_> = jobs.iter().map(|job| (job.name_any(), job.uid())).collect();
    jobs.sort();
    Ok(jobs)
}

/// Every Job that there ever was in a namespace, also those that are pruned again.
struct Seen(Arc<Mutex<BTreeMap<String, Job>>>);

impl Seen {
    fn follow(story: &Story) -> Self {
        let jobs = Arc::new(Mutex::new(BTreeMap::new()));
        let (seen, api) = (jobs.clone(), story.api::<Job>());
        tokio::spawn(async move {
            let events = watcher(api, watcher::Config::default()).default_backoff().touched_objects();
            let mut events = std::pin::pin!(events);
            while let Some(job) = events.next().await {
                if let Ok(job) = job {
                    seen.lock().unwrap().insert(job.uid().unwrap_or_default(), job);
                }
            }
        });
        Self(jobs)
    }

    /// No two Jobs of a Dataset had the same inputs one after the other: the second would have done the first one's work again.
    fn no_job_ran_twice(&self) -> Result<()> {
        let jobs = self.0.lock().unwrap();
        ensure!(!jobs.is_empty(), "no Job was seen at all");
        let mut by_inputs: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
        for job in jobs.values() {
            let inputs = job.annotations().get("lakehouse.dev/inputs").context("a Job without its inputs")?;
            let dataset = job.owner_references().first().map(|owner| owner.name.clone()).unwrap_or_default();
            by_inputs.entry((dataset, inputs.clone())).or_default().push(job.name_any());
        }
        for ((dataset, _), names) in by_inputs {
            ensure!(names.len() == 1, "{dataset}: {names:?} had the same inputs");
        }
        println!("{} Jobs ran", jobs.len());
        Ok(())
    }
}
