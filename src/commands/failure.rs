//! How a command ends badly: a text for the operator and an exit code.
//!
//! Owns the exit codes: 0 good, 1 failed, 2 wrong usage (clap's), 78 bad configuration (`EX_CONFIG` of sysexits.h).

use std::fmt;

use crate::config::ConfigError;

/// A command that failed.
#[derive(Debug)]
pub struct Failure {
    text: String,
    code: u8,
}

impl Failure {
    /// Something failed while running: exit code 1.
    #[must_use]
    pub fn runtime(text: impl fmt::Display) -> Self {
        Self { text: format!("error: {text}"), code: 1 }
    }

    /// The arguments make no sense together: exit code 2.
    #[must_use]
    pub fn usage(text: impl fmt::Display) -> Self {
        Self { text: format!("error: {text}"), code: 2 }
    }

    /// The configuration cannot be used: exit code 78.
    #[must_use]
    pub fn config(text: impl fmt::Display) -> Self {
        Self { text: text.to_string(), code: 78 }
    }

    /// The process' exit code.
    #[must_use]
    pub const fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::config(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::runtime(error)
    }
}
