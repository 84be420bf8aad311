//! A row's text as a template over its columns: `{title}: {body}`; `{{` and `}}` are braces.
//!
//! Parsed once; what checks a spec and what renders rows read it alike.

use std::fmt::Write;

/// A template that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Column(String),
}

/// Why a text is no template. Positions count characters from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTemplate {
    /// A brace without its other half.
    #[error("the `{{` at character {0} is never closed; write `{{{{` for a brace")]
    Unclosed(usize),
    /// A closing brace that nothing opened.
    #[error("the `}}` at character {0} closes nothing; write `}}}}` for a brace")]
    Unopened(usize),
    /// Nothing between two braces.
    #[error("the braces at character {0} name no column")]
    Unnamed(usize),
    /// Every row would have the same text.
    #[error("it names no column in braces, such as `{{title}}`")]
    NoColumn,
}

impl Template {
    /// Reads a template that names at least one column.
    pub fn parse(text: &str) -> Result<Self, InvalidTemplate> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut chars = text.chars().zip(1..).peekable();
        while let Some((c, at)) = chars.next() {
            let doubled = chars.peek().is_some_and(|&(next, _)| next == c);
            match c {
                '{' | '}' if doubled => {
                    chars.next();
                    plain.push(c);
                }
                '}' => return Err(InvalidTemplate::Unopened(at)),
                '{' => {
                    let mut column = String::new();
                    loop {
                        match chars.next() {
                            Some(('}', _)) => break,
                            None | Some(('{', _)) => return Err(InvalidTemplate::Unclosed(at)),
                            Some((c, _)) => column.push(c),
                        }
                    }
                    if column.trim().is_empty() {
                        return Err(InvalidTemplate::Unnamed(at));
                    }
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    parts.push(Part::Column(column));
                }
                c => plain.push(c),
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        let template = Self { parts };
        if template.columns().next().is_none() { Err(InvalidTemplate::NoColumn) } else { Ok(template) }
    }

    /// The columns in the order of the text; one that it names twice comes twice.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Column(column) => Some(column.as_str()),
            Part::Text(_) => None,
        })
    }

    /// Appends the text of a row whose `value` gives a column's text, which is absent for a null.
    ///
    /// Gives whether any column had more than blanks: a row without is empty, whatever stands around its columns.
    pub fn render<'a>(&self, mut value: impl FnMut(&str) -> Option<&'a str>, out: &mut String) -> bool {
        let mut says_something = false;
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Column(column) => {
                    let text = value(column).unwrap_or_default();
                    says_something |= !text.trim().is_empty();
                    out.push_str(text);
                }
            }
        }
        says_something
    }
}

impl std::fmt::Display for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for part in &self.parts {
            match part {
                Part::Text(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}"))?,
                Part::Column(column) => {
                    f.write_char('{')?;
                    f.write_str(column)?;
                    f.write_char('}')?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_between_braces_and_doubled_braces_are_text() {
        assert_eq!(rendered("{role} in {city}: {{{role}}}"), "nurse in : {nurse}");
        let template = Template::parse("{role} in {city} {role}").unwrap();
        assert_eq!(template.columns().collect::<Vec<_>>(), ["role", "city", "role"]);
    }

    #[test]
    fn a_row_is_empty_when_all_its_columns_are() {
        let template = Template::parse("{a} in {b}.").unwrap();
        let says = |a: Option<&'static str>| template.render(|_| a, &mut String::new());
        assert!(!says(None) && !says(Some(" \t")) && says(Some("x")));
    }

    #[test]
    fn what_is_no_template_is_told_with_its_place() {
        let fault = |text: &str| Template::parse(text).unwrap_err();
        assert_eq!(fault("a {b"), InvalidTemplate::Unclosed(3));
        assert_eq!(fault("{a{b}"), InvalidTemplate::Unclosed(1));
        assert_eq!(fault("ä}"), InvalidTemplate::Unopened(2));
        assert_eq!(fault("{ }"), InvalidTemplate::Unnamed(1));
        assert_eq!(fault("{{a}}"), InvalidTemplate::NoColumn);
        let sentence = fault("a {b").to_string();
        assert_eq!(sentence, "the `{` at character 3 is never closed; write `{{` for a brace");
    }

    #[test]
    fn a_template_reads_back_as_it_is_written() {
        for text in ["{a}", "x {a} y {b}", "{{{a}}} }}{{"] {
            assert_eq!(Template::parse(text).unwrap().to_string(), text);
        }
    }

    fn rendered(text: &str) -> String {
        let mut out = String::new();
        let value = |column: &str| (column == "role").then_some("nurse");
        Template::parse(text).unwrap().render(value, &mut out);
        out
    }
}
