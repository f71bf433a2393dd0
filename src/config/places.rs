//! Where a configuration names certificates and keys, so that whoever loads them can show the line at fault.
//!
//! Owns the places. Must not know what makes a certificate good: the configuration's layer does no TLS.

use std::path::{Path, PathBuf};

use toml::Spanned;

use super::error::{ConfigError, Problem, Problems};
use super::model::Model;
use super::source::{Sources, Span};

/// The places in the texts of one configuration.
#[derive(Clone, Debug)]
pub struct Places {
    sources: Sources,
    /// `listen.tls` as a whole.
    listen_tls: Option<Span>,
    /// The files that `listen.tls` names.
    files: Vec<(PathBuf, Span)>,
    /// `cluster.NAME.url`
    urls: Vec<(String, Span)>,
}

/// What it is that cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file that `listen.tls` names, or the section.
    ListenTls(Option<PathBuf>),
    /// What the URL of this cluster names.
    Cluster(String),
}

impl Places {
    /// The places of a model whose spans lie in these texts; `path` makes a relative path whole.
    pub(super) fn new(model: &Model, path: impl Fn(&Path) -> PathBuf, sources: Sources) -> Self {
        let tls = model.listen.tls.as_ref();
        let named = tls.map(Spanned::get_ref).map(|tls| [&tls.cert, &tls.key, &tls.client_ca]);
        let files = named.into_iter().flatten().flatten();
        let urls = model.clusters.iter().filter_map(|(name, section)| {
            section.value.url.as_ref().map(|url| (name.get_ref().clone(), url.span()))
        });
        Self {
            listen_tls: tls.map(Spanned::span),
            files: files.map(|file| (path(file.get_ref()), file.span())).collect(),
            urls: urls.collect(),
            sources,
        }
    }

    /// The error that shows what is wrong, and where it was written.
    #[must_use]
    pub fn error(&self, wrong: Vec<(Place, String)>) -> ConfigError {
        let mut problems = Problems::default();
        let mut titles = Vec::new();
        for (place, title) in wrong {
            titles.push(title.clone());
            problems.error(match self.span(&place) {
                Some(span) => Problem::at(span, title, ""),
                None => Problem::nowhere(title),
            });
        }
        match problems.finish(&self.sources) {
            Err(error) => error,
            Ok(_) => ConfigError::plain(titles.join("; ")),
        }
    }

    fn span(&self, place: &Place) -> Option<Span> {
        match place {
            Place::ListenTls(file) => {
                let found = self.files.iter().find(|(known, _)| Some(known) == file.as_ref());
                found.map(|(_, span)| span.clone()).or_else(|| self.listen_tls.clone())
            }
            Place::Cluster(name) => {
                self.urls.iter().find(|(known, _)| known == name).map(|(_, span)| span.clone())
            }
        }
    }
}
