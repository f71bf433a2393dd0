//! `target_session_attrs`: whether a session is of the kind that is wanted.
//!
//! Owns libpq's rules. Servers since 14 report what is needed; older ones are asked. Must not send anything.

use crate::config::settings::TargetSessionAttrs;

/// What can be said about a session from what the server reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is of the kind wanted.
    Accepted,
    /// It is not.
    Refused,
    /// The server did not say: ask.
    Ask(Question),
}

/// What an older server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Whether transactions are read-only.
    ReadOnly,
    /// Whether it is in recovery.
    InRecovery,
}

impl Question {
    /// The query; one row, one column.
    pub(super) const fn sql(self) -> &'static str {
        match self {
            Self::ReadOnly => "SHOW transaction_read_only",
            Self::InRecovery => "SELECT pg_catalog.pg_is_in_recovery()",
        }
    }

    /// Whether the answer makes the session one of the kind wanted.
    pub(super) fn satisfied(self, wanted: TargetSessionAttrs, answer: &str) -> bool {
        let yes = match self {
            Self::ReadOnly => answer == "on",
            Self::InRecovery => answer == "t",
        };
        accepts(wanted, yes)
    }
}

/// The passes over the hosts: `prefer-standby` looks for a standby first, then takes anything.
pub(super) fn passes(wanted: TargetSessionAttrs) -> &'static [TargetSessionAttrs] {
    use TargetSessionAttrs as Attrs;
    match wanted {
        Attrs::Any => &[Attrs::Any],
        Attrs::ReadWrite => &[Attrs::ReadWrite],
        Attrs::ReadOnly => &[Attrs::ReadOnly],
        Attrs::Primary => &[Attrs::Primary],
        Attrs::Standby => &[Attrs::Standby],
        Attrs::PreferStandby => &[Attrs::Standby, Attrs::Any],
    }
}

/// Judges a session by the parameters that its server reported.
pub(super) fn judge(wanted: TargetSessionAttrs, reported: &[(Box<str>, Box<str>)]) -> Verdict {
    let value = |name: &str| {
        let last = reported.iter().rfind(|(key, _)| **key == *name);
        last.map(|(_, value)| &**value == "on")
    };
    let standby = value("in_hot_standby");
    let (known, question) = match wanted {
        TargetSessionAttrs::Any | TargetSessionAttrs::PreferStandby => return Verdict::Accepted,
        TargetSessionAttrs::Primary | TargetSessionAttrs::Standby => (standby, Question::InRecovery),
        TargetSessionAttrs::ReadWrite | TargetSessionAttrs::ReadOnly => {
            let read_only = value("default_transaction_read_only");
            (standby.zip(read_only).map(|(standby, read_only)| standby || read_only), Question::ReadOnly)
        }
    };
    match known {
        Some(yes) if accepts(wanted, yes) => Verdict::Accepted,
        Some(_) => Verdict::Refused,
        None => Verdict::Ask(question),
    }
}

/// `yes`: the session is read-only, or its server a standby, whichever `wanted` is about.
const fn accepts(wanted: TargetSessionAttrs, yes: bool) -> bool {
    match wanted {
        TargetSessionAttrs::Any | TargetSessionAttrs::PreferStandby => true,
        TargetSessionAttrs::ReadOnly | TargetSessionAttrs::Standby => yes,
        TargetSessionAttrs::ReadWrite | TargetSessionAttrs::Primary => !yes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(standby: &str, read_only: &str) -> Vec<(Box<str>, Box<str>)> {
        vec![
            ("in_hot_standby".into(), standby.into()),
            ("default_transaction_read_only".into(), read_only.into()),
        ]
    }

    #[test]
    fn sessions_are_judged_as_libpq_does() {
        use TargetSessionAttrs::{Any, Primary, ReadOnly, ReadWrite, Standby};
        use Verdict::{Accepted, Refused};
        // (in_hot_standby, default_transaction_read_only) -> any, read-write, read-only, primary, standby
        let table = [
            (("off", "off"), [Accepted, Accepted, Refused, Accepted, Refused]),
            (("off", "on"), [Accepted, Refused, Accepted, Accepted, Refused]),
            (("on", "off"), [Accepted, Refused, Accepted, Refused, Accepted]),
            (("on", "on"), [Accepted, Refused, Accepted, Refused, Accepted]),
        ];
        for ((standby, read_only), expected) in table {
            for (wanted, expected) in [Any, ReadWrite, ReadOnly, Primary, Standby].into_iter().zip(expected) {
                assert_eq!(
                    judge(wanted, &reported(standby, read_only)),
                    expected,
                    "{wanted:?} {standby} {read_only}"
                );
            }
        }
    }

    #[test]
    fn servers_that_do_not_report_are_asked() {
        use TargetSessionAttrs::{Any, Primary, ReadOnly, ReadWrite, Standby};
        assert_eq!(judge(Any, &[]), Verdict::Accepted);
        assert_eq!(judge(ReadWrite, &[]), Verdict::Ask(Question::ReadOnly));
        assert_eq!(judge(Standby, &[]), Verdict::Ask(Question::InRecovery));
        assert!(
            Question::ReadOnly.satisfied(ReadWrite, "off") && !Question::ReadOnly.satisfied(ReadWrite, "on")
        );
        assert!(
            Question::ReadOnly.satisfied(ReadOnly, "on") && !Question::ReadOnly.satisfied(ReadOnly, "off")
        );
        assert!(
            Question::InRecovery.satisfied(Primary, "f") && !Question::InRecovery.satisfied(Primary, "t")
        );
        assert!(
            Question::InRecovery.satisfied(Standby, "t") && !Question::InRecovery.satisfied(Standby, "f")
        );
    }
}
