//! What `lakehouse serve` promises: every role alone, and the gateway in front of them.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::{fs, path::Path, process::Command};

use common::{Lakehouse, eventually, lakehouse, run};
use serde_json::json;

const ROLES: [(&str, &str); 4] = [
    ("storaged", "/storage/list"),
    ("catalogd", "/catalog/list"),
    ("ingestd", "/ingest/progress"),
    ("queryd", "/sql/views"),
];

#[test]
fn each_role_runs_alone_and_the_gateway_leads_to_all_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut alone = Vec::new();
    for (role, path) in ROLES {
        let process = Lakehouse::start(serve(folder.path(), role).args(["--query-refresh", "1"]));
        assert_eq!(process.get("/health"), (200, json!({"status": "ok", "service": role})));
        assert_eq!(process.get(path).0, 200, "{role}");
        assert_eq!(process.get("/livez").0, 200, "{role}");
        assert_eq!(process.get("/readyz").0, 200, "{role}");
        assert_eq!(process.get("/metrics").0, 200, "{role}");
        alone.push((role, process));
    }
    let mut gateway = serve(folder.path(), "gateway");
    for (role, process) in &alone {
        gateway.args(["--upstream", &format!("{role}={}", process.url)]);
    }
    let gateway = Lakehouse::start(&mut gateway);
    for (role, path) in ROLES {
        assert_eq!(gateway.get(&format!("/v1{path}")).0, 200, "{role}");
    }
    let (status, answer) = gateway.post("/v1/ingest?name=sales", "sku,price\n007,1.50\n");
    assert_eq!(status, 200, "{answer}");
    let rows =
        eventually("queryd follows the catalogue", || match gateway.try_sql("SELECT sku FROM sales") {
            (200, answer) => Ok(answer["rows"].clone()),
            (_, problem) => Err(problem.to_string()),
        });
    assert_eq!(rows, json!([["007"]]));
}

#[test]
fn a_service_beyond_loopback_without_a_token_refuses_to_start() {
    let folder = tempfile::tempdir().unwrap();
    let (ended_well, _, stderr) = run(serve(folder.path(), "queryd").env("LAKEHOUSE_LISTEN", "0.0.0.0:0"));
    assert!(!ended_well);
    assert!(stderr.contains("LAKEHOUSE_TOKEN"), "{stderr}");
}

#[test]
fn a_token_is_rotated_without_an_outage() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    fs::write(&tokens, "old-token\n").unwrap();
    let service = Lakehouse::start(serve(folder.path(), "catalogd").arg("--token-file").arg(&tokens));
    let ask = |token: &str| status(&service.url, token);
    assert_eq!((ask("old-token"), ask("new-token"), ask("")), (200, 401, 401));

    fs::write(&tokens, "new-token\nold-token\n").unwrap();
    eventually("both are valid", || if ask("new-token") == 200 { Ok(()) } else { Err("not yet".into()) });
    assert_eq!(ask("old-token"), 200);

    fs::write(&tokens, "new-token\n").unwrap();
    eventually("the old one ends", || if ask("old-token") == 401 { Ok(()) } else { Err("not yet".into()) });
    assert_eq!(ask("new-token"), 200);
    assert_eq!(service.get("/health").0, 200, "open without a token");
}

#[test]
fn a_wrong_call_is_told_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |role: &str, args: &[&str]| {
        let (ended_well, _, stderr) = run(serve(folder.path(), role).args(args));
        assert!(!ended_well, "{role} {args:?}");
        stderr
    };
    assert!(refused("querydd", &[]).contains("`querydd` is no role"));
    assert!(refused("gateway", &["--upstream", "queryd=query:3214"]).contains("--upstream queryd"));
    assert!(refused("gateway", &["--upstream", "queryd"]).contains("ROLE=URL"));
    assert!(refused("queryd", &["--upstream", "catalogd=http://c"]).contains("gateway"));
}

/// A role on a free port, over the folder store that all roles of a test share.
fn serve(folder: &Path, role: &str) -> Command {
    let mut command = lakehouse();
    command
        .args(["serve", "--role", role, "--store"])
        .arg(folder.join("bucket"))
        .env("LAKEHOUSE_LISTEN", "127.0.0.1:0");
    command.arg("--cache").arg(folder.join(role));
    command
}

fn status(url: &str, token: &str) -> u16 {
    let client = common::client();
    let mut request = client.get(format!("{url}/catalog/list"));
    if !token.is_empty() {
        request = request.bearer_auth(token);
    }
    request.send().unwrap().status().as_u16()
}
