//! Texts that are no TOML.

use toml::de::Error;

use crate::node::Sink;
use crate::schema;

/// Reports the first of `errors` on each line. Neither the line nor the error's own rendering is shown: the line may
/// hold a secret.
pub(crate) fn report(text: &str, errors: &[Error], sink: &mut Sink) {
    let mut lines = Vec::new();
    for error in errors {
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        let line = sink.line_at(at);
        if lines.contains(&line) {
            continue;
        }
        lines.push(line);
        let content = text.lines().nth(line - 1).unwrap_or_default().trim();
        let key = content.split('=').next().unwrap_or_default().trim();
        let example = schema::example(key);
        let field = example.map_or("", |_| key).to_owned();
        sink.add(at, field, None, format!("not TOML: {}", error.message()), fix(error, content, example));
    }
}

fn fix(error: &Error, content: &str, example: Option<&str>) -> String {
    let section = content.split('#').next().unwrap_or_default().trim();
    if let "[peer]" | "[route]" | "[rule]" = section {
        return format!("write [{section}]");
    }
    if error.message() == "duplicate key" {
        return "keep one of them".to_owned();
    }
    match example {
        Some(example) => format!("write it as in {example}"),
        None => "write sections as [interface] or [[peer]], keys as mtu = 1420, and text in quotes".to_owned(),
    }
}
