//! Every command in the README and in docs/ works, or needs what no test has: a cluster, or a node of one's own.
//!
//! What the daemon answers is run in the lab, in a mesh that a member has joined. Of the project's own commands, the command line is
//! read; CI runs them. Manifests are rendered, and the objects that are named must be in them. A program that this test does
//! not know fails it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use peer_tests::lab::{GATEWAY, Mesh, MeshPlan, find_daemon, page_within, run};
use peer_tests::manifests;
use serde_json::Value;

/// Programs that no test runs, and how a page that has them says what they need.
const ELSEWHERE: [(&str, &str); 8] = [
    ("kubectl", "a cluster"),
    ("cilium", "a cluster"),
    ("cilium-dbg", "a cluster"),
    ("ctr", "a cluster"),
    ("systemctl", "a node of your own"),
    ("skopeo", "a registry"),
    ("podman", "podman"),
    ("promtool", "promtool"),
];
/// Objects that readers had before us.
const THEIRS: [&str; 2] = ["netbird", "kube-system"];
/// Switches of the daemon that its help does not show.
const HIDDEN: [&str; 1] = ["NB_BLOCK_LAN_ACCESS"];

/// A line of a block that people are to type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    place: String,
    words: Vec<String>,
}

#[test]
fn the_daemon_s_commands_are_run() {
    let mesh = Mesh::start(&MeshPlan::default()).expect("mesh");
    page_within(Duration::from_secs(12), &mesh.member().namespace, GATEWAY).expect("a first page");
    let daemon = find_daemon().expect("daemon");
    let mut ran = BTreeSet::new();
    for line in lines_of("peer-daemon") {
        let words: Vec<_> = line.words[1..].iter().map(String::as_str).collect();
        let (place, text) = (&line.place, words.join(" "));
        // A start is what scenarios and the test of docs/static.md are about; keys come from standard input.
        let only_read = matches!(words.first(), Some(&("up" | "pubkey")) | None);
        if only_read || is_synopsis(&words) {
            assert_flags_exist(&daemon, &words, place);
            continue;
        }
        if !ran.insert(text.clone()) {
            continue;
        }
        let finished = run(mesh.node.namespace.command(&daemon).args(&words)).expect("it ends");
        let said = format!("{place}: peer-daemon {text}: {}\n{}{}", finished.status, finished.stdout, finished.stderr);
        assert!(!finished.stderr.contains("Usage:"), "{said}");
        let fine: &[i32] = match words[0] {
            "doctor" => &[0, 1, 2],
            "trace" => &[0, 1],
            _ => &[0],
        };
        assert!(finished.status.code().is_some_and(|code| fine.contains(&code)), "{said}");
        if words.contains(&"--json") {
            serde_json::from_str::<Value>(&finished.stdout).expect(&said);
        }
    }
    assert!(ran.len() > 8, "too few for these pages: {ran:?}");
}

#[test]
fn the_project_s_commands_exist() {
    let xtask = lines_of("cargo");
    assert!(xtask.len() > 4, "{xtask:?}");
    for Line { place, words } in xtask {
        match words[1].as_str() {
            "xtask" => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
                // Asked for last, it is answered only when all before it was understood.
                let finished = run(command.args(&words[2..]).arg("--help")).expect("it ends");
                assert!(finished.status.success(), "{place}: {}: {}", words.join(" "), finished.stderr);
            }
            "build" | "test" | "run" | "doc" => {}
            other => panic!("{place}: cargo {other} is not known to this test"),
        }
    }
}

#[test]
fn kubectl_names_what_the_manifests_have() {
    let lines = lines_of("kubectl");
    assert!(lines.len() > 8, "{lines:?}");
    let mut objects: BTreeSet<(String, String)> = BTreeSet::new();
    for overlay in ["overlays/daemonset", "overlays/statefulset", "overlays/rootless"] {
        for object in manifests::render(overlay).expect(overlay) {
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
            objects.insert((namespace, manifests::name(&object).to_lowercase()));
        }
    }
    // What a reader makes by a copy is looked at where it was copied from, and has that reader's own name.
    let copies: BTreeMap<_, _> = lines_of("cp").into_iter().map(|line| copy(&line)).collect();
    assert!(!copies.is_empty(), "the example is to be copied");
    for Line { place, words } in lines {
        let text = words.join(" ");
        if let Some(at) = words.iter().position(|word| word == "-k" || word == "kustomize") {
            let folder = copies.get(&words[at + 1]).unwrap_or(&words[at + 1]).strip_prefix("deploy/").expect(&place);
            manifests::render(folder).unwrap_or_else(|error| panic!("{place}: {text}: {error:#}"));
        }
        let Some(at) = words.iter().position(|word| word == "-n") else { continue };
        let namespace = &words[at + 1];
        if THEIRS.contains(&namespace.as_str()) {
            continue;
        }
        assert!(objects.iter().any(|(known, _)| known == namespace), "{place}: no namespace {namespace}: {text}");
        for word in
            words.iter().take_while(|word| *word != "--").filter(|word| word.contains('/') && !word.contains("deploy/"))
        {
            let known = objects.contains(&(namespace.clone(), word.to_lowercase()));
            assert!(known, "{place}: no {word} in {namespace}: {text}");
        }
    }
}

/// Run by a test, or said to need something else, so that nobody takes it for tested.
#[test]
fn every_command_is_run_or_marked() {
    let pages = pages();
    for Line { place, words } in all_lines() {
        let program = words[0].as_str();
        if ["peer-daemon", "cargo", "cp"].contains(&program) {
            continue;
        }
        let needs = ELSEWHERE.iter().find(|(known, _)| *known == program);
        let (_, needs) = needs.unwrap_or_else(|| panic!("{place}: `{}`: how is it run?", words.join(" ")));
        let page =
            pages.iter().find(|(page, _)| place.starts_with(&*page.file_name().expect("a name").to_string_lossy()));
        let said = prose(&page.expect("a page").1).contains(needs);
        assert!(said, "{place}: `{}` runs in no test: the page must say that it needs {needs}", words.join(" "));
    }
}

#[test]
fn variables_are_the_daemon_s() {
    let mut known: BTreeSet<String> = HIDDEN.map(str::to_owned).into();
    for command in ["up", "status", "doctor"] {
        let help = run(Command::new(find_daemon().expect("daemon")).args([command, "--help"])).expect("help").stdout;
        known.extend(help.split("[env: ").skip(1).filter_map(|rest| Some(rest.split(['=', ']']).next()?.to_owned())));
    }
    for (page, text) in pages() {
        for (at, _) in text.match_indices("NB_") {
            let name: String =
                text[at..].chars().take_while(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || *c == '_').collect();
            // `NB_*` stands for all of them.
            assert!(name == "NB_" || known.contains(&name), "{}: the daemon has no {name}", page.display());
        }
    }
}

/// Pages and headings that links lead to are there, on every page of the repository.
#[test]
fn links_lead_somewhere() {
    for (page, text) in texts(&["md"]) {
        let prose = prose(&text);
        for link in prose.lines().flat_map(|line| line.split("](").skip(1)).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().expect("a folder").join(file) };
            assert!(target.exists(), "{}: there is no {link}", page.display());
            assert!(anchor.is_empty() || has_heading(&target, anchor), "{}: no heading for {link}", page.display());
        }
    }
}

/// Pages that are named without a link, in pages, comments, messages and manifests, are there as well, with their headings.
#[test]
fn pages_that_are_named_exist() {
    let root = manifests::workspace();
    let mut named = 0;
    for (file, text) in texts(&["md", "rs", "toml", "yaml", "service"]) {
        for (at, _) in text.match_indices("docs/") {
            // Of somebody else's: a longer path.
            if text[..at].ends_with(|c: char| c.is_alphanumeric() || "/.".contains(c)) {
                continue;
            }
            let is_part = |c: char| c.is_ascii_alphanumeric() || "/-_.#".contains(c);
            let name: String = text[at..].chars().take_while(|c| is_part(*c)).collect();
            let (page, anchor) = name.split_once('#').unwrap_or((&name, ""));
            let Some(end) = page.find(".md") else { continue };
            let page = root.join(&page[..end + 3]);
            assert!(page.exists(), "{}: there is no {name}", file.display());
            let anchor = anchor.trim_end_matches('.');
            assert!(anchor.is_empty() || has_heading(&page, anchor), "{}: no heading for {name}", file.display());
            named += 1;
        }
    }
    assert!(named > 20, "{named}: too few, the search is broken");
}

/// Files and folders of the repository that pages name, such as `deploy/example`.
#[test]
fn files_that_pages_name_exist() {
    let root = manifests::workspace();
    let folders = ["benches/", "deploy/", "fuzz/", "peer-common/", "peer-daemon/", "peer-ebpf/", "tests/", "xtask/"];
    let copies: BTreeSet<_> = lines_of("cp").iter().map(|line| copy(line).0).collect();
    for (page, text) in texts(&["md"]) {
        let quoted =
            text.lines().filter(|line| !line.starts_with("    ")).flat_map(|line| line.split('`').skip(1).step_by(2));
        for name in quoted.filter(|name| folders.iter().any(|folder| name.starts_with(folder))) {
            // A path, and what it says of a place in it.
            let path: String = name.chars().take_while(|c| c.is_ascii_alphanumeric() || "/-_.".contains(*c)).collect();
            let is_there =
                root.join(&path).exists() || root.join(format!("{path}.rs")).exists() || copies.contains(&path);
            assert!(is_there, "{}: there is no {name}", page.display());
        }
    }
}

/// `cp -r FROM TO`: what is made of what.
fn copy(Line { place, words }: &Line) -> (String, String) {
    let [_, flag, from, to] = words.as_slice() else { panic!("{place}: cp -r FROM TO") };
    assert_eq!(flag, "-r", "{place}");
    assert!(manifests::workspace().join(from).is_dir(), "{place}: there is no {from}");
    (to.clone(), from.clone())
}

fn has_heading(page: &Path, anchor: &str) -> bool {
    let text = fs::read_to_string(page).expect("a page");
    text.lines().filter(|line| line.starts_with('#')).any(|line| anchor_of(line) == anchor)
}

/// Texts of the repository with one of these endings.
fn texts(endings: &[&str]) -> Vec<(PathBuf, String)> {
    let mut folders = vec![manifests::workspace().to_path_buf()];
    let mut texts = Vec::new();
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                // Not in the repository, or not of ours.
                let skipped = name == "target" || name == "testdata" || name.starts_with('.');
                folders.extend((!skipped && !path.is_symlink()).then_some(path));
            } else if endings.iter().any(|ending| path.extension().is_some_and(|it| it == *ending)) {
                texts.push((path.clone(), fs::read_to_string(&path).expect("a text")));
            }
        }
    }
    texts.sort();
    texts
}

/// A heading's anchor as code hosts make it.
fn anchor_of(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-' || *c == '_')
        .collect::<String>()
        .replace(' ', "-")
}

/// Placeholders for people: nothing to run.
fn is_synopsis(words: &[&str]) -> bool {
    words
        .iter()
        .any(|word| word.contains(['[', '…', '|']) || (word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase())))
}

fn assert_flags_exist(daemon: &Path, words: &[&str], place: &str) {
    let command = words.first().copied().unwrap_or("up");
    let help = run(Command::new(daemon).args([command, "--help"])).expect("help").stdout;
    for word in words.iter().filter_map(|word| word.trim_start_matches('[').strip_prefix("--")) {
        let name: String = word.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
        assert!(help.contains(&format!("--{name}")), "{place}: {command} has no --{name}");
    }
}

fn lines_of(program: &str) -> Vec<Line> {
    all_lines().into_iter().filter(|line| line.words[0] == program).collect()
}

/// All commands, those behind `kubectl … --` by themselves as well.
fn all_lines() -> Vec<Line> {
    let mut lines = Vec::new();
    for (page, text) in pages() {
        for (number, line) in blocks(&text) {
            let place = format!("{}:{number}", page.file_name().unwrap_or_default().to_string_lossy());
            for words in commands(&line) {
                if let Some(at) = words.iter().position(|word| word == "--").filter(|_| words[0] == "kubectl") {
                    let inner = words[at + 1..].to_vec();
                    if inner[0] != "cat" {
                        lines.push(Line { place: place.clone(), words: inner });
                    }
                }
                lines.push(Line { place: place.clone(), words });
            }
        }
    }
    lines
}

fn pages() -> Vec<(PathBuf, String)> {
    let root = manifests::workspace();
    let docs = fs::read_dir(root.join("docs")).expect("docs").flatten().map(|entry| entry.path());
    let pages = docs.filter(|path| path.extension().is_some_and(|it| it == "md")).chain([root.join("README.md")]);
    let mut pages: Vec<_> = pages.map(|path| (path.clone(), fs::read_to_string(&path).expect("a page"))).collect();
    pages.sort();
    pages
}

/// A page without its indented blocks; their comments stay.
fn prose(text: &str) -> String {
    let lines = text.lines().map(|line| match line.strip_prefix("    ") {
        Some(command) => command.split_once(" # ").map_or("", |(_, said)| said),
        None => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Lines of blocks of commands, with their numbers: indented blocks, and fenced ones of a shell or of nothing named. A line
/// that is indented further goes on with the one before.
fn blocks(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut fence: Option<bool> = None;
    let mut before_is_blank = true;
    let mut in_block = false;
    for (number, line) in text.lines().enumerate() {
        if let Some(info) = line.strip_prefix("```") {
            fence = if fence.is_some() { None } else { Some(["", "sh", "console"].contains(&info.trim())) };
            in_block = false;
            continue;
        }
        let content = match fence {
            Some(wanted) => wanted.then(|| line.to_owned()),
            None => {
                in_block = line.starts_with("    ") && (in_block || before_is_blank);
                in_block.then(|| line[4..].to_owned())
            }
        };
        before_is_blank = line.trim().is_empty();
        match content {
            Some(content) if content.starts_with(' ') => {
                if let Some((_, last)) = lines.last_mut() {
                    last.push(' ');
                    last.push_str(content.trim());
                }
            }
            Some(content) if !content.trim().is_empty() && !content.starts_with('#') => {
                lines.push((number + 1, content));
            }
            _ => {}
        }
    }
    lines
}

/// The commands of a line: without variables before them, redirections, and what is said behind `#`.
fn commands(line: &str) -> Vec<Vec<String>> {
    let line = line.split(" # ").next().unwrap_or(line).trim();
    let line = line.strip_prefix('(').and_then(|line| line.strip_suffix(')')).unwrap_or(line);
    let parts = line.split("&&").flat_map(|part| part.split(';'));
    let words = parts.map(|part| {
        let words = part.split_whitespace().take_while(|word| *word != ">" && *word != "<");
        let words = words.skip_while(|word| {
            word.split_once('=').is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        });
        words.map(|word| word.strip_prefix("target/release/").unwrap_or(word).to_owned()).collect::<Vec<_>>()
    });
    words.filter(|words| !words.is_empty() && words[0] != "umask").collect()
}

#[test]
fn commands_are_found_in_pages() {
    let text = "Text\n\n    a --b   # said\n    X_Y=1 target/release/c && d\n\n- item\n    not a block\n\n```toml\nno\n```\n\n    e [--f]\n        [--g]\n";
    let found: Vec<_> =
        blocks(text).into_iter().flat_map(|(_, line)| commands(&line)).map(|words| words.join(" ")).collect();
    assert_eq!(found, ["a --b", "c", "d", "e [--f] [--g]"]);
    assert_eq!(commands("(umask 077; target/release/peer-daemon genkey > wt0.key)"), [["peer-daemon", "genkey"]]);
    assert_eq!(anchor_of("## What it does, and what it does not yet"), "what-it-does-and-what-it-does-not-yet");
}
