//! Values with their places, and the problems found with them.

use toml::de::{DeTable, DeValue};

use crate::error::{Problem, Problems};
use crate::schema::{Key, is_secret, suggestion};

/// A value of the file.
#[derive(Clone)]
pub(crate) struct Node<'a> {
    /// Full path, such as `peer[2].allowed_ips[0]`.
    path: String,
    /// Byte in the text.
    at: usize,
    value: &'a DeValue<'a>,
    secret: bool,
}

impl<'a> Node<'a> {
    pub(crate) fn value(&self) -> &'a DeValue<'a> {
        self.value
    }

    /// The elements, if it is an array.
    pub(crate) fn array(&self) -> Option<Vec<Node<'a>>> {
        let items = self.value.as_array()?.iter().enumerate();
        Some(items.map(|(i, item)| self.inner(format!("{}[{i}]", self.path), item, false)).collect())
    }

    fn inner(&self, path: String, value: &'a toml::Spanned<DeValue<'a>>, secret: bool) -> Self {
        Node { path, at: value.span().start, value: value.get_ref(), secret: self.secret || secret }
    }

    /// The value as it may be shown.
    fn shown(&self) -> Option<String> {
        match self.value {
            _ if self.secret => None,
            DeValue::String(text) => quoted(text),
            DeValue::Integer(number) => Some(shortened(&number.to_string())),
            DeValue::Float(number) => Some(shortened(number.as_str())),
            DeValue::Boolean(value) => Some(value.to_string()),
            DeValue::Datetime(value) => Some(value.to_string()),
            DeValue::Array(_) => Some("[…]".to_owned()),
            DeValue::Table(_) => Some("{…}".to_owned()),
        }
    }
}

/// A table whose keys are all known.
pub(crate) struct Table<'a> {
    path: String,
    at: usize,
    entries: &'a DeTable<'a>,
}

impl<'a> Table<'a> {
    /// The whole file.
    pub(crate) fn root(entries: &'a DeTable<'a>, known: &[Key], sink: &mut Sink) -> Self {
        Self { path: String::new(), at: 0, entries }.refuse_unknown(known, sink)
    }

    /// `node` as a table. Keys that are not `known` are refused.
    pub(crate) fn open(node: &Node<'a>, known: &[Key], sink: &mut Sink) -> Option<Self> {
        let Some(entries) = node.value.as_table() else {
            let array = node.value.is_array() || node.path.contains('[');
            let brackets = if array { ("[[", "]]") } else { ("[", "]") };
            let name = node.path.split('[').next().unwrap_or_default();
            // `[[interface]]` is the only array that comes here.
            let brackets = if name == "interface" { ("[", "]") } else { brackets };
            let fix = format!("write {}{name}{} and the keys on lines of their own", brackets.0, brackets.1);
            sink.refuse(node, "must be a table", fix);
            return None;
        };
        Some(Self { path: node.path.clone(), at: node.at, entries }.refuse_unknown(known, sink))
    }

    /// The value of `key`.
    pub(crate) fn get(&self, key: &str) -> Option<Node<'a>> {
        let value = self.entries.get(key)?;
        Some(Node {
            path: joined(&self.path, key),
            at: value.span().start,
            value: value.get_ref(),
            secret: is_secret(key),
        })
    }

    fn refuse_unknown(self, known: &[Key], sink: &mut Sink) -> Self {
        for key in self.entries.keys() {
            let name: &str = key.get_ref();
            if known.iter().all(|known| known.name != name) {
                // The value is not shown: under a mistyped key it may be a secret.
                let field = joined(&self.path, &bare_or_quoted(name));
                sink.add(key.span().start, field, None, "is an unknown key".to_owned(), suggestion(name, known));
            }
        }
        self
    }
}

/// Collects problems.
pub(crate) struct Sink {
    line_starts: Vec<usize>,
    found: Vec<(usize, Problem)>,
}

impl Sink {
    pub(crate) fn new(text: &str) -> Self {
        let after_breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { line_starts: std::iter::once(0).chain(after_breaks).collect(), found: Vec::new() }
    }

    /// The value of `node` must not be.
    pub(crate) fn refuse(&mut self, node: &Node<'_>, why: impl Into<String>, fix: impl Into<String>) {
        self.add(node.at, node.path.clone(), node.shown(), why.into(), fix.into());
    }

    /// `table` lacks `key`.
    pub(crate) fn missing(&mut self, table: &Table<'_>, key: &str, fix: impl Into<String>) {
        self.add(table.at, joined(&table.path, key), None, "is missing".to_owned(), fix.into());
    }

    /// A problem at the byte `at`.
    pub(crate) fn add(&mut self, at: usize, field: String, value: Option<String>, why: String, fix: String) {
        let line = self.line_at(at);
        self.found.push((at, Problem { line, field, value, why, fix }));
    }

    /// Where `node` stands, to point at it from elsewhere.
    pub(crate) fn place(&self, node: &Node<'_>) -> String {
        format!("{} (line {})", node.path, self.line_at(node.at))
    }

    /// Line of the byte `at`, from 1.
    pub(crate) fn line_at(&self, at: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= at)
    }

    /// All problems in the order of the text.
    pub(crate) fn finish(mut self) -> Problems {
        self.found.sort_by_key(|(at, _)| *at);
        Problems::new(self.found.into_iter().map(|(_, problem)| problem).collect())
    }
}

fn joined(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn bare_or_quoted(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    let fits = bare && key.len() <= SHOWN && !looks_secret(key);
    if fits { key.to_owned() } else { quoted(key).unwrap_or_else(|| "\"…\"".to_owned()) }
}

/// Most characters of a value that are shown.
const SHOWN: usize = 64;

/// As a TOML string. `None` if it may be a secret that stands in the wrong place.
fn quoted(text: &str) -> Option<String> {
    if looks_secret(text) {
        return None;
    }
    let short = shortened(text);
    // Control characters must not reach a terminal; Rust and TOML escape them alike but for the braces.
    Some(format!("{short:?}"))
}

/// As it stands in the file. `None` if a secret may be in it.
pub(crate) fn shown_raw(text: &str) -> Option<String> {
    if looks_secret(text) {
        return None;
    }
    let control = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    Some(shortened(text).chars().map(control).collect())
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Whether a secret may be in it, in the wrong place or with a slip: a key in base64 or hexadecimal. A public key is no
/// secret, but cannot be told from one.
fn looks_secret(text: &str) -> bool {
    let digit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    text.split(|c| !digit(c)).any(|run| run.len() >= 40)
}
