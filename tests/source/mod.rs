//! The package's own files, for tests that read them.
//!
//! Owns finding them and taking away what is not code: comments, literals, test modules.

use std::path::{Path, PathBuf};

/// One Rust file.
pub(crate) struct Source {
    /// Relative to the package, with `/`.
    pub(crate) path: String,
    /// As it is.
    pub(crate) text: String,
    /// Without comments, literals and what is only there for tests; the lines keep their numbers.
    pub(crate) code: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let code = if is_test_file(path) { String::new() } else { without_tests(&blank_literals(text)) };
        Self { path: path.to_owned(), text: text.to_owned(), code }
    }

    /// The top-level module: `src/net/stream.rs` and `src/net.rs` are `net`; none for the roots.
    pub(crate) fn module(&self) -> Option<String> {
        let rest = self.path.strip_prefix("src/")?;
        let first = rest.split('/').next()?.trim_end_matches(".rs");
        (!["lib", "main"].contains(&first)).then(|| first.to_owned())
    }

    /// Where the code holds this text, as `path:line: text`.
    pub(crate) fn find(&self, what: &str) -> Vec<String> {
        self.code
            .lines()
            .enumerate()
            .filter(|(_, line)| line.contains(what))
            .map(|(number, line)| format!("{}:{}: {what}: {}", self.path, number + 1, line.trim()))
            .collect()
    }
}

/// The directory of the package.
pub(crate) fn root() -> PathBuf {
    // Asked at run time too: a test binary may be run for another checkout.
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// All Rust files below a directory of the package, in order.
pub(crate) fn sources(dir: &str) -> Vec<Source> {
    let paths: Vec<String> = files(dir).into_iter().filter(|path| path.ends_with(".rs")).collect();
    let read = |path: &String| std::fs::read_to_string(root().join(path)).unwrap();
    let texts: Vec<(String, String)> = paths.iter().map(|path| (path.clone(), read(path))).collect();
    let for_tests: Vec<String> = texts.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    texts
        .iter()
        .map(|(path, text)| {
            let mut source = Source::new(path, text);
            if for_tests
                .iter()
                .any(|module| path == &format!("{module}.rs") || path.starts_with(&format!("{module}/")))
            {
                source.code = String::new();
            }
            source
        })
        .collect()
}

/// Paths, without `.rs`, of the modules that a file declares for tests only.
fn test_modules(path: &str, text: &str) -> Vec<String> {
    let own = path.trim_end_matches(".rs");
    let dir = match own.rsplit_once('/') {
        Some((dir, "mod" | "lib" | "main")) => dir,
        _ => own,
    };
    text.split("#[cfg(test)]")
        .skip(1)
        .filter_map(|rest| {
            let declaration = rest.trim_start().lines().next()?.strip_suffix(';')?;
            let (_, name) = declaration.rsplit_once("mod ")?;
            Some(format!("{dir}/{name}"))
        })
        .collect()
}

/// All files below a directory of the package, relative to it, in order.
pub(crate) fn files(dir: &str) -> Vec<String> {
    let mut found = Vec::new();
    walk(&root().join(dir), &mut found);
    found.sort();
    found
}

fn walk(dir: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            let skipped = ["target", "node_modules", "__pycache__"];
            if !skipped.iter().any(|name| path.ends_with(name)) {
                walk(&path, found);
            }
        } else {
            found.push(path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/"));
        }
    }
}

/// `x/tests.rs` and `x/tests/y.rs` hold tests of `x` only.
fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/") || path.starts_with("tests/")
}

/// Replaces the inside of comments, strings and characters by blanks.
pub(crate) fn blank_literals(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < letters.len() {
        let end = literal_end(&letters, at);
        if end == at {
            out.push(letters[at]);
            at += 1;
        } else {
            out.extend(letters[at..end].iter().map(|letter| if *letter == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// The end of the comment, string or character that begins at `at`; `at` if none does.
fn literal_end(letters: &[char], at: usize) -> usize {
    let next = |offset: usize| letters.get(at + offset).copied().unwrap_or(' ');
    match letters[at] {
        '/' if next(1) == '/' => find_from(letters, at, |letter| letter == '\n').unwrap_or(letters.len()),
        '/' if next(1) == '*' => block_comment_end(letters, at),
        '"' => string_end(letters, at + 1),
        'r' if is_start(letters, at)
            && (next(1) == '"' || (next(1) == '#' && (next(2) == '"' || next(2) == '#'))) =>
        {
            raw_string_end(letters, at + 1)
        }
        'b' if is_start(letters, at) && next(1) == '"' => string_end(letters, at + 2),
        'b' if is_start(letters, at) && next(1) == 'r' && (next(2) == '"' || next(2) == '#') => {
            raw_string_end(letters, at + 2)
        }
        '\'' if next(1) == '\\' => {
            find_from(letters, at + 3, |letter| letter == '\'').map_or(letters.len(), |end| end + 1)
        }
        '\'' if next(2) == '\'' => at + 3,
        _ => at,
    }
}

fn is_start(letters: &[char], at: usize) -> bool {
    at == 0 || !(letters[at - 1].is_alphanumeric() || letters[at - 1] == '_')
}

fn find_from(letters: &[char], from: usize, is: impl Fn(char) -> bool) -> Option<usize> {
    (from..letters.len()).find(|at| is(letters[*at]))
}

fn block_comment_end(letters: &[char], from: usize) -> usize {
    let mut depth = 0;
    let mut at = from;
    while at < letters.len() {
        let pair = (letters[at], letters.get(at + 1).copied().unwrap_or(' '));
        match pair {
            ('/', '*') => {
                depth += 1;
                at += 2;
            }
            ('*', '/') => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    letters.len()
}

fn string_end(letters: &[char], from: usize) -> usize {
    let mut at = from;
    while at < letters.len() {
        match letters[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    letters.len()
}

/// `from` is at the first `#` or the quote.
fn raw_string_end(letters: &[char], from: usize) -> usize {
    let hashes = letters[from..].iter().take_while(|letter| **letter == '#').count();
    let mut at = from + hashes + 1;
    while at < letters.len() {
        let closes = letters[at] == '"'
            && letters[at + 1..].iter().take(hashes).filter(|letter| **letter == '#').count() == hashes;
        at += 1;
        if closes {
            return at + hashes;
        }
    }
    letters.len()
}

/// Blanks every item marked `#[cfg(test)]`, or `#[test]`.
fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    for mark in ["#[cfg(test)]", "#[test]"] {
        while let Some(start) = out.find(mark) {
            let end = item_end(&out, start + mark.len());
            let blank: String =
                out[start..end].chars().map(|letter| if letter == '\n' { '\n' } else { ' ' }).collect();
            out.replace_range(start..end, &blank);
        }
    }
    out
}

/// The end of the item that begins at `from`: its `;`, or the brace that closes its first one.
fn item_end(code: &str, from: usize) -> usize {
    let mut depth = 0_i32;
    for (at, letter) in code[from..].char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth <= 1 => return from + at + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return from + at + 1,
            _ => {}
        }
    }
    code.len()
}
