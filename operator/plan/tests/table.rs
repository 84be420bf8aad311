//! A list of resources looks as `kubectl get` prints it.

use jiff::Timestamp;
use lakehouse_crds::definitions;
use lakehouse_plan::table::table;
use serde_json::{Value, json};

#[test]
fn a_dataset_is_listed_with_the_columns_of_its_definition() {
    let table = listed(0, &[sales()], false);
    assert_eq!(table[0], ["NAME", "READY", "ROWS", "SIZE", "VERSION", "REFRESHED", "AGE"]);
    assert_eq!(table[1], ["sales", "True", "3376", "204.1 KiB", "2", "2m30s", "3d"]);
}

#[test]
fn wide_adds_the_columns_of_lower_priority() {
    let table = listed(0, &[sales()], true);
    assert_eq!(table[0][7..], ["SOURCE", "FILES", "REJECTED", "NEXT", "MESSAGE"]);
    assert_eq!(table[1][7..], ["https://h/a.csv", "1", "0", "", "Version 2 with 3,376 rows answers SQL."]);
}

#[test]
fn a_condition_is_found_by_its_name_and_not_by_its_position() {
    let mut sales = sales();
    sales["status"]["conditions"].as_array_mut().unwrap().reverse();
    assert_eq!(listed(0, &[sales], false)[1][1], "True");
}

#[test]
fn what_is_not_known_is_blank() {
    let new = json!({"metadata": {"name": "new", "creationTimestamp": "2026-11-20T12:00:00Z"}, "spec": {}});
    assert_eq!(listed(0, &[new], false)[1], ["new", "", "", "", "", "", "0s"]);
    let odd =
        json!({"metadata": {"name": "odd"}, "status": {"rows": "many", "lastIngest": {"finished": "soon"}}});
    assert_eq!(listed(0, &[odd], false)[1], ["odd", "", "", "", "", "<invalid>", ""]);
}

#[test]
fn every_kind_has_its_columns() {
    let header = |i: usize| listed(i, &[], true)[0].join(" ");
    assert_eq!(
        header(1),
        "NAME READY DATASET MODEL VECTORS FRESH AGE DIM VERSION PENDING FAILED RECALL MESSAGE"
    );
    assert_eq!(header(2), "NAME READY TYPE MODELS LATENCY AGE URL PROBED MESSAGE");
    let index = json!({"metadata": {"name": "shelf"}, "status": {"recall": 0.998, "dimension": 384}});
    assert_eq!(listed(1, &[index], true)[1][11], "0.998");
}

/// Header and rows of the definition with this number.
fn listed(definition: usize, objects: &[Value], wide: bool) -> Vec<Vec<String>> {
    let now: Timestamp = "2026-11-20T12:00:00Z".parse().expect("a time");
    let table = table(&definitions::all()[definition], objects, wide, now).expect("every path can be read");
    std::iter::once(table.header).chain(table.rows).collect()
}

fn sales() -> Value {
    json!({
        "metadata": {"name": "sales", "creationTimestamp": "2026-11-17T12:00:00Z"},
        "status": {
            "conditions": [
                {"type": "Ready", "status": "True", "message": "Version 2 with 3,376 rows answers SQL."},
                {"type": "Ingested", "status": "False", "message": "…"},
            ],
            "rows": 3376, "size": "204.1 KiB", "version": 2, "files": 1, "rejectedRows": 0,
            "lastIngest": {"finished": "2026-11-20T11:57:30Z"},
            "source": {"location": "https://h/a.csv"},
        },
    })
}
