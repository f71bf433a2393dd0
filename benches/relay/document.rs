//! `docs/performance.md`: the text between its markers.
//!
//! Owns reading and writing the file. Must not know what a section says.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Sections by name, to be put between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`.
pub(crate) fn write(sections: &[(&str, String)]) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance.md");
    let mut text = fs::read_to_string(&path).context("reading docs/performance.md")?;
    for (name, section) in sections {
        text = replaced(&text, name, section)
            .with_context(|| format!("docs/performance.md lacks the markers of `{name}`"))?;
    }
    fs::write(&path, text).context("writing docs/performance.md")
}

fn replaced(text: &str, name: &str, section: &str) -> Option<String> {
    let (open, close) = (format!("<!-- bench:{name} -->\n"), format!("<!-- /bench:{name} -->"));
    let (before, rest) = text.split_once(&open)?;
    let (_, after) = rest.split_once(&close)?;
    Some(format!("{before}{open}{section}{close}{after}"))
}
