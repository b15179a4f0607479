//! Texts that are no TOML.

use toml::de::Error;

use crate::node::{Sink, shown_raw};
use crate::schema::{self, Key};

/// Most lines that are reported: a file that is no TOML at all has a problem on each.
const MAX_LINES: usize = 100;

/// Reports the first of `errors` on each line. The error's own rendering is not shown, because it quotes the line, and
/// that may hold a secret.
pub(crate) fn report(text: &str, errors: &[Error], sink: &mut Sink) {
    let mut lines = Vec::new();
    for error in errors {
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        let line = sink.line_at(at);
        if lines.contains(&line) {
            continue;
        }
        if lines.len() == MAX_LINES {
            break;
        }
        lines.push(line);
        let place = Place::find(text, line);
        // What else could have stood there says less than the fix.
        let message = error.message().split(", expected").next().unwrap_or_default();
        let fix = place.fix(message);
        sink.add(at, place.field(), place.value(), format!("not TOML: {message}"), fix);
    }
}

/// A line, as far as it can be told what it means.
struct Place<'a> {
    /// `interface` or `peer[2]`.
    section: String,
    line: &'a str,
    /// Its key, if that is known in the section.
    key: Option<&'static Key>,
}

impl<'a> Place<'a> {
    /// The line with that number, from 1.
    fn find(text: &'a str, number: usize) -> Self {
        let mut counts = [0; schema::SECTIONS.len()];
        let mut section = None;
        for line in text.lines().take(number) {
            let header = line.split('#').next().unwrap_or_default().trim();
            let name = header.trim_start_matches('[').trim_end_matches(']').trim();
            if header.starts_with('[') && header.ends_with(']') {
                section = schema::SECTIONS.iter().position(|(known, _)| *known == name);
                if let Some(section) = section {
                    counts[section] += 1;
                }
            }
        }
        let line = text.lines().nth(number - 1).unwrap_or_default().trim();
        let Some(section) = section else { return Self { section: String::new(), line, key: None } };
        let (name, keys) = schema::SECTIONS[section];
        let key = line.split('=').next().unwrap_or_default().trim();
        Self {
            section: if name == "interface" { name.to_owned() } else { format!("{name}[{}]", counts[section] - 1) },
            line,
            key: keys.iter().find(|known| known.name == key),
        }
    }

    fn field(&self) -> String {
        self.key.map_or(String::new(), |key| format!("{}.{}", self.section, key.name))
    }

    fn value(&self) -> Option<String> {
        let key = self.key.filter(|key| !schema::is_secret(key.name))?;
        let value = self.line.strip_prefix(key.name)?.trim_start().strip_prefix('=')?.trim();
        if value.is_empty() { None } else { shown_raw(value) }
    }

    fn fix(&self, message: &str) -> String {
        let header = self.line.split('#').next().unwrap_or_default().trim();
        if let "[peer]" | "[route]" | "[rule]" = header {
            return format!("write [{header}]");
        }
        if message == "duplicate key" {
            return "keep one of them".to_owned();
        }
        match self.key {
            Some(key) => format!("write it as in {}", key.example),
            None => "write sections as [interface] or [[peer]], keys as mtu = 1420, and text in quotes".to_owned(),
        }
    }
}
