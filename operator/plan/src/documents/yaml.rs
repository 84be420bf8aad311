//! YAML text to trees whose every node knows its place.
//!
//! Scalars mean what they mean to `kubectl` (YAML 1.1 as `sigs.k8s.io/yaml` reads it): an unquoted `yes` is a boolean and
//! `0x1f` a number, here as there.

use std::collections::{BTreeMap, HashMap};

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use serde_json::{Map, Number, Value as Json};

/// The most nodes that aliases may add to a file: a few lines of aliases of aliases could fill the memory.
const MAX_ALIASED_NODES: usize = 100_000;

/// Where something stands; both count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Place {
    fn of(span: Span) -> Self {
        Self { line: span.start.line(), column: span.start.col() + 1 }
    }
}

/// A value and where it starts.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A field of a map.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) node: Node,
}

impl Node {
    /// A field's value; a null counts as an absent field, as it does for the API server.
    pub(super) fn field(&self, name: &str) -> Option<&Node> {
        let Value::Map(entries) = &self.value else { return None };
        let entry = entries.iter().find(|entry| entry.key == name)?;
        (!matches!(entry.node.value, Value::Null)).then_some(&entry.node)
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn to_json(&self) -> Json {
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Number(number) => Json::Number(number.clone()),
            Value::String(text) => Json::String(text.clone()),
            Value::List(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Value::Map(entries) => Json::Object(
                entries
                    .iter()
                    .filter(|entry| !matches!(entry.node.value, Value::Null))
                    .map(|entry| (entry.key.clone(), entry.node.to_json()))
                    .collect::<Map<_, _>>(),
            ),
        }
    }

    fn size(&self) -> usize {
        1 + match &self.value {
            Value::List(items) => items.iter().map(Self::size).sum(),
            Value::Map(entries) => entries.iter().map(|entry| entry.node.size()).sum(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
        }
    }
}

/// Where each field of a document stands.
#[derive(Clone, Debug)]
pub(super) struct Places {
    root: Place,
    fields: BTreeMap<String, Place>,
}

impl Places {
    pub(super) fn of_root(root: &Node) -> Self {
        let mut places = Self { root: root.place, fields: BTreeMap::new() };
        places.add("", root);
        places
    }

    fn add(&mut self, path: &str, node: &Node) {
        match &node.value {
            Value::Map(entries) => {
                for entry in entries {
                    let path = join(path, &entry.key);
                    self.add(&path, &entry.node);
                    // The value's place, or the key's where the value is a block below it.
                    let below = matches!(entry.node.value, Value::Map(_) | Value::List(_));
                    self.fields.insert(path, if below { entry.place } else { entry.node.place });
                }
            }
            Value::List(items) => {
                for (i, item) in items.iter().enumerate() {
                    let path = format!("{path}[{i}]");
                    self.add(&path, item);
                    self.fields.insert(path, item.place);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// The place of a field, or of the nearest field around it.
    pub(super) fn of(&self, mut path: &str) -> Place {
        loop {
            if let Some(place) = self.fields.get(path) {
                return *place;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return self.root,
            }
        }
    }
}

/// `path.name`
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// A text that is no YAML, or YAML that says something else than it seems to.
#[derive(Debug)]
pub(super) struct Mistake {
    pub(super) place: Place,
    pub(super) message: String,
}

/// The documents of a text that are not empty. After a mistake of syntax nothing more can be told of the text.
pub(super) fn documents(text: &str) -> (Vec<Node>, Vec<Mistake>) {
    let mut reader = Reader {
        events: Parser::new_from_str(text),
        anchors: HashMap::new(),
        aliased: 0,
        mistakes: Vec::new(),
    };
    let mut roots = Vec::new();
    if let Err(mistake) = reader.documents(&mut roots) {
        reader.mistakes.push(mistake);
    }
    (roots, reader.mistakes)
}

struct Reader<'a> {
    events: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    aliased: usize,
    /// Mistakes that the rest of the text does not depend on.
    mistakes: Vec<Mistake>,
}

impl<'a> Reader<'a> {
    fn documents(&mut self, roots: &mut Vec<Node>) -> Result<(), Mistake> {
        while let Some((event, span)) = self.next()? {
            match event {
                Event::StreamStart | Event::StreamEnd | Event::DocumentStart(..) | Event::DocumentEnd => {}
                event => {
                    let root = self.node(event, span)?;
                    if !matches!(root.value, Value::Null) {
                        roots.push(root);
                    }
                }
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, Mistake> {
        loop {
            match self.events.next_event() {
                // Another crate's features may turn these on for the whole build; they say nothing to us.
                Some(Ok((Event::Comment(..), _))) => {}
                None => return Ok(None),
                Some(Ok(event)) => return Ok(Some(event)),
                Some(Err(error)) => return Err(unreadable(&error)),
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span) -> Result<Node, Mistake> {
        let place = Place::of(span);
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (self.scalar(text.into_owned(), style, tag.as_deref(), place), anchor)
            }
            Event::SequenceStart(_, anchor, _) => (self.list()?, anchor),
            Event::MappingStart(_, anchor, _) => (self.map()?, anchor),
            Event::Alias(anchor) => return self.alias(anchor, place),
            event => {
                return Err(Mistake {
                    place,
                    message: format!("the YAML cannot be read: unexpected {event:?}"),
                });
            }
        };
        let node = Node { place, value };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, place: Place) -> Result<Node, Mistake> {
        // A node is known under its anchor only when it is complete.
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(Mistake { place, message: "the alias stands inside what it refers to".to_owned() });
        };
        self.aliased += node.size();
        if self.aliased > MAX_ALIASED_NODES {
            let message = format!("the aliases of this file expand to more than {MAX_ALIASED_NODES} values");
            return Err(Mistake { place, message });
        }
        Ok(Node { place, value: node.value.clone() })
    }

    fn list(&mut self) -> Result<Value, Mistake> {
        let mut items = Vec::new();
        while let Some((event, span)) = self.next()? {
            if event == Event::SequenceEnd {
                break;
            }
            items.push(self.node(event, span)?);
        }
        Ok(Value::List(items))
    }

    fn map(&mut self) -> Result<Value, Mistake> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut merged: Vec<Entry> = Vec::new();
        while let Some((event, span)) = self.next()? {
            if event == Event::MappingEnd {
                break;
            }
            let place = Place::of(span);
            let (key, plain) = match event {
                Event::Scalar(text, style, ..) => (text.into_owned(), style == ScalarStyle::Plain),
                _ => return Err(Mistake { place, message: "a field's name must be a text".to_owned() }),
            };
            let Some((event, span)) = self.next()? else { break };
            let node = self.node(event, span)?;
            if plain && key == "<<" {
                self.merge(node, &mut merged);
            } else if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                let message =
                    format!("the field `{key}` stands here twice, first in line {}", first.place.line);
                self.mistakes.push(Mistake { place, message });
            } else {
                entries.push(Entry { key, place, node });
            }
        }
        // What a map says itself wins over what it merges, and what is merged first over what is merged later.
        for entry in merged {
            if !entries.iter().any(|own| own.key == entry.key) {
                entries.push(entry);
            }
        }
        Ok(Value::Map(entries))
    }

    fn merge(&mut self, node: Node, merged: &mut Vec<Entry>) {
        match node.value {
            Value::Map(entries) => merged.extend(entries),
            Value::List(items) => items.into_iter().for_each(|item| self.merge(item, merged)),
            _ => {
                self.mistakes
                    .push(Mistake { place: node.place, message: "`<<` merges maps only".to_owned() });
            }
        }
    }

    fn scalar(&mut self, text: String, style: ScalarStyle, tag: Option<&Tag>, place: Place) -> Value {
        match tag.map(Tag::core_suffix) {
            Some(Some("str")) => Value::String(text),
            Some(None) => {
                let message = "tags of your own mean nothing here; remove what starts with `!`";
                self.mistakes.push(Mistake { place, message: message.to_owned() });
                Value::String(text)
            }
            Some(Some(_)) => plain(text),
            None if style == ScalarStyle::Plain => plain(text),
            None => Value::String(text),
        }
    }
}

fn unreadable(error: &ScanError) -> Mistake {
    Mistake {
        place: Place { line: error.marker().line(), column: error.marker().col() + 1 },
        message: format!("the YAML cannot be read: {}", error.info()),
    }
}

/// What an unquoted text means.
fn plain(text: String) -> Value {
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Value::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Value::Bool(false)
        }
        _ => match number(&text) {
            Some(number) => Value::Number(number),
            None => Value::String(text),
        },
    }
}

/// A number as Go's `strconv` reads it with base 0, or a decimal fraction.
fn number(text: &str) -> Option<Number> {
    let plain: String = text.chars().filter(|&c| c != '_').collect();
    let (negative, digits) = match plain.strip_prefix(['-', '+']) {
        Some(digits) => (plain.starts_with('-'), digits),
        None => (false, plain.as_str()),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let whole = match digits.get(..2) {
        Some("0x" | "0X") => u64::from_str_radix(&digits[2..], 16),
        Some("0b" | "0B") => u64::from_str_radix(&digits[2..], 2),
        Some("0o" | "0O") => u64::from_str_radix(&digits[2..], 8),
        Some(_) if digits.starts_with('0') => u64::from_str_radix(digits, 8),
        _ => digits.parse(),
    };
    match (whole, negative) {
        (Ok(whole), false) => Some(Number::from(whole)),
        (Ok(whole), true) => 0i64.checked_sub_unsigned(whole).map(Number::from),
        (Err(_), _)
            if digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-')) =>
        {
            plain.parse().ok().and_then(Number::from_f64)
        }
        (Err(_), _) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_unquoted_text_means_what_it_means_to_kubectl() {
        // Written by `sigs.k8s.io/yaml`'s rules: YAML 1.1 as Go's yaml.v2 reads it.
        for (text, meaning) in [
            ("yes", json!(true)),
            ("Off", json!(false)),
            ("\"yes\"", json!("yes")),
            ("!!str yes", json!("yes")),
            ("12", json!(12)),
            ("-7", json!(-7)),
            ("+7", json!(7)),
            ("1_000", json!(1000)),
            ("0x1F", json!(31)),
            ("0b101", json!(5)),
            ("0o17", json!(15)),
            ("017", json!(15)),
            ("089", json!(89.0)),
            ("1.5", json!(1.5)),
            (".5", json!(0.5)),
            ("1e3", json!(1000.0)),
            ("18446744073709551615", json!(u64::MAX)),
            ("-9223372036854775808", json!(i64::MIN)),
            ("1.2.3", json!("1.2.3")),
            ("2026-11-20", json!("2026-11-20")),
            ("12h", json!("12h")),
            ("-", json!([null])),
            ("'-'", json!("-")),
            ("1 2", json!("1 2")),
            ("é", json!("é")),
            ("0é", json!("0é")),
        ] {
            let (roots, mistakes) = documents(text);
            assert!(mistakes.is_empty(), "{text}: {mistakes:?}");
            assert_eq!(roots[0].to_json(), meaning, "{text}");
        }
        let (roots, _) = documents("\u{feff}a: 1\r\nb: |\r\n  x\r\n  y\r\n");
        assert_eq!(roots[0].to_json(), json!({"a": 1, "b": "x\ny\n"}), "as an editor on Windows writes it");
        let (roots, _) = documents("# above\na: # behind\n  # between\n  - 1\n# below\n---\n# next\nb: 2\n");
        assert_eq!([roots[0].to_json(), roots[1].to_json()], [json!({"a": [1]}), json!({"b": 2})]);
        for nothing in ["~", "null", "", "# only a comment", "---\n---\n..."] {
            assert!(documents(nothing).0.is_empty(), "{nothing:?}");
        }
    }

    #[test]
    fn a_place_is_that_of_the_value_or_of_the_field_above_a_block() {
        let (roots, _) = documents("a: 1\nb:\n  - c: x\n    d: {e: ü, f: y}\n");
        let places = Places::of_root(&roots[0]);
        for (path, line, column) in [
            ("a", 1, 4),
            ("b", 2, 1),
            ("b[0]", 3, 5),
            ("b[0].c", 3, 8),
            ("b[0].d.f", 4, 18),
            ("b[0].d.unknown", 4, 5),
            ("b[7]", 2, 1),
            ("unknown", 1, 1),
        ] {
            assert_eq!(places.of(path), Place { line, column }, "{path}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_and_nothing_panics() {
        for text in [
            "[",
            "{a: b",
            "a: *x",
            "&a [*a]",
            "? [x]\n: y",
            "a:\n\tb: 1",
            "a: !own b",
            "%",
            "\"\\q\"",
            "a: b: c",
        ] {
            let (_, mistakes) = documents(text);
            assert_eq!(mistakes.len(), 1, "{text:?}: {mistakes:?}");
        }
        assert_eq!(documents(&"[".repeat(100_000)).1.len(), 1);
        assert_eq!(documents(&"- ".repeat(100_000)).1.len(), 1);
    }
}
