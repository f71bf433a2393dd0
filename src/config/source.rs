//! Texts of the configuration and the span that leads back into them.
//!
//! Owns every text that was read (main file, tenant files, environment variables) under one numbering of bytes, so
//! that a span alone tells file and line. Must not know what the texts mean.

use std::ops::Range;

use super::mask::masked;

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
    /// What is hidden in them.
    pub(super) secrets: Vec<String>,
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
        let (shown, secrets) = masked(self.content.get(start..end).unwrap_or_default());
        Excerpt { shown, secrets, start, line: before.matches('\n').count().saturating_add(1) }
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
            let Excerpt { shown, start, line, .. } = text.excerpt(&span);
            (shown, start, line)
        };
        assert_eq!(shown(at("two"), at("two") + 3), ("password = '*', two = *".into(), 8, 2));
        assert_eq!(shown(at("'x'"), at("three")), ("password = '*', two = *\nthree = 3".into(), 8, 2));
        assert_eq!(shown(base, base), ("one = 1".into(), 0, 1));
        assert_eq!(shown(base + 500, base + 500), ("three = 3".into(), 32, 3));
        let said = format!("{sources:?}");
        assert!(said.contains("a.toml") && !said.contains("'x'"), "{said}");
    }
}
