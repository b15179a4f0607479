//! A source of another suite of Debian, derived from the sources that the machine already has: same mirror, same keys.
//!
//! Both forms of `sources.list(5)` are read: one line per source, and stanzas of fields (deb822).

use std::fs;
use std::path::Path;

/// Fields that say how a source is trusted; they hold for another suite of the same mirror.
const CARRIED: [&str; 8] = [
    "signed-by",
    "trusted",
    "check-valid-until",
    "check-date",
    "allow-insecure",
    "allow-weak",
    "allow-downgrade-to-insecure",
    "architectures",
];

/// One source: where, which suites, which components, and the carried fields as `Name: value` text.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    uris: String,
    suites: Vec<String>,
    components: Vec<String>,
    carried: Vec<(String, String)>,
}

/// A deb822 file with `suite` as its only suite, or none when the machine has no source of its own release.
///
/// `apt` is the folder of the machine's sources, `codename` the release that it runs.
pub(crate) fn of_suite(apt: &Path, codename: &str, suite: &str) -> Option<String> {
    let mut files = vec![apt.join("sources.list")];
    let mut parts: Vec<_> = fs::read_dir(apt.join("sources.list.d")).into_iter().flatten().flatten().collect();
    parts.sort_by_key(fs::DirEntry::file_name);
    files.extend(parts.iter().map(fs::DirEntry::path));
    let sources = files.iter().flat_map(|file| {
        let text = fs::read_to_string(file).unwrap_or_default();
        match file.extension().and_then(|it| it.to_str()) {
            Some("list") => one_line(&text),
            Some("sources") => deb822(&text),
            _ => Vec::new(),
        }
    });
    sources.into_iter().find(|source| source.serves(codename)).map(|source| source.with_suite(suite))
}

impl Source {
    fn serves(&self, codename: &str) -> bool {
        self.suites.iter().any(|suite| suite == codename) && self.components.iter().any(|it| it == "main")
    }

    fn with_suite(&self, suite: &str) -> String {
        let mut text = format!("Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\n", self.uris);
        for (name, value) in &self.carried {
            text.push_str(name);
            text.push(':');
            text.push_str(value);
            text.push('\n');
        }
        text
    }
}

/// `deb [option=value …] uri suite component …`
fn one_line(text: &str) -> Vec<Source> {
    text.lines().filter_map(|line| line_source(line.split('#').next().unwrap_or_default().trim())).collect()
}

fn line_source(line: &str) -> Option<Source> {
    let rest = line.strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t', '[']))?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    let (uris, suite) = (words.next()?, words.next()?);
    let carried = options
        .split_whitespace()
        .filter_map(|option| option.split_once('='))
        .map(|(name, value)| (if name == "arch" { "architectures" } else { name }, value))
        .filter(|(name, _)| CARRIED.contains(name))
        .map(|(name, value)| (name.to_owned(), format!(" {}", value.replace(',', " "))))
        .collect();
    Some(Source { uris, suites: vec![suite], components: words.collect(), carried })
}

/// Stanzas of `Name: value`, parted by empty lines; a value goes on in lines that start with a space.
fn deb822(text: &str) -> Vec<Source> {
    let mut stanzas = vec![Vec::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if line.trim().is_empty() {
            stanzas.push(Vec::new());
        } else if let Some(stanza) = stanzas.last_mut() {
            stanza.push(line);
        }
    }
    stanzas.iter().filter_map(|stanza| stanza_source(stanza)).collect()
}

fn stanza_source(lines: &[&str]) -> Option<Source> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in lines {
        if line.starts_with([' ', '\t']) {
            let (_, value) = fields.last_mut()?;
            value.push('\n');
            value.push_str(line);
        } else {
            let (name, value) = line.split_once(':')?;
            fields.push((name.trim().to_ascii_lowercase(), value.trim_end().to_owned()));
        }
    }
    let field = |name: &str| fields.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str());
    let words = |name: &str| field(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let is_off = field("enabled").is_some_and(|value| value.trim().eq_ignore_ascii_case("no"));
    if is_off || !words("types").iter().any(|it| it == "deb") {
        return None;
    }
    let uris = words("uris").first()?.clone();
    let carried = fields.iter().filter(|(name, _)| CARRIED.contains(&name.as_str())).cloned().collect();
    Some(Source { uris, suites: words("suites"), components: words("components"), carried })
}

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;
