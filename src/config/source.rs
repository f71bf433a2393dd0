//! Texts of the configuration and the span that leads back into them.
//!
//! Owns every text that was read (main file, tenant files, environment variables) under one numbering of bytes, so
//! that a span alone tells file and line. Must not know what the texts mean.

use std::ops::Range;

/// Byte range in the common numbering of all texts.
pub(super) type Span = Range<usize>;

/// All texts read so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources {
    texts: Vec<Text>,
    next: usize,
}

/// One text.
#[derive(Clone)]
pub(super) struct Text {
    /// File name, or a name for what is not a file.
    pub(super) name: String,
    /// With its secrets: nobody is shown this.
    content: String,
    base: usize,
}

/// Some lines of a text, to be shown: their secrets are masked (same number of bytes).
pub(super) struct Excerpt {
    pub(super) shown: String,
    /// The place of its first byte in the text, and the number of its first line.
    pub(super) start: usize,
    pub(super) line: usize,
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Text").field("name", &self.name).field("base", &self.base).finish_non_exhaustive()
    }
}

impl Text {
    /// A span of several lines (a whole table), cut to its first line.
    pub(super) fn first_line(&self, span: Span) -> Span {
        let inside = self.content.get(span.clone()).unwrap_or_default();
        let len = inside.find('\n').unwrap_or(inside.len());
        span.start..span.start.saturating_add(inside.get(..len).unwrap_or_default().trim_end().len())
    }

    /// The lines that a span is in. Only what is shown is masked: texts have many megabytes.
    pub(super) fn excerpt(&self, span: &Span) -> Excerpt {
        let before = self.content.get(..span.start).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |at| at.saturating_add(1));
        let rest = self.content.get(span.end..).unwrap_or_default();
        let end = rest.find('\n').map_or(self.content.len(), |at| span.end.saturating_add(at));
        Excerpt {
            shown: masked(self.content.get(start..end).unwrap_or_default()),
            start,
            line: before.matches('\n').count().saturating_add(1),
        }
    }
}

impl Sources {
    /// Adds a text and returns the number of its first byte.
    pub(super) fn add(&mut self, name: impl Into<String>, text: &str) -> usize {
        let base = self.next;
        // One byte between texts, so that a span at the very end of one is not the start of the next.
        self.next = self.next.saturating_add(text.len()).saturating_add(1);
        self.texts.push(Text { name: name.into(), content: text.to_owned(), base });
        base
    }

    /// The text that holds this span, and the span inside of it (cut to character boundaries).
    pub(super) fn find(&self, span: &Span) -> Option<(&Text, Span)> {
        let index = self.texts.partition_point(|text| text.base <= span.start).checked_sub(1)?;
        let text = self.texts.get(index)?;
        let start = floor(&text.content, span.start.saturating_sub(text.base));
        let end = ceil(&text.content, span.end.saturating_sub(text.base)).max(start);
        Some((text, start..end))
    }
}

/// The nearest character boundary at or below.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// The nearest character boundary at or above.
fn ceil(text: &str, at: usize) -> usize {
    (at..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len())
}

/// The text with every literal secret replaced by as many asterisks: an error shows lines of the file, and its
/// output ends in terminals and logs.
fn masked(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        mask_line(line, &mut out);
    }
    out
}

/// A key that begins like this has a secret value, also when it is misspelled.
const SECRET_KEYS: [&str; 3] = ["passw", "scram", "secret"];

/// Appends the line with secrets masked.
fn mask_line(line: &str, out: &mut String) {
    let mut rest = line;
    while let Some((start, end)) = next_secret(rest) {
        out.push_str(rest.get(..start).unwrap_or_default());
        out.extend(std::iter::repeat_n('*', end.saturating_sub(start)));
        rest = rest.get(end..).unwrap_or_default();
    }
    out.push_str(rest);
}

/// Byte range of the first secret in a line: the string after `password =` or `scram =`, or the password in a URL.
fn next_secret(line: &str) -> Option<(usize, usize)> {
    let keyed = SECRET_KEYS.iter().filter_map(|key| keyed_secret(line, key)).min();
    keyed.into_iter().chain(url_password(line)).min()
}

/// The string that follows `key =`, without its quotes. Unterminated strings are secret up to the end of the line.
fn keyed_secret(line: &str, key: &str) -> Option<(usize, usize)> {
    let mut from = 0_usize;
    loop {
        let at = from.checked_add(line.get(from..)?.find(key)?)?;
        from = at.checked_add(key.len())?;
        let after =
            line.get(from..)?.trim_start_matches(|c: char| c.is_alphanumeric() || "_-\"' \t".contains(c));
        let Some(value) = after.strip_prefix('=') else { continue };
        let value = value.trim_start();
        let Some(quote) = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| value.starts_with(quote))
        else {
            continue;
        };
        let start = line.len().checked_sub(value.len())?.checked_add(quote.len())?;
        let end = line
            .get(start..)?
            .find(quote)
            .map_or_else(|| line.trim_end().len(), |len| start.saturating_add(len));
        if end > start {
            return Some((start, end));
        }
    }
}

/// The password in `scheme://user:password@host`.
fn url_password(line: &str) -> Option<(usize, usize)> {
    let authority = line.find("://")?.checked_add(3)?;
    let rest = line.get(authority..)?;
    let rest = rest.get(..rest.find(['/', '?', '"', '\'']).unwrap_or(rest.len()))?;
    let colon = rest.find(':')?;
    let at = rest.rfind('@').filter(|at| *at > colon.saturating_add(1))?;
    Some((authority.checked_add(colon)?.checked_add(1)?, authority.checked_add(at)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_leads_back_to_its_own_text() {
        let mut sources = Sources::default();
        let first = sources.add("a.toml", "one\ntwo\n");
        let second = sources.add("b.toml", "drei\nvi\u{e9}r");
        let find =
            |span: Span| sources.find(&span).map(|(text, span)| (text.name.as_str(), &text.content[span]));
        assert_eq!(find(first + 4..first + 7), Some(("a.toml", "two")));
        assert_eq!(find(second..second + 1), Some(("b.toml", "d")));
        assert_eq!(find(second + 5..second + 8), Some(("b.toml", "vi\u{e9}")), "cut at characters");
        assert_eq!(find(second + 500..second + 900), Some(("b.toml", "")));
    }

    #[test]
    fn whole_lines_are_shown_without_their_secrets() {
        let mut sources = Sources::default();
        let base = sources.add("a.toml", "one = 1\npassword = 'x', two = 2\nthree = 3");
        let at = |text: &str| base + "one = 1\npassword = 'x', two = 2\nthree = 3".find(text).unwrap();
        let shown = |from: usize, to: usize| {
            let (text, span) = sources.find(&(from..to)).unwrap();
            let Excerpt { shown, start, line } = text.excerpt(&span);
            (shown, start, line)
        };
        assert_eq!(shown(at("two"), at("two") + 3), ("password = '*', two = 2".into(), 8, 2));
        assert_eq!(shown(at("'x'"), at("three")), ("password = '*', two = 2\nthree = 3".into(), 8, 2));
        assert_eq!(shown(base, base), ("one = 1".into(), 0, 1));
        assert_eq!(shown(base + 500, base + 500), ("three = 3".into(), 32, 3));
        let said = format!("{sources:?}");
        assert!(said.contains("a.toml") && !said.contains("'x'"), "{said}");
    }

    #[test]
    fn literal_secrets_are_masked_in_place() {
        for (line, shown) in [
            (
                r#"server_auth = { password = "hunter2" } # x"#,
                r#"server_auth = { password = "*******" } # x"#,
            ),
            ("passwort = 'x'", "passwort = '*'"),
            ("password='a b'\n", "password='***'\n"),
            ("password = \"\"\"one\n", "password = \"\"\"***\n"),
            (r#"password = "cut off"#, r#"password = "*******"#),
            (r#"password = { env = "NAME" }"#, r#"password = { env = "NAME" }"#),
            (r#"url = "postgres://me:pw@h:1/db""#, r#"url = "postgres://me:**@h:1/db""#),
            (r#"a.password = "x", b.password = "yy""#, r#"a.password = "*", b.password = "**""#),
        ] {
            assert_eq!(masked(line), shown);
            assert_eq!(masked(line).len(), line.len());
        }
    }
}
