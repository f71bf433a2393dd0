//! What is wrong with a configuration: every problem with its place, and the error that carries them all.
//!
//! Owns the collecting and the rendering (file, line, caret). Must not know which checks there are.

use std::collections::HashSet;
use std::fmt;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};

use super::source::{Excerpt, Sources, Span, Text};

/// A configuration that cannot be used. `Display` shows every problem with its line and a caret.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigError {
    rendered: Vec<String>,
    titles: Vec<String>,
}

impl ConfigError {
    /// An error without a place in a file (the file itself cannot be read).
    pub(super) fn plain(title: String) -> Self {
        Self { rendered: vec![format!("error: {title}")], titles: vec![title] }
    }

    /// The first line of every problem, without its place.
    #[must_use]
    pub fn titles(&self) -> &[String] {
        &self.titles
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rendered.join("\n\n"))?;
        match self.rendered.len() {
            0 | 1 => Ok(()),
            errors => write!(f, "\n\nerror: {errors} errors in the configuration"),
        }
    }
}

impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for ConfigError {}

/// One thing that is wrong, or unwise.
#[derive(Debug)]
pub(super) struct Problem {
    title: String,
    marks: Vec<(Span, String)>,
    help: Option<String>,
}

impl Problem {
    /// A problem at a place; the label stands beside the caret.
    pub(super) fn at(span: Span, title: impl Into<String>, label: impl Into<String>) -> Self {
        Self { title: title.into(), marks: vec![(span, label.into())], help: None }
    }

    /// A problem that has no place.
    pub(super) fn nowhere(title: impl Into<String>) -> Self {
        Self { title: title.into(), marks: Vec::new(), help: None }
    }

    /// What tells it from others: the place, and what is said about it there.
    fn key(&self, (span, label): &(Span, String)) -> (Span, String) {
        (span.clone(), if label.is_empty() { self.title.clone() } else { label.clone() })
    }

    /// A further place that explains the first.
    pub(super) fn and_at(mut self, span: Span, label: impl Into<String>) -> Self {
        self.marks.push((span, label.into()));
        self
    }

    /// The same, its words without what is hidden in the lines that it is about: a parser says what it has found.
    fn without_secrets(mut self, sources: &Sources) -> Self {
        let mut secrets = Vec::new();
        for (span, _) in &self.marks {
            let Some((text, local)) = sources.find(span) else { continue };
            secrets.extend(text.excerpt(&text.first_line(local)).secrets);
        }
        secrets.retain(|secret| secret.len() >= SECRET_BYTES_MIN);
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        let hide = |words: &mut String| {
            for secret in &secrets {
                if words.contains(secret) {
                    *words = words.replace(secret, "***");
                }
            }
        };
        hide(&mut self.title);
        self.marks.iter_mut().for_each(|(_, label)| hide(label));
        self.help.iter_mut().for_each(hide);
        self
    }

    /// What to do about it.
    pub(super) fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }
}

/// All problems found so far. Checks go on after an error, so that one run shows everything.
#[derive(Debug, Default)]
pub(super) struct Problems {
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Problems {
    /// Adds an error: the configuration cannot be used.
    pub(super) fn error(&mut self, problem: Problem) {
        self.errors.push(problem);
    }

    /// Adds a warning: usable, but probably not meant.
    pub(super) fn warn(&mut self, problem: Problem) {
        self.warnings.push(problem);
    }

    /// Adds all of the others.
    pub(super) fn extend(&mut self, others: Self) {
        self.errors.extend(others.errors);
        self.warnings.extend(others.warnings);
    }

    /// Whether there is no error.
    pub(super) fn is_ok(&self) -> bool {
        self.errors.is_empty()
    }

    /// The rendered warnings if there is no error, otherwise the error that shows everything.
    pub(super) fn finish(mut self, sources: &Sources) -> Result<Vec<String>, ConfigError> {
        if self.errors.is_empty() {
            let warnings = self.warnings.into_iter().map(|problem| problem.without_secrets(sources));
            return Ok(warnings.map(|problem| render(&problem, Level::WARNING, sources)).collect());
        }
        // A limit of a tier that does not fit is one mistake, however many tenants it has.
        let mut seen = HashSet::new();
        self.errors.retain(|problem| problem.marks.first().is_none_or(|mark| seen.insert(problem.key(mark))));
        // In the order of the files, as a reader repairs them; what has no place comes last.
        self.errors.sort_by_key(|problem| problem.marks.first().map_or(usize::MAX, |(span, _)| span.start));
        let more = self.errors.len().saturating_sub(ERRORS_SHOWN);
        let shown = self.errors.into_iter().take(ERRORS_SHOWN);
        let shown: Vec<Problem> = shown.map(|problem| problem.without_secrets(sources)).collect();
        let mut rendered: Vec<_> =
            shown.iter().map(|problem| render(problem, Level::ERROR, sources)).collect();
        if more > 0 {
            rendered.push(format!("error: and {more} more"));
        }
        Err(ConfigError { rendered, titles: shown.into_iter().map(|problem| problem.title).collect() })
    }
}

/// One problem as text: title, the lines with carets, help.
fn render(problem: &Problem, level: Level<'_>, sources: &Sources) -> String {
    let mut group = Group::with_title(level.primary_title(problem.title.as_str()));
    for snippet in snippets(problem, sources) {
        group = group.element(snippet);
    }
    if let Some(help) = &problem.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    Renderer::plain().render(&[group])
}

/// A place in a text, and what is said of it.
type Place<'a> = (AnnotationKind, Span, &'a str);

/// One snippet for each text that the problem's places are in, the first place first.
fn snippets<'a>(problem: &'a Problem, sources: &'a Sources) -> Vec<Snippet<'a, Annotation<'a>>> {
    let mut places: Vec<(&Text, Vec<Place<'a>>)> = Vec::new();
    for (index, (span, label)) in problem.marks.iter().enumerate() {
        let Some((text, local)) = sources.find(span) else { continue };
        let kind = if index == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
        let place = (kind, text.first_line(local), label.as_str());
        match places.iter_mut().find(|(known, _)| std::ptr::eq(*known, text)) {
            Some((_, places)) => places.push(place),
            None => places.push((text, vec![place])),
        }
    }
    places.into_iter().map(|(text, places)| snippet(text, places)).collect()
}

/// The lines from the first place to the last.
fn snippet<'a>(text: &'a Text, places: Vec<Place<'a>>) -> Snippet<'a, Annotation<'a>> {
    let from = places.iter().map(|(_, span, _)| span.start).min().unwrap_or_default();
    let to = places.iter().map(|(_, span, _)| span.end).max().unwrap_or_default();
    let Excerpt { shown, start, line, .. } = text.excerpt(&(from..to));
    let annotations = places.into_iter().map(|(kind, span, label)| {
        kind.span(span.start.saturating_sub(start)..span.end.saturating_sub(start)).label(label)
    });
    Snippet::source(shown).line_start(line).path(text.name.as_str()).annotations(annotations)
}

/// What is shorter is no secret, and part of many words.
const SECRET_BYTES_MIN: usize = 4;
/// After so many errors the rest is only counted.
const ERRORS_SHOWN: usize = 20;
