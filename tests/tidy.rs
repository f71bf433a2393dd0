//! House rules that no compiler checks: headers, lengths, leftovers, documents that must agree with the code.
//!
//! `cargo test --test tidy -- --nocapture` also prints the longest files and functions.
#![expect(clippy::unwrap_used, reason = "a test expects by failing")]

#[path = "source/mod.rs"]
#[expect(clippy::allow_attributes, reason = "which part is unused differs between the test binaries")]
#[allow(dead_code, reason = "each test binary uses its part")]
mod source;

use std::collections::BTreeSet;

use source::{Source, blank_literals, files, root, sources};
use tenantry::error::SqlState;

/// Letters per line; rustfmt holds code to 110, this holds comments and texts.
const LINE_MAX: usize = 125;
/// Lines per file; past 400 one looks for a second noun.
const FILE_MAX: usize = 600;
/// Lines per function; past 60 it probably has two jobs.
const FUNCTION_MAX: usize = 100;
/// What the top level of the package may hold, besides dotfiles.
const TOP_LEVEL: [&str; 16] = [
    "Cargo.toml",
    "Cargo.lock",
    "src",
    "crates",
    "config",
    "tests",
    "benches",
    "docker",
    "docs",
    "Makefile",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
    "deny.toml",
    "clippy.toml",
    "rustfmt.toml",
];

fn rust_files() -> Vec<Source> {
    ["src", "crates", "tests", "benches"].into_iter().flat_map(sources).collect()
}

/// Texts that people write: code, documents, scripts.
fn texts() -> Vec<(String, String)> {
    let mut paths: Vec<String> = std::fs::read_dir(root())
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name != "Cargo.lock" && name != "LICENSE")
        .collect();
    for dir in ["src", "crates", "tests", "benches", "config", "docker", "docs", ".ci", ".config"] {
        if root().join(dir).is_dir() {
            paths.extend(files(dir));
        }
    }
    paths
        .into_iter()
        .filter_map(|path| Some((path.clone(), std::fs::read_to_string(root().join(path)).ok()?)))
        .collect()
}

fn report(errors: &[String]) {
    assert!(errors.is_empty(), "{} violations:\n{}", errors.len(), errors.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    let bare = rust_files()
        .iter()
        .filter(|file| !file.text.starts_with("//! "))
        .map(|file| file.path.clone())
        .collect::<Vec<_>>();
    report(&bare);
}

#[test]
fn lines_and_files_are_short_enough_to_read() {
    let mut errors = Vec::new();
    for file in rust_files() {
        for (number, line) in file.text.lines().enumerate() {
            if line.chars().count() > LINE_MAX {
                errors.push(format!("{}:{}: {} letters", file.path, number + 1, line.chars().count()));
            }
        }
        let lines = file.text.lines().count();
        if lines > FILE_MAX {
            errors.push(format!("{}: {lines} lines", file.path));
        }
    }
    report(&errors);
}

#[test]
fn functions_are_short_enough_to_understand() {
    let mut lengths = Vec::new();
    for file in rust_files() {
        for (line, name, length) in functions(&blank_literals(&file.text)) {
            lengths.push((length, format!("{}:{line}: `{name}` has {length} lines", file.path)));
        }
    }
    lengths.sort();
    for (_, text) in lengths.iter().rev().take(10) {
        println!("{text}");
    }
    report(
        &lengths
            .into_iter()
            .filter(|(length, _)| *length > FUNCTION_MAX)
            .map(|(_, text)| text)
            .collect::<Vec<_>>(),
    );
}

/// Line, name and length of each function of a text without literals.
fn functions(code: &str) -> Vec<(usize, String, usize)> {
    let mut found = Vec::new();
    let lines: Vec<&str> = code.lines().collect();
    for (start, line) in lines.iter().enumerate() {
        let Some((head, rest)) = line.split_once("fn ") else { continue };
        let modifiers = ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe", "extern"];
        if !head.split_whitespace().all(|word| modifiers.contains(&word)) {
            continue;
        }
        let name: String =
            rest.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
        let mut depth = 0_i32;
        'body: for (offset, line) in lines[start..].iter().enumerate() {
            for letter in line.chars() {
                match letter {
                    '{' => depth += 1,
                    ';' if depth == 0 && offset == 0 && line.trim_end().ends_with(';') => break 'body,
                    '}' => {
                        depth -= 1;
                        if depth == 0 {
                            found.push((start + 1, name, offset + 1));
                            break 'body;
                        }
                    }
                    _ => {}
                }
            }
        }
    }
    found
}

#[test]
fn nothing_is_left_to_do_without_an_issue() {
    // Put together so that this file does not accuse itself.
    let marks = ["TO", "FIX", "XX"].map(|start| {
        format!(
            "{start}{}",
            if start == "TO" {
                "DO"
            } else if start == "FIX" {
                "ME"
            } else {
                "X"
            }
        )
    });
    let mut errors = Vec::new();
    for (path, text) in texts() {
        for (number, line) in text.lines().enumerate() {
            let marked = marks.iter().any(|mark| has_word(line, mark));
            if marked && !line.contains("issue ") {
                errors.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    report(&errors);
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let letter =
            |found: Option<char>| found.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
        !letter(line[..at].chars().next_back()) && !letter(line[at + word.len()..].chars().next())
    })
}

#[test]
fn no_test_sleeps() {
    let mut errors = Vec::new();
    let naps = ["thread", "time"].map(|module| format!("{module}::{}", "sleep("));
    for file in rust_files() {
        // A test's waiting is a bounded question (support::eventually), a virtual clock, or the simulator's.
        let text = blank_literals(&file.text);
        for (number, (line, shipped)) in
            text.lines().zip(file.code.lines().chain(std::iter::repeat(""))).enumerate()
        {
            let in_tests = file.path.starts_with("tests/") || shipped != line;
            if in_tests && naps.iter().any(|nap| line.contains(nap.as_str())) {
                errors.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    report(&errors);
}

#[test]
fn no_path_of_one_machine_is_written_down() {
    let places = ["/wor", "/hom", "/roo"].map(|start| {
        format!(
            "{start}{}",
            if start == "/wor" {
                "k/main"
            } else if start == "/hom" {
                "e/"
            } else {
                "t/"
            }
        )
    });
    let mut errors = Vec::new();
    for (path, text) in texts() {
        for (number, line) in text.lines().enumerate() {
            let homebrew = line.contains("linuxbrew");
            if !homebrew && places.iter().any(|place| line.contains(place.as_str())) {
                errors.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
            if line.contains(concat!("/tm", "p/x")) || line.contains(concat!("/tm", "p/tgt")) {
                errors.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    report(&errors);
}

#[test]
fn the_top_level_stays_short() {
    let extra: Vec<String> = std::fs::read_dir(root())
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && name != "target" && !TOP_LEVEL.contains(&name.as_str()))
        .collect();
    report(&extra);
}

#[test]
fn the_documents_that_a_reader_needs_are_there() {
    let needed = [
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "docs/architecture.md",
        "docs/isolation.md",
        "docs/life-of-a-query.md",
        "docs/budgets.md",
        "docs/operating.md",
        "docs/errors.md",
        "config/tenantry.example.toml",
    ];
    report(
        &needed
            .iter()
            .filter(|path| !root().join(path).is_file())
            .map(|path| format!("{path} is missing"))
            .collect::<Vec<_>>(),
    );
    let changelog = std::fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    assert!(changelog.contains("## ["), "CHANGELOG.md has no section for a version");
    let version = concat!("[", env!("CARGO_PKG_VERSION"), "]");
    assert!(
        changelog.contains(version) || changelog.contains("[Unreleased]"),
        "CHANGELOG.md knows no {version}"
    );
}

#[test]
fn errors_md_lists_exactly_the_codes_that_the_proxy_sends() {
    let text = std::fs::read_to_string(root().join("docs/errors.md")).unwrap();
    // Rows of its table begin with the code: | `53300` | ...
    let listed: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(code, _)| code)
        .filter(|code| code.len() == 5)
        .collect();
    let sent: BTreeSet<&str> = SqlState::ALL.iter().map(|state| state.as_str()).collect();
    assert_eq!(listed, sent);
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut errors = Vec::new();
    for (path, text) in texts().into_iter().filter(|(path, _)| path.ends_with(".md")) {
        let dir = root().join(&path).parent().unwrap().to_owned();
        for (_, rest) in text.match_indices("](").map(|(at, _)| text.split_at(at + 2)) {
            let Some((target, _)) = rest.split_once(')') else { continue };
            let file = target.split(['#', ' ']).next().unwrap();
            if !file.is_empty() && !target.contains("://") && !dir.join(file).exists() {
                errors.push(format!("{path}: {target}"));
            }
        }
    }
    report(&errors);
}
