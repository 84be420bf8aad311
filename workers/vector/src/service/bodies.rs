//! Bodies of requests, with the place of what is wrong in a list.

use std::{fmt, marker::PhantomData};

use axum::body::Body;
use lakehouse_contract::vectors::{AddRequest, Item};
use lakehouse_http::{Problem, body};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _, SeqAccess, Visitor},
};
use serde_json::json;

use super::BODY_LIMIT;

/// Reads a JSON body on a thread where large ones hold up nobody.
pub(super) async fn read<T: DeserializeOwned + Send + 'static>(body: Body) -> Result<T, Problem> {
    let bytes = body::read(body, BODY_LIMIT).await?;
    if bytes.is_empty() {
        return Err(Problem::bad_request("the body is empty; a JSON object is expected"));
    }
    let parsed = tokio::task::spawn_blocking(move || serde_json::from_slice(&bytes)).await;
    let parsed = parsed.map_err(|_| Problem::unavailable("the process is stopping", 1))?;
    parsed.map_err(|error: serde_json::Error| said(&error.to_string()))
}

/// The sentence; of an item, with its place in the details too.
fn said(error: &str) -> Problem {
    let place = error.strip_prefix(ITEMS).and_then(|rest| rest.split_once("]: "));
    match place.and_then(|(index, _)| index.parse::<usize>().ok()) {
        Some(index) => Problem::bad_request(error).details(json!({ "list": "items", "index": index })),
        None => Problem::bad_request(format!("the body is not the JSON that is expected: {error}")),
    }
}

const ITEMS: &str = "items[";

/// `POST …/add`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Add {
    items: Numbered<Item>,
    #[serde(default)]
    model: Option<String>,
}

impl From<Add> for AddRequest {
    fn from(Add { items, model }: Add) -> Self {
        Self { items: items.0, model }
    }
}

/// A list whose errors say at which place they are.
#[derive(Debug)]
struct Numbered<T>(Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Numbered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(List(PhantomData))
    }
}

struct List<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
    type Value = Numbered<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of items")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        loop {
            match list.next_element() {
                Ok(Some(item)) => all.push(item),
                Ok(None) => return Ok(Numbered(all)),
                Err(error) => return Err(A::Error::custom(format!("{ITEMS}{}]: {error}", all.len()))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_in_a_list_is_said_with_its_place() {
        let one = r#"{"id": "a", "vector": [1]}"#;
        for (bad, part) in [
            (r#"{"id": "b", "vector": [NaN]}"#, "expected"),
            (r#"{"id": "b", "vector": [1, null]}"#, "null"),
            (r#"{"id": "b"}"#, "missing field `vector`"),
            (r#"{"id": 7, "vector": [1]}"#, "expected a string"),
        ] {
            let text = format!(r#"{{"items": [{one}, {bad}]}}"#);
            let problem = said(&serde_json::from_str::<Add>(&text).unwrap_err().to_string());
            assert!(
                problem.message.starts_with("items[1]: ") && problem.message.contains(part),
                "{}",
                problem.message
            );
            assert_eq!(problem.details.unwrap()["index"], 1);
        }
        assert!(said("EOF while parsing").message.contains("not the JSON"));
    }
}
