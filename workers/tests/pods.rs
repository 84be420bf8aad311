//! What the pods of a namespace promise together: the gateway with its stateless roles in front of query pods over one bucket.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::{
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use common::{Lakehouse, client, eventually, file, lakehouse, run, signal};
use lakehouse_parts::Minio;
use serde_json::{Value, json};

#[test]
fn a_rolling_change_of_versions_fails_no_query() {
    let namespace = Namespace::in_a_bucket();
    let pods = [namespace.query().ready(), namespace.query().ready()];
    let gateways: Vec<Gateway> = pods.iter().map(|pod| namespace.gateway(pod)).collect();
    let writer = &gateways[0];
    assert_eq!(writer.upload("n\n0\n").0, 200);
    for pod in &pods {
        refresh(pod);
    }

    let (done, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let readers: Vec<_> = (0..4)
        .map(|number| {
            let (url, done, asked) = (gateways[number % 2].url(), done.clone(), asked.clone());
            thread::spawn(move || {
                let (client, mut last) = (client(), 0);
                while !done.load(Relaxed) {
                    // All rows of a version hold its number: a mix of two versions, or a step back, would show.
                    let sql = "SELECT min(n), max(n), count(*) FROM sales";
                    let answer = ask(&client, &url, sql);
                    let row = answer["rows"][0].as_array().unwrap_or_else(|| panic!("{answer}"));
                    let values: Vec<u64> = row
                        .iter()
                        .map(|value| value.to_string().trim_matches('"').parse().unwrap())
                        .collect();
                    assert_eq!((values[0], values[2]), (values[1], values[0] + 1), "{answer}");
                    assert!(values[0] >= last, "{answer} after version {last}");
                    last = values[0];
                    asked.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    for number in 1..=15 {
        let rows = format!("{number}\n").repeat(number + 1);
        let (status, answer) = writer.upload(&format!("n\n{rows}"));
        assert_eq!(status, 200, "{answer}");
        let told = ask(&client(), &writer.url(), "SELECT max(n) FROM sales");
        assert_eq!(told["rows"], json!([[number]]), "who has the answer can query what it sent");
        refresh(&pods[1]);
    }
    done.store(true, Relaxed);
    for reader in readers {
        reader.join().unwrap();
    }
    assert!(asked.load(Relaxed) > 50, "{} queries", asked.load(Relaxed));
}

#[test]
fn a_query_pod_that_ends_says_so_and_finishes_what_it_works_on() {
    let namespace = Namespace::in_a_folder();
    let pod = namespace.query().ready();
    let slow = thread::spawn({
        let url = pod.url.clone();
        move || {
            let sql = "SELECT count(*) FROM range(400000000) WHERE range % 7 = 3";
            let request = client().post(format!("{url}/sql")).bearer_auth(TOKEN);
            request
                .body(json!({ "sql": sql }).to_string())
                .header("content-type", "application/json")
                .send()
                .unwrap()
        }
    });
    eventually("it works on the query", || {
        assert!(!slow.is_finished(), "the query is too fast for this test");
        let metrics = client().get(format!("{}/metrics", pod.url)).bearer_auth(TOKEN).send().unwrap();
        let metrics = metrics.text().unwrap();
        let in_flight = metrics.lines().find(|line| line.contains("requests_in_flight{"));
        // The query and this one.
        let are_two = in_flight.is_some_and(|line| line.ends_with(" 2"));
        if are_two { Ok(()) } else { Err(format!("{in_flight:?}")) }
    });
    signal(pod.id(), "TERM");
    eventually("it says that it drains", || match pod.get("/readyz") {
        (503, answer) if answer.to_string().contains("draining") => Ok(()),
        answer => Err(format!("{answer:?}")),
    });
    let answer = slow.join().unwrap();
    let status = answer.status();
    assert_eq!(status, 200, "{}", answer.text().unwrap());
    let (ended_well, stderr) = pod.wait();
    assert!(ended_well, "{stderr}");
}

#[test]
fn a_rollback_and_an_upload_reach_every_query_pod_before_their_answer() {
    let namespace = Namespace::in_a_bucket();
    let pod = namespace.query().ready();
    let gateway = namespace.gateway(&pod);
    let count = || ask(&client(), &gateway.url(), "SELECT count(*) FROM sales")["rows"].clone();
    assert_eq!(gateway.upload("n\n1\n").0, 200);
    assert_eq!(count(), json!([[1]]));
    assert_eq!(gateway.upload("n\n1\n2\n").0, 200);
    assert_eq!(count(), json!([[2]]));
    let rolled_back =
        client().post(format!("{}/v1/catalog/rollback/sales", gateway.url())).bearer_auth(TOKEN);
    assert_eq!(rolled_back.send().unwrap().status(), 200);
    assert_eq!(count(), json!([[1]]));
    // The token of the process is what opened the pod: without one, nobody refreshes it.
    assert_eq!(client().post(format!("{}/sql/refresh", pod.url)).send().unwrap().status(), 401);
}

#[test]
fn an_upload_follows_what_the_bucket_says_of_its_dataset() {
    let namespace = Namespace::in_a_folder();
    let [told, asked] = [namespace.gateway_alone(), namespace.gateway_alone()];
    let zip = |column_type: &str| json!([{"name": "zip", "type": column_type}]);
    let upload = json!({"source": {"upload": {}}, "columns": zip("string"), "keepVersions": 1});
    told.declare(&upload);
    for rows in ["zip\n1\n2\n", "zip\n1\n2\n3\n"] {
        let (status, answer) = asked.upload(rows);
        assert_eq!(status, 200, "{answer}");
        assert!(answer.contains(r#""type":"string""#), "any gateway follows it: {answer}");
    }
    eventually("the older version is let go", || {
        let history = asked.get("/v1/catalog/history/sales");
        let kept = history["versions"].as_array().map_or(0, Vec::len);
        if kept == 1 { Ok(()) } else { Err(history.to_string()) }
    });

    let mut promised = upload.clone();
    promised["columns"] = zip("int64");
    told.declare(&promised);
    let (status, answer) = asked.upload("zip\n1\nx\n");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let details = &answer["error"]["details"];
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("bad_source")), "{answer}");
    assert_eq!(
        (&details["line"], &details["column"], &details["value"]),
        (&json!(3), &json!("zip"), &json!("x"))
    );

    let (pinned, suspended) = (json!({"version": 2}), json!({"suspend": true}));
    let elsewhere = json!({"source": {"configMap": {"name": "depots", "key": "a.csv"}}});
    for (change, sentence) in [
        (pinned, "the Dataset `sales` is pinned to version 2; remove spec.version first"),
        (suspended, "the Dataset `sales` is suspended; remove spec.suspend first"),
        (elsewhere, "the Dataset `sales` reads from ConfigMap depots, key a.csv; it takes no uploads"),
    ] {
        let mut spec = upload.clone();
        spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        told.declare(&spec);
        let (status, answer) = asked.upload("zip\n1\n");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!((status, &answer["error"]["message"]), (409, &json!(sentence)));
    }

    let declaration = namespace.folder.path().join("bucket/_catalog/declared/sales.json");
    std::fs::write(&declaration, "{").unwrap();
    let (status, answer) = asked.upload("zip\n1\n");
    assert_eq!(status, 500, "nothing is guessed: {answer}");
    assert!(answer.contains("damaged_declaration"), "{answer}");

    let request = client().delete(format!("{}/v1/catalog/declared/sales", told.url())).bearer_auth(TOKEN);
    assert_eq!(request.send().unwrap().status(), 204);
    assert!(!declaration.exists());
    let (status, answer) = asked.upload("n\n7\n");
    assert_eq!(status, 409, "it is inferred again, and another schema: {answer}");
}

#[test]
fn a_query_pod_that_cannot_be_told_fails_no_upload() {
    let namespace = Namespace::in_a_folder();
    let mut command = namespace.serve(Gateway::ROLES, "gateway");
    let gateway = Lakehouse::start(command.args(["--notify", "http://127.0.0.1:1"]));
    let gateway = Gateway(gateway);
    assert_eq!(gateway.upload("n\n1\n").0, 200);
    let (_, stderr) = gateway.0.stop();
    assert!(stderr.contains("A query pod was not told of the new version"), "{stderr}");
    assert!(!stderr.contains(TOKEN), "{stderr}");
}

#[test]
fn a_proxy_of_the_environment_is_not_asked_to_tell_query_pods() {
    let namespace = Namespace::in_a_folder();
    let pod = namespace.query().ready();
    let mut command = namespace.serve("gateway,storaged,catalogd,ingestd", "gateway");
    command.args(["--notify", &pod.url]).env("HTTP_PROXY", "http://127.0.0.1:1");
    command.env_remove("NO_PROXY").env_remove("no_proxy");
    let gateway = Gateway(Lakehouse::start(&mut command).ready());
    assert_eq!(gateway.upload("n\n1\n").0, 200);
    let (_, stderr) = gateway.0.stop();
    assert!(!stderr.contains("was not told"), "{stderr}");
}

#[test]
fn a_server_whose_bucket_is_out_of_reach_waits_and_says_why() {
    let mut minio = Minio::start();
    let namespace = Namespace::on(&minio);
    minio.stop();
    let pod = namespace.query();
    assert_eq!(pod.get("/livez").0, 200);
    let (status, answer) = pod.get("/readyz");
    let message = answer["error"]["message"].as_str().unwrap();
    assert_eq!(status, 503);
    assert!(
        message.starts_with("store: the store failed: S3 at ") && message.contains("refused"),
        "{message}"
    );
    let asked = client().post(format!("{}/sql", pod.url)).bearer_auth(TOKEN).body("{}").send().unwrap();
    assert_eq!(asked.status(), 503);

    minio.restart();
    let restarted = Instant::now();
    let _pod = pod.ready();
    assert!(restarted.elapsed() < Duration::from_secs(20), "{:?}", restarted.elapsed());
}

#[test]
fn a_server_heals_when_its_bucket_is_made() {
    let minio = Minio::start();
    let mut namespace = Namespace::on(&minio);
    // The name that the server gives its next bucket.
    namespace.store = "s3://bucket-1/team".to_owned();
    let pod = namespace.query();
    assert_eq!(pod.get("/readyz").0, 503);
    let told = eventually("it says why", || match pod.get("/readyz").1.to_string() {
        told if told.contains("NoSuchBucket") => Ok(told),
        told => Err(told),
    });
    assert!(told.contains("make the bucket first"), "{told}");
    assert_eq!(minio.bucket(), "bucket-1");
    let _pod = pod.ready();
}

#[test]
fn a_mistake_that_no_waiting_mends_ends_a_server_with_its_sentence_last() {
    let namespace = Namespace::in_a_folder();
    let refused = |name: &str, value: &str| {
        let mut command = namespace.serve("queryd", "query");
        command.env("LAKEHOUSE_STORE", "s3://sales").env(name, value);
        let (ended_well, _, stderr) = run(&mut command);
        assert!(!ended_well, "{name}={value}");
        stderr.trim_end().lines().last().unwrap().to_owned()
    };
    let endpoint = refused("AWS_ENDPOINT_URL", "minio:9000");
    assert_eq!(
        endpoint,
        "lakehouse: the store s3://sales: the S3 endpoint must start with http:// or https://"
    );
    assert!(
        refused("AWS_ACCESS_KEY_ID", "key")
            .ends_with("AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not")
    );
    assert!(refused("LAKEHOUSE_S3_PATH_STYLE", "yes").contains("neither `true` nor `false`"));
}

const TOKEN: &str = "a-token-of-the-namespace";

/// What the pods of a namespace share.
struct Namespace {
    folder: tempfile::TempDir,
    store: String,
    tokens: PathBuf,
    environment: Vec<(&'static str, String)>,
    pods: AtomicU64,
    _minio: Option<Minio>,
}

impl Namespace {
    fn in_a_folder() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("bucket").display().to_string();
        std::fs::create_dir(folder.path().join("token")).unwrap();
        file(&folder.path().join("token"), "token", &format!("{TOKEN}\n"));
        let tokens = folder.path().join("token");
        Self { folder, store, tokens, environment: Vec::new(), pods: AtomicU64::new(0), _minio: None }
    }

    fn in_a_bucket() -> Self {
        let minio = Minio::start();
        let namespace = Self::on(&minio);
        Self { _minio: Some(minio), ..namespace }
    }

    fn on(minio: &Minio) -> Self {
        let environment = vec![
            ("AWS_ENDPOINT_URL", minio.endpoint()),
            ("AWS_ACCESS_KEY_ID", Minio::ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", Minio::SECRET_KEY.to_owned()),
        ];
        Self { store: format!("s3://{}/team", minio.bucket()), environment, ..Self::in_a_folder() }
    }

    fn serve(&self, roles: &str, name: &str) -> Command {
        let number = self.pods.fetch_add(1, Relaxed);
        let mut command = lakehouse();
        command.args(["serve", "--listen", "127.0.0.1:0", "--drain-notice", "5", "--role", roles]);
        command.arg("--token-file").arg(&self.tokens);
        command.env("LAKEHOUSE_STORE", &self.store);
        command.env("LAKEHOUSE_CACHE", self.folder.path().join(format!("{name}-{number}")));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// A query pod that looks at the catalogue when it is told to, and not by itself.
    fn query(&self) -> Lakehouse {
        let mut command = self.serve("queryd", "query");
        Lakehouse::start(command.args(["--query-refresh", "3600", "--query-cache", "1GiB"]))
    }

    /// A gateway without a query pod.
    fn gateway_alone(&self) -> Gateway {
        Gateway(Lakehouse::start(&mut self.serve(Gateway::ROLES, "gateway")).ready())
    }

    fn gateway(&self, pod: &Lakehouse) -> Gateway {
        let mut command = self.serve(Gateway::ROLES, "gateway");
        command.args(["--upstream", &format!("queryd={}", pod.url), "--notify", &pod.url]);
        Gateway(Lakehouse::start(&mut command).ready())
    }
}

struct Gateway(Lakehouse);

impl Gateway {
    const ROLES: &str = "gateway,storaged,catalogd,ingestd";

    /// Says what the operator says of the Dataset `sales`.
    fn declare(&self, spec: &Value) {
        let request = client().put(format!("{}/v1/catalog/declared/sales", self.url())).bearer_auth(TOKEN);
        assert_eq!(request.body(json!({ "spec": spec }).to_string()).send().unwrap().status(), 204);
    }

    fn get(&self, path: &str) -> Value {
        let request = client().get(format!("{}{path}", self.url())).bearer_auth(TOKEN);
        serde_json::from_str(&request.send().unwrap().text().unwrap()).unwrap()
    }

    fn url(&self) -> String {
        self.0.url.clone()
    }

    fn upload(&self, csv: &str) -> (u16, String) {
        let request = client().post(format!("{}/v1/ingest?name=sales", self.url())).bearer_auth(TOKEN);
        let answer = request.body(csv.to_owned()).send().unwrap();
        (answer.status().as_u16(), answer.text().unwrap())
    }
}

fn ask(client: &reqwest::blocking::Client, gateway: &str, sql: &str) -> Value {
    let request = client.post(format!("{gateway}/v1/sql")).bearer_auth(TOKEN);
    let answer = request.header("content-type", "application/json").body(json!({ "sql": sql }).to_string());
    let answer = answer.send().unwrap();
    let (status, text) = (answer.status(), answer.text().unwrap());
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

fn refresh(pod: &Lakehouse) {
    let answer = client().post(format!("{}/sql/refresh", pod.url)).bearer_auth(TOKEN).send().unwrap();
    assert_eq!(answer.status(), 200);
    let views: Value = serde_json::from_str(&answer.text().unwrap()).unwrap();
    assert_eq!(views["views"][0]["name"], "sales", "{views}");
}
