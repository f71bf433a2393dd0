//! Secrets: written out, in a file, in an environment variable, or a systemd credential.
//!
//! Owns the four forms and their resolution. Must not print a secret, nor read files itself: the loader passes a
//! reader in.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use toml::Spanned;

use super::error::{Problem, Problems};
use super::source::Span;
use crate::tenant::Secret;

/// Where a secret comes from.
#[derive(Clone)]
pub(super) enum SecretText {
    /// Written in the file itself.
    Literal(Secret),
    /// The content of a file, without the line end.
    File(PathBuf),
    /// The value of an environment variable.
    Env(String),
    /// A file of that name in `$CREDENTIALS_DIRECTORY` (systemd's `LoadCredential=`).
    Credential(String),
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

/// Reads a text, or a table with one key.
struct SecretVisitor;

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = SecretText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, { file = \"...\" }, { env = \"...\" } or { credential = \"...\" }")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<SecretText, E> {
        Ok(SecretText::Literal(Secret::new(text.to_owned())))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SecretText, A::Error> {
        let Some((key, value)) = map.next_entry::<String, String>()? else {
            return Err(de::Error::invalid_length(0, &self));
        };
        let secret = match key.as_str() {
            "file" => SecretText::File(value.into()),
            "env" => SecretText::Env(value),
            "credential" => SecretText::Credential(value),
            _ => return Err(de::Error::unknown_field(&key, &["file", "env", "credential"])),
        };
        match map.next_key::<String>()? {
            None => Ok(secret),
            Some(_) => Err(de::Error::invalid_length(2, &self)),
        }
    }
}

/// The outside world as far as a configuration may see it.
pub(super) struct World<'a> {
    /// Value of an environment variable.
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    /// Names of the environment variables that are set, as far as the caller knows them.
    pub(super) variables: &'a [String],
    /// Content of a file.
    pub(super) read: &'a dyn Fn(&Path) -> std::io::Result<String>,
    /// Directory of the configuration file; relative paths start here.
    pub(super) base: &'a Path,
}

impl World<'_> {
    /// The path, relative ones taken from the directory of the configuration file.
    pub(super) fn path(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }

    /// The secret itself; a problem is reported if it cannot be had.
    pub(super) fn secret(&self, text: &Spanned<SecretText>, problems: &mut Problems) -> Option<Secret> {
        let found = match text.get_ref() {
            SecretText::Literal(secret) => Ok(secret.clone()),
            SecretText::File(path) => self.secret_file(&self.path(path)),
            SecretText::Env(name) => (self.env)(name)
                .map(Secret::new)
                .ok_or_else(|| format!("the environment variable `{name}` is not set (or is not UTF-8)")),
            SecretText::Credential(name) => self.credential(name),
        };
        found.and_then(usable).map_err(|title| problems.error(secret_problem(text.span(), title))).ok()
    }

    /// A file's content without its line end.
    fn secret_file(&self, path: &Path) -> Result<Secret, String> {
        let mut content = (self.read)(path)
            .map_err(|error| format!("cannot read the secret in `{}`: {error}", path.display()))?;
        content.truncate(content.trim_end_matches(['\n', '\r']).len());
        Ok(Secret::new(content))
    }

    /// A systemd credential.
    fn credential(&self, name: &str) -> Result<Secret, String> {
        let directory = (self.env)("CREDENTIALS_DIRECTORY")
            .ok_or("`credential` needs systemd's LoadCredential=: CREDENTIALS_DIRECTORY is not set")?;
        if name.contains('/') || name.starts_with('.') || name.is_empty() {
            return Err(format!("`{name}` is not the name of a credential"));
        }
        self.secret_file(&Path::new(&directory).join(name))
    }
}

/// Refuses what no Postgres takes as a password.
fn usable(secret: Secret) -> Result<Secret, String> {
    match secret.expose() {
        "" => Err("the secret is empty".to_owned()),
        text if text.contains('\0') => Err("the secret holds a zero byte".to_owned()),
        _ => Ok(secret),
    }
}

/// The problem of a secret that cannot be had.
fn secret_problem(span: Span, title: String) -> Problem {
    Problem::at(span, title, "this secret")
}
