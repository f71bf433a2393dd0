//! Holds `src` to the layers that `src/lib.rs` promises: no import upward or sideways, no environment in the pure
//! layers, no panicking call where a client's bytes are handled.
//!
//! Works on the text of the files, without their test modules, comments and literals. It is a net with known holes
//! (macros, glob re-exports), not a compiler; the lints in Cargo.toml are the second one.
#![expect(clippy::unwrap_used, reason = "a test expects by failing")]

#[path = "source/mod.rs"]
#[expect(clippy::allow_attributes, reason = "which part is unused differs between the test binaries")]
#[allow(dead_code, reason = "each test binary uses its part")]
mod source;

use std::collections::BTreeMap;

use source::{Source, sources};

/// Layers without an environment: time, seeds and bytes are arguments there.
const PURE_LAYERS: std::ops::RangeInclusive<u32> = 0..=2;
/// The one file of a pure layer that may read files: it loads the configuration.
const MAY_READ_FILES: &str = "src/config/";
/// What a pure layer must not mention.
const ENVIRONMENT: [&str; 14] = [
    "tokio::",
    "std::net::Tcp",
    "std::net::Udp",
    "std::os::unix::net",
    "std::time::Instant",
    "Instant::now",
    "std::time::SystemTime",
    "SystemTime::now",
    "std::thread",
    "std::process",
    "std::env",
    "rand::",
    "std::fs",
    "getrandom",
];
/// Where bytes of strangers are handled, and a panic would take more than one session with it.
const DATA_PATH: [&str; 9] =
    ["wire", "auth", "track", "budget", "net", "pool", "session", "backend", "worker"];
/// Indexing that cannot fail, or whose failure is an invariant of ours: file, the text before the bracket, and why.
const ALLOWED_INDEXING: [(&str, &str, &str); 4] = [
    (
        "src/budget/",
        "table[",
        "keys of our own slab; a stale one is a bug of the scheduler that must not go on",
    ),
    ("src/budget/table.rs", "entries[", "the slab itself"),
    ("src/track/lexer/quiet.rs", "loud[", "a table of 256 built at compile time, by a byte"),
    ("src/track/lexer/tokens.rs", "belongs[", "a table of 256 built at compile time, by a byte"),
];
/// Front is on the path of logins.
const LOGIN_PATH: &str = "front";
/// Calls that panic.
const PANICS: [&str; 9] = [
    ".unwrap()",
    ".expect(",
    "panic!(",
    "unreachable!(",
    "todo!(",
    "unimplemented!(",
    ".unwrap_err()",
    ".expect_err(",
    "unwrap_unchecked",
];

/// The table in the documentation of `src/lib.rs`: module to layer.
fn layers() -> BTreeMap<String, u32> {
    let text = std::fs::read_to_string(source::root().join("src/lib.rs")).unwrap();
    let mut layers = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("//! | ")) {
        let Some((layer, modules)) = line.split_once(" | ") else { continue };
        let Ok(layer) = layer.trim().parse() else { continue };
        for module in modules.split('`').skip(1).step_by(2) {
            assert!(layers.insert(module.to_owned(), layer).is_none(), "`{module}` is in two layers");
        }
    }
    assert!(layers.len() > 10, "the table of layers in src/lib.rs was not understood: {layers:?}");
    layers
}

/// First segments of all `crate::` paths in a text, and of `use crate::{a, b::c}`.
fn crate_paths(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let boundary =
            code[..at].chars().next_back().is_none_or(|before| !before.is_alphanumeric() && before != '_');
        if !boundary {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => found.extend(first_segments(list)),
            None => found.extend(word(rest)),
        }
    }
    found
}

/// First segments of the items of a braced list, whose opening brace is already behind.
fn first_segments(list: &str) -> Vec<String> {
    let (mut depth, mut item, mut items) = (0, String::new(), Vec::new());
    for character in list.chars() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => items.push(std::mem::take(&mut item)),
            other => item.push(other),
        }
    }
    items.push(item);
    items.iter().filter_map(|item| word(item.trim())).collect()
}

fn word(text: &str) -> Option<String> {
    let word: String = text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
    (!word.is_empty()).then_some(word)
}

/// What is wrong with one file's imports.
fn import_errors(layers: &BTreeMap<String, u32>, file: &Source) -> Vec<String> {
    let Some(module) = file.module() else { return Vec::new() };
    let Some(own) = layers.get(&module) else {
        return vec![format!("{}: module `{module}` has no layer in the table of src/lib.rs", file.path)];
    };
    crate_paths(&file.code)
        .into_iter()
        .filter(|target| *target != module)
        .filter_map(|target| {
            let other = layers.get(&target)?;
            let wrong = if other > own {
                "upward"
            } else if other == own && *own > 0 {
                "sideways"
            } else {
                return None;
            };
            Some(format!("{}: `{module}` (layer {own}) uses `{target}` (layer {other}): {wrong}", file.path))
        })
        .collect()
}

/// What a pure file does with the world.
fn environment_errors(layers: &BTreeMap<String, u32>, file: &Source) -> Vec<String> {
    let pure = file
        .module()
        .and_then(|module| layers.get(&module).copied())
        .is_some_and(|layer| PURE_LAYERS.contains(&layer));
    if !pure {
        return Vec::new();
    }
    let mut errors: Vec<String> = ENVIRONMENT
        .iter()
        .filter(|word| !(file.path.starts_with(MAY_READ_FILES) && ["std::fs", "std::env"].contains(*word)))
        .flat_map(|word| file.find(word))
        // How many cores there are is a default of the configuration, read where the file is read.
        .filter(|error| !(file.path.starts_with(MAY_READ_FILES) && error.contains("available_parallelism")))
        .collect();
    for (number, line) in file.code.lines().enumerate() {
        let changing = ["Mutex", "RwLock", "Atomic", "Cell<", "OnceLock", "LazyLock"];
        let is_static = line.trim_start().starts_with("static ") || line.contains(" static ");
        if line.contains("static mut") || (is_static && changing.iter().any(|kind| line.contains(kind))) {
            errors.push(format!("{}:{}: a static that changes", file.path, number + 1));
        }
    }
    errors
}

/// Calls that panic, and indexing, in a file on the data path.
fn panic_errors(file: &Source) -> Vec<String> {
    let on_path =
        file.module().is_some_and(|module| DATA_PATH.contains(&module.as_str()) || module == LOGIN_PATH);
    if !on_path {
        return Vec::new();
    }
    let mut errors: Vec<String> = PANICS.iter().flat_map(|call| file.find(call)).collect();
    for (number, line) in file.code.lines().enumerate() {
        let allowed = |text: &str| {
            ALLOWED_INDEXING
                .iter()
                .any(|(path, before, _)| file.path.starts_with(path) && text.contains(before))
        };
        if indexes(line) && !allowed(line) {
            errors.push(format!("{}:{}: indexing: {}", file.path, number + 1, line.trim()));
        }
    }
    errors
}

/// Whether a line indexes or slices something: a `[` right behind a name, `)` or `]`.
fn indexes(line: &str) -> bool {
    let bytes = line.as_bytes();
    (1..bytes.len()).any(|at| {
        let behind = bytes[at - 1];
        bytes[at] == b'['
            && (behind.is_ascii_alphanumeric() || matches!(behind, b'_' | b')' | b']'))
            && !is_keyword_before(line, at)
    })
}

/// `in [`, `return [` and the like are written with a blank; `vec![` has its `!`: only lifetimes and keywords are left.
fn is_keyword_before(line: &str, at: usize) -> bool {
    let word: String =
        line[..at].chars().rev().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
    let word: String = word.chars().rev().collect();
    let before = line[..at - word.len()].chars().next_back();
    before == Some('\'') || ["mut", "dyn", "in", "as", "return"].contains(&word.as_str())
}

fn report(errors: &[String]) {
    assert!(errors.is_empty(), "{} violations:\n{}", errors.len(), errors.join("\n"));
}

#[test]
fn no_module_uses_a_higher_layer_or_a_sibling() {
    let layers = layers();
    report(&sources("src").iter().flat_map(|file| import_errors(&layers, file)).collect::<Vec<_>>());
}

#[test]
fn every_module_has_a_layer_and_every_layer_its_modules() {
    let layers = layers();
    let text = std::fs::read_to_string(source::root().join("src/lib.rs")).unwrap();
    let declared: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ").or(line.strip_prefix("mod ")))
        .map(|rest| rest.trim_end_matches(';'))
        .collect();
    for module in &declared {
        assert!(layers.contains_key(*module), "`{module}` has no layer");
    }
    for module in layers.keys() {
        assert!(declared.contains(&module.as_str()), "`{module}` is in the table but not in the crate");
    }
}

#[test]
fn the_pure_layers_have_no_environment() {
    let layers = layers();
    report(&sources("src").iter().flat_map(|file| environment_errors(&layers, file)).collect::<Vec<_>>());
}

#[test]
fn nothing_panics_where_bytes_of_strangers_are_handled() {
    report(&sources("src").iter().flat_map(panic_errors).collect::<Vec<_>>());
}

#[test]
fn the_checks_themselves_catch_what_they_are_for() {
    let layers = layers();
    let wrong = |path: &str, text: &str| {
        let file = Source::new(path, text);
        let errors =
            [import_errors(&layers, &file), environment_errors(&layers, &file), panic_errors(&file)].concat();
        errors.len()
    };
    assert_eq!(
        wrong("src/wire/a.rs", "use crate::ids::TenantId; use crate::error::{ClientError, SqlState};"),
        0
    );
    assert_eq!(wrong("src/wire/a.rs", "use crate::pool::Pool;"), 1);
    assert_eq!(wrong("src/wire/a.rs", "use crate::tenant::Tenant;"), 1);
    assert_eq!(wrong("src/wire/a.rs", "fn f() { crate::session::go() }"), 1);
    assert_eq!(wrong("src/pool/a.rs", "use crate::{ids::X, net::{Y, z::W}, worker, session::S};"), 2);
    assert_eq!(wrong("src/track/a.rs", "fn f() { tokio::spawn(x) }"), 1);
    assert_eq!(wrong("src/budget/a.rs", "static COUNT: AtomicU64 = AtomicU64::new(0);"), 1);
    assert_eq!(wrong("src/budget/a.rs", "fn f() -> std::time::Duration { std::time::Duration::ZERO }"), 0);
    assert_eq!(wrong("src/net/a.rs", "fn f(x: Option<u8>, y: &[u8]) { x.unwrap(); y[0]; &y[1..]; }"), 2);
    assert_eq!(
        wrong(
            "src/net/a.rs",
            "fn f() { x.unwrap_or(0); let y: [u8; 4] = [0; 4]; for z in [1] {} vec![1]; #[derive(A)] }"
        ),
        0
    );
    assert_eq!(wrong("src/net/a.rs", "fn f<'a>(x: &'a [u8], y: &mut [u8]) {} // x.unwrap() y[0]"), 0);
    assert_eq!(wrong("src/net/a.rs", "fn f() { g(\"x.unwrap() y[0]\", 'x'); }"), 0);
    assert_eq!(wrong("src/net/a.rs", "fn f() {}\n#[cfg(test)]\nmod tests { fn f() { x.unwrap() } }"), 0);
    assert_eq!(
        wrong("src/net/a.rs", "#[cfg(test)]\nfn only_in_tests() { x.unwrap() }\nfn f() { y.unwrap() }"),
        1
    );
}
