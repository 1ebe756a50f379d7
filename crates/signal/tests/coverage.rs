//! The table of every signal message, `docs/signal-coverage.md`: who sends it, where it is handled,
//! which tests hold it. The table is made from the schema and the sources:
//!
//!     UPDATE_COVERAGE=1 cargo test -p sluice-signal --test coverage
//!
//! writes it anew; without the variable the test checks that what stands there is true.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use sluice_proto::{SignalRequest, SignalResponse, descriptor_of};

/// Tests that a row names at most.
const TESTS_PER_ROW: usize = 3;

/// Client traps that LiveKit's SDKs hold ready for a server.
const TRAPS: usize = 35;

/// Responses that this server has no reason to send.
const NEVER_SENT: [(&str, &str); 1] = [(
    "subscribed_audio_codec_update",
    "it turns the codecs of a publisher's audio on and off, and no audio track has several here: \
     receivers get what the publisher sends",
)];

/// One message of a signal connection.
struct Row {
    number: u32,
    /// Name in the schema.
    name: String,
    /// Name of the generated variant.
    variant: String,
    /// Sent by the server, or received.
    sent: bool,
}

/// One Rust source file.
struct Source {
    /// From the root of the repository.
    path: String,
    /// Without its unit tests.
    code: String,
    functions: Vec<Function>,
}

struct Function {
    name: String,
    body: String,
    is_test: bool,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn rows() -> Vec<Row> {
    let of = |descriptor: Option<sluice_proto::MessageDescriptor>, sent: bool| {
        let descriptor = descriptor.expect("a message of the schema");
        let oneof = descriptor.oneofs().next().expect("one oneof");
        let mut rows: Vec<Row> = oneof
            .fields()
            .map(|field| Row {
                number: field.number(),
                name: field.name().to_owned(),
                variant: field.name().split('_').map(capitalised).collect(),
                sent,
            })
            .collect();
        rows.sort_by_key(|row| row.number);
        rows
    };
    let mut rows = of(descriptor_of::<SignalRequest>(), false);
    rows.extend(of(descriptor_of::<SignalResponse>(), true));
    rows
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

/// Every Rust file below the crates' `src` and `tests`.
fn sources() -> Vec<Source> {
    let root = root();
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(root.join("crates")).expect("crates").flatten() {
        for part in ["src", "tests"] {
            collect(&entry.path().join(part), &mut paths);
        }
    }
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a readable source");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
        let path = path.strip_prefix(&root).expect("below the root").display().to_string();
        Source { path, code, functions: functions(&text) }
    };
    paths.into_iter().map(read).collect()
}

fn collect(directory: &Path, paths: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// Functions by their heads; a body lasts until the next head.
fn functions(text: &str) -> Vec<Function> {
    let mut functions: Vec<Function> = Vec::new();
    let mut is_test = false;
    for line in text.lines() {
        let code = line.trim_start();
        if code.starts_with("#[test]") || code.starts_with("#[tokio::test") {
            is_test = true;
        }
        let head = code.split_once("fn ").filter(|(before, _)| {
            let mut words = before.split_whitespace();
            words.all(|word| matches!(word, "async" | "pub" | "pub(crate)" | "pub(super)"))
        });
        if let Some((_, rest)) = head {
            let name = rest.split(['(', '<']).next().unwrap_or_default().to_owned();
            functions.push(Function { name, body: String::new(), is_test });
            is_test = false;
        }
        if let Some(function) = functions.last_mut() {
            function.body.push_str(line);
            function.body.push('\n');
        }
    }
    functions
}

/// Names that a file gives to the oneof of requests or responses.
fn aliases(source: &Source, sent: bool) -> Vec<String> {
    let module = if sent { "signal_response::Message" } else { "signal_request::Message" };
    let mut aliases = vec![module.to_owned()];
    for line in source.code.lines().filter(|line| line.starts_with("use ")) {
        if let Some((_, rest)) = line.split_once(module) {
            let alias = rest.strip_prefix(" as ").unwrap_or("Message");
            aliases.push(alias.trim_end_matches(';').to_owned());
        }
    }
    aliases
}

/// Whether a word stands in a text as a whole.
fn mentions(text: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(is_name) && !after.is_some_and(is_name)
    })
}

fn is_handled(source: &Source, row: &Row) -> bool {
    let is_ours = ["crates/room/src", "crates/control/src", "crates/signal/src"]
        .iter()
        .any(|part| source.path.starts_with(part));
    let of = |alias: &String| mentions(&source.code, &format!("{alias}::{}", row.variant));
    is_ours && aliases(source, row.sent).iter().any(of)
}

fn speaks_of(function: &Function, row: &Row) -> bool {
    let variant = &row.variant;
    let direct = if row.sent { "Response" } else { "Request" };
    mentions(&function.body, &format!("{direct}::{variant}"))
        || row.sent && mentions(&function.body, &format!(", {variant})"))
        || row.sent && function.body.contains(&format!("\"{}\"", row.name))
}

/// Whether a body calls a function or method of this name.
fn calls(body: &str, name: &str) -> bool {
    body.match_indices(name).any(|(at, _)| {
        let before = body[..at].chars().next_back();
        body[at + name.len()..].starts_with('(')
            && !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

/// Tests of one file that speak of a message, themselves or through helpers of the file or of the
/// crate's test support.
fn tests_of(source: &Source, support: &[&Function], row: &Row) -> Vec<String> {
    let functions: Vec<&Function> =
        source.functions.iter().chain(support.iter().copied()).collect();
    let mut speaking: BTreeSet<&str> = BTreeSet::new();
    loop {
        let before = speaking.len();
        for function in &functions {
            let speaks = || speaking.iter().any(|name| calls(&function.body, name));
            if speaks_of(function, row) || speaks() {
                speaking.insert(&function.name);
            }
        }
        if speaking.len() == before {
            break;
        }
    }
    let mut tests: Vec<&Function> = source.functions.iter().filter(|f| f.is_test).collect();
    tests.retain(|function| speaking.contains(function.name.as_str()));
    // Those that speak of it themselves say most about it.
    tests.sort_by_key(|function| !speaks_of(function, row));
    tests.into_iter().map(|function| function.name.clone()).collect()
}

/// What holds a message: files that handle it, tests that speak of it.
struct Evidence {
    files: Vec<String>,
    tests: Vec<String>,
}

fn evidence(sources: &[Source], row: &Row) -> Evidence {
    let handled = sources.iter().filter(|source| is_handled(source, row));
    let mut tests = Vec::new();
    for source in sources.iter().filter(|source| source.path.contains("/tests/")) {
        let crate_path = source.path.split("/tests/").next().unwrap_or_default();
        let is_support =
            |s: &&Source| s.path.starts_with(crate_path) && s.path.contains("/support");
        let support: Vec<&Function> =
            sources.iter().filter(is_support).flat_map(|s| &s.functions).collect();
        tests.extend(tests_of(source, &support, row));
    }
    Evidence { files: handled.map(|source| source.path.clone()).collect(), tests }
}

fn never_sent(row: &Row) -> Option<&'static str> {
    let found = NEVER_SENT.iter().find(|(name, _)| row.sent && *name == row.name);
    found.map(|(_, reason)| *reason)
}

fn render(rows: &[(Row, Evidence)]) -> String {
    let mut text = String::from(
        "# Signal messages\n\nEvery message of a signal connection (`SignalRequest`, \
         `SignalResponse`). Made by `UPDATE_COVERAGE=1 cargo test -p sluice-signal --test \
         coverage`; the same test without the variable checks it.\n",
    );
    for (title, sent) in [("Received from clients", false), ("Sent to clients", true)] {
        let _ = write!(
            text,
            "\n## {title}\n\n| # | message | handled in | tested by |\n| --- | --- | --- | --- |\n"
        );
        for (row, evidence) in rows.iter().filter(|(row, _)| row.sent == sent) {
            let code = |names: &[String]| {
                let names = names.iter().take(TESTS_PER_ROW).map(|name| format!("`{name}`"));
                names.collect::<Vec<_>>().join(" ")
            };
            let (files, tests) = match never_sent(row) {
                Some(reason) => (format!("not sent: {reason}"), String::new()),
                None => (code(&evidence.files), code(&evidence.tests)),
            };
            let _ = writeln!(text, "| {} | {} | {files} | {tests} |", row.number, row.name);
        }
    }
    text
}

/// Rows of the checked-in table: direction and name to the words in backquotes.
fn table(text: &str) -> BTreeMap<(bool, String), Vec<String>> {
    let mut sent = false;
    let mut table = BTreeMap::new();
    for line in text.lines() {
        sent |= line == "## Sent to clients";
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let [_, number, name, files, tests, _] = cells.as_slice()
            && number.parse::<u32>().is_ok()
        {
            let quoted = format!("{files} {tests}");
            let words = quoted.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            table.insert((sent, (*name).to_owned()), words);
        }
    }
    table
}

#[test]
fn every_signal_message_is_handled_and_tested_as_the_table_says() {
    let sources = sources();
    let rows: Vec<(Row, Evidence)> = rows()
        .into_iter()
        .map(|row| {
            let found = evidence(&sources, &row);
            (row, found)
        })
        .collect();
    let lacks = |(row, evidence): &&(Row, Evidence)| {
        never_sent(row).is_none() && (evidence.files.is_empty() || evidence.tests.is_empty())
    };
    let lacking: Vec<&str> = rows.iter().filter(lacks).map(|(row, _)| &*row.name).collect();
    assert!(lacking.is_empty(), "without code or without a test: {lacking:?}");
    let path = root().join("docs/signal-coverage.md");
    if std::env::var_os("UPDATE_COVERAGE").is_some() {
        std::fs::write(&path, render(&rows)).expect("a writable table");
    }
    let table = table(&std::fs::read_to_string(&path).expect("docs/signal-coverage.md"));
    assert_eq!(table.len(), rows.len(), "a row per message");
    for (row, evidence) in &rows {
        let words = table.get(&(row.sent, row.name.clone()));
        let words = words.unwrap_or_else(|| panic!("no row for {}", row.name));
        for word in words {
            let is_true = evidence.files.contains(word) || evidence.tests.contains(word);
            assert!(is_true, "{word} has nothing to do with {}: write the table anew", row.name);
        }
        assert!(!words.is_empty() || never_sent(row).is_some(), "{} has no evidence", row.name);
    }
}

#[test]
fn every_client_trap_has_a_test_of_its_number() {
    let sources = sources();
    let names: BTreeSet<&str> =
        sources.iter().flat_map(|s| &s.functions).filter(|f| f.is_test).map(|f| &*f.name).collect();
    let missing: Vec<usize> = (1..=TRAPS)
        .filter(|number| !names.iter().any(|name| name.starts_with(&format!("trap_{number:02}_"))))
        .collect();
    assert!(missing.is_empty(), "traps without a test: {missing:?}");
}
