//! YAML, and with it JSON, as a tree that knows where everything stands and keeps numbers as they were written.
//!
//! # Limits
//! At most [`BYTES_MAX`] bytes, [`NODES_MAX`] values, [`KEYS_MAX`] keys in a map and [`DEPTH_MAX`] levels. Aliases are refused, so that a small file
//! cannot become a large tree; so are keys that stand twice, keys that are no text, and tags of the file's own.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::fault::Place;

/// Largest file, in bytes.
pub(super) const BYTES_MAX: usize = 4 << 20;
/// Most values in a file.
pub(super) const NODES_MAX: usize = 200_000;
/// Most keys of one map.
pub(super) const KEYS_MAX: usize = 1_000;
/// Deepest nesting; the deepest document that OpenSLO allows has 13 levels.
pub(super) const DEPTH_MAX: usize = 40;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// Nothing, or `null`.
    Null,
    /// Text, or a number or truth value as it was written; `quoted` says that it can only be text.
    Scalar {
        text: String,
        quoted: bool,
    },
    List(Vec<Node>),
    /// In the order of the file.
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) node: Node,
}

impl Node {
    /// The value of a key; `None` if this is no map, or the key is not there or has no value.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node).filter(|node| node.value != Value::Null)
    }

    /// The value at the end of a path of keys.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The text of the scalar that a key has.
    pub(super) fn text_of(&self, key: &str) -> Option<&str> {
        self.get(key)?.text()
    }

    /// The items of a list; nothing if this is none.
    pub(super) fn items(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The entries of a map; nothing if this is none.
    pub(super) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }
}

/// Why a text is no tree: where, and what.
pub(super) type Refused = (Place, String);

/// The documents of a file.
pub(super) fn documents(text: &str) -> Result<Vec<Node>, Refused> {
    if text.len() > BYTES_MAX {
        let message = format!("the file has {} bytes, at most {BYTES_MAX} are read (split it)", text.len());
        return Err((Place::START, message));
    }
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            (Place { line: error.marker().line(), column: error.marker().col() + 1 }, error.info().to_owned())
        })?;
        builder.event(event, span)?;
    }
    Ok(builder.documents)
}

fn place_of(span: Span) -> Place {
    Place { line: span.start.line(), column: span.start.col() + 1 }
}

/// A list or map that is not closed yet.
enum Open {
    List(Place, Vec<Node>),
    Map(Place, Vec<Entry>, Option<(String, Place)>),
}

#[derive(Default)]
struct Builder {
    documents: Vec<Node>,
    open: Vec<Open>,
    nodes: usize,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Refused> {
        let place = place_of(span);
        match event {
            Event::Alias(_) => Err((place, "aliases such as \"*name\" are not taken (write the value out)".to_owned())),
            Event::Scalar(text, style, _, tag) => {
                if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) {
                    return Err((place, format!("the tag \"{tag}\" is not known (leave it out)")));
                }
                let quoted = style != ScalarStyle::Plain;
                let value = match text.as_ref() {
                    "" | "~" | "null" | "Null" | "NULL" if !quoted => Value::Null,
                    _ => Value::Scalar { text: text.into_owned(), quoted },
                };
                self.add(Node { place, value })
            }
            Event::SequenceStart(..) => self.push(place, Open::List(place, Vec::new())),
            Event::MappingStart(..) => self.push(place, Open::Map(place, Vec::new(), None)),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(place, items)) => self.add(Node { place, value: Value::List(items) }),
                Some(Open::Map(place, entries, _)) => self.add(Node { place, value: Value::Map(entries) }),
                None => Ok(()),
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
        }
    }

    fn push(&mut self, place: Place, open: Open) -> Result<(), Refused> {
        if self.open.len() >= DEPTH_MAX {
            return Err((place, format!("it is nested more than {DEPTH_MAX} levels deep")));
        }
        if let Some(Open::Map(_, _, None)) = self.open.last() {
            return Err((place, "a key must be text".to_owned()));
        }
        self.open.push(open);
        Ok(())
    }

    fn add(&mut self, node: Node) -> Result<(), Refused> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err((node.place, format!("the file has more than {NODES_MAX} values (split it)")));
        }
        match self.open.last_mut() {
            None => self.documents.push(node),
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Map(_, entries, key)) => match (key.take(), node.value) {
                (Some((key, place)), value) => {
                    entries.push(Entry { key, place, node: Node { place: node.place, value } });
                }
                (None, Value::Scalar { text, .. }) => {
                    if let Some(first) = entries.iter().find(|entry| entry.key == text) {
                        let message =
                            format!("the key \"{text}\" stands here again, after line {} (keep one)", first.place.line);
                        return Err((node.place, message));
                    }
                    if entries.len() >= KEYS_MAX {
                        return Err((node.place, format!("a map has more than {KEYS_MAX} keys")));
                    }
                    *key = Some((text, node.place));
                }
                (None, _) => return Err((node.place, "a key must be text".to_owned())),
            },
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let (place, message) = documents(text).unwrap_err();
        format!("{}:{}: {message}", place.line, place.column)
    }

    #[test]
    fn numbers_keep_their_digits_and_everything_its_place() {
        let documents = documents("a: 0.9990\n---\nb:\n  - 'x'\n  - ~\n").unwrap();
        assert_eq!(documents.len(), 2);
        let a = documents[0].get("a").unwrap();
        assert_eq!((a.text(), a.place), (Some("0.9990"), Place { line: 1, column: 4 }));
        let items = documents[1].get("b").unwrap().items();
        assert_eq!(items[0].value, Value::Scalar { text: "x".to_owned(), quoted: true });
        assert_eq!((&items[1].value, items[1].place.line), (&Value::Null, 5));
    }

    #[test]
    fn json_is_read_as_well() {
        let documents = documents("[{\"kind\": \"Service\", \"spec\": {\"n\": 1}}]").unwrap();
        assert_eq!(documents[0].items()[0].at(&["spec", "n"]).and_then(Node::text), Some("1"));
    }

    #[test]
    fn what_could_explode_or_mislead_is_refused() {
        let billion = (1..30).fold("a0: &a0 [x, x]\n".to_owned(), |text, level| {
            format!("{text}a{level}: &a{level} [*a{0}, *a{0}]\n", level - 1)
        });
        assert_eq!(refused(&billion), "2:10: aliases such as \"*name\" are not taken (write the value out)");
        assert_eq!(refused("a: 1\nb: 2\na: 3\n"), "3:1: the key \"a\" stands here again, after line 1 (keep one)");
        assert_eq!(refused("? [a]\n: b\n"), "1:3: a key must be text");
        assert!(refused(&"[".repeat(50)).contains("nested more than 40 levels"));
        assert!(!refused(&"[".repeat(100_000)).is_empty());
        assert!(refused(&"- x\n".repeat(NODES_MAX + 1)).contains("more than 200000 values"));
        assert!(refused(&" ".repeat(BYTES_MAX + 1)).contains("at most 4194304 are read"));
        assert!(refused("a: !ruby/object x\n").contains("the tag \"!ruby/object\" is not known"));
        assert!(refused("a: 'open\n").starts_with("1:"));
    }
}
