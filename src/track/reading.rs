//! Under which settings a text is read when it is prepared, and how it is read in the same way on another server.
//!
//! Postgres computes constants (`date '01/02/2024'`) when it analyses a text, once: SET DateStyle does not change a
//! statement that is prepared. So a server that lacks the statement is given the settings of that time for as long as it
//! prepares it. Only with another search_path Postgres analyses it anew by itself, under whatever settings hold then.
//!
//! Owns those settings ([`put_context`]), the queries that give and take them, and which texts can be read at all
//! ([`Read`]). Must not know clients, or what a server has prepared.

use std::borrow::Cow;
use std::rc::Rc;

use super::expect::Expect;
use super::lexer::{self, Effect, StateKind};
use super::params::{Settings, literal};
use super::prepared::ServerStatements;
use crate::wire::frame;

/// Settings that decide what a text means when Postgres reads it; those that it reports come first.
pub(super) const DECIDING: [&str; 11] = [
    "client_encoding",
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "standard_conforming_strings",
    "array_nulls",
    "backslash_quote",
    "lc_monetary",
    "timezone_abbreviations",
    "transform_null_equals",
    "xmloption",
];

/// Those of them that decide where its words begin and end; both are reported.
pub(super) const ENCODING: [&str; 2] = ["client_encoding", "standard_conforming_strings"];

/// How many of them it reports.
const REPORTED: usize = 5;

const PATH: &str = "search_path";

/// Appends the settings that a text is prepared under: those that decide what it means, the search_path, and all that the
/// client has changed without a report, because nobody knows what its functions make of them.
pub(super) fn put_context(settings: &Settings, out: &mut Vec<u8>) {
    for name in DECIDING.into_iter().take(REPORTED).chain([PATH]) {
        out.extend_from_slice(settings.params.value(name).unwrap_or_default().as_bytes());
        out.push(0);
    }
    for (name, value) in settings.extras.iter() {
        for text in [name, value] {
            out.extend_from_slice(text.as_bytes());
            out.push(0);
        }
    }
}

/// Whether both have the same search_path.
pub(super) fn have_same_path(one: &Settings, other: &Settings) -> bool {
    one.is_identical(other) || value(one, PATH) == value(other, PATH)
}

/// The settings of an analysis of what was read as words under those of `then`: not those that words are read under.
pub(super) fn of_a_later_analysis(then: &Settings, now: &Settings) -> Settings {
    let mut settings = now.clone();
    for name in ENCODING {
        match then.params.value(name) {
            Some(value) if now.params.value(name) != Some(value) => {
                Rc::make_mut(&mut settings.params).set(name, value);
            }
            _ => {}
        }
    }
    settings
}

/// The value of a setting that is known.
fn value<'a>(settings: &'a Settings, name: &str) -> Option<&'a str> {
    let silent = settings.extras.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    silent.map(|(_, value)| &**value).or_else(|| settings.params.value(name))
}

/// A text as Postgres reads it.
#[derive(Clone, Debug)]
pub(super) struct Read<'t>(Option<Cow<'t, [u8]>>);

impl<'t> Read<'t> {
    /// Under these settings.
    pub(super) fn under(settings: &Settings, text: &'t [u8]) -> Self {
        let value = |name| settings.params.value(name);
        if !text.is_ascii() && value("client_encoding").is_some_and(|encoding| MIXED.contains(&encoding)) {
            return Self(None);
        }
        let is_standard = || value("standard_conforming_strings") == Some("on");
        let may_depend = memchr::memchr(b'\\', text).is_some() && is_standard();
        let other = if may_depend { lexer::in_one_way(text) } else { None };
        Self(Some(other.map_or(Cow::Borrowed(text), Cow::Owned)))
    }

    /// One that may be prepared again under other settings, if it is not among those that are then read as at first.
    pub(super) fn kept(settings: &Settings, text: &'t [u8]) -> Self {
        match Self::under(settings, text) {
            Self(Some(_)) if !lexer::is_analysed(text) => Self(Some(Cow::Borrowed(text))),
            read => read,
        }
    }

    /// One that reads in the same way whatever the settings.
    pub(super) const fn as_written(text: &'t [u8]) -> Self {
        Self(Some(Cow::Borrowed(text)))
    }

    /// Under settings of which nobody knows.
    pub(super) fn in_doubt(text: &'t [u8]) -> Self {
        Self(text.is_ascii().then_some(Cow::Borrowed(text)))
    }

    /// The text, in a notation that can be read in one way only where there is one; `None` if nobody can read it.
    pub(super) fn text(&self) -> Option<&[u8]> {
        self.0.as_deref()
    }

    pub(super) fn is_plain(&self) -> bool {
        self.text().is_some_and(lexer::is_plain)
    }

    pub(super) fn effect(&self) -> Effect {
        self.text().map_or(Effect::SessionState(StateKind::Unknown), lexer::classify)
    }
}

/// Encodings in which the second byte of a letter may be that of a backslash, or of an ASCII letter. No database has them,
/// so what Postgres keeps can always be read.
const MIXED: [&str; 7] = ["SJIS", "SHIFT_JIS_2004", "BIG5", "GBK", "UHC", "GB18030", "JOHAB"];

/// What a server is told before and after it prepares a text, so that it reads it as it was read first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// Gives it the settings of then, for the transaction, and keeps those of now.
    give: String,
    /// Gives those of now back.
    take: String,
}

/// How the text of a Parse body (as in `put_parse`) that was read under the settings `then` is read in the same way;
/// `None` if it is anyway. `now` is what holds, `None` if that is about to change.
pub(super) fn reading(text: &[u8], then: &Settings, now: Option<&Settings>) -> Option<Reading> {
    let differ: Vec<&str> = DECIDING
        .into_iter()
        .filter(|name| now.is_none_or(|now| value(then, name) != value(now, name)))
        .collect();
    let says_null = || text.windows(4).any(|word| word.eq_ignore_ascii_case(b"null"));
    let is_in_words = differ.contains(&"transform_null_equals") && says_null()
        || differ.contains(&"client_encoding") && !text.is_ascii();
    if differ.is_empty() || !lexer::is_analysed(text) || !(is_in_words || lexer::may_have_constants(text)) {
        return None;
    }
    let (mut give, mut take) = (Vec::new(), Vec::new());
    for (i, name) in differ.into_iter().enumerate() {
        // A setting that the client had not changed then has its default.
        let wanted = value(then, name).map_or_else(|| "NULL".to_owned(), literal);
        give.push(format!(
            "{SET}'tenantry.s{i}',pg_catalog.current_setting('{name}'),true),{SET}'{name}',{wanted},true)"
        ));
        take.push(format!("{SET}'{name}',pg_catalog.current_setting('tenantry.s{i}'),true)"));
    }
    let query = |calls: &[String]| format!("SELECT {}", calls.join(","));
    Some(Reading { give: query(&give), take: query(&take) })
}

const SET: &str = "pg_catalog.set_config(";

impl Reading {
    /// Appends what goes before the Parse.
    pub(super) fn put_give(&self, server: &ServerStatements, out: &mut Vec<u8>) {
        put_run(&self.give, server, out);
    }

    /// Appends what goes behind the Parse.
    pub(super) fn put_take(&self, server: &ServerStatements, out: &mut Vec<u8>) {
        put_run(&self.take, server, out);
    }
}

/// The answers to a query that [`put_run`] runs, in order.
pub(super) const RUN_ANSWERS: [Expect; 6] = [
    Expect::OwnClose { serial: 0 },
    Expect::OwnParse { id: u64::MAX, serial: 0 },
    Expect::OwnBind,
    Expect::OwnExecute,
    Expect::OwnClose { serial: 0 },
    Expect::OwnClose { serial: 0 },
];

/// Appends a query of the proxy's own by the extended protocol, which may stand between messages of the client's.
pub(super) fn put_run(sql: &str, server: &ServerStatements, out: &mut Vec<u8>) {
    // The number that no statement has.
    let put_name = |out: &mut Vec<u8>| {
        server.put_name(out, 0);
        out.push(0);
    };
    let close = |out: &mut Vec<u8>, kind: u8| {
        frame::put(out, b'C', |out| {
            out.push(kind);
            put_name(out);
        });
    };
    // One may be there, of a transaction that has failed in between.
    close(out, b'S');
    frame::put(out, b'P', |out| {
        put_name(out);
        out.extend_from_slice(sql.as_bytes());
        out.extend_from_slice(&[0; 3]);
    });
    frame::put(out, b'B', |out| {
        for _ in ["portal", "statement"] {
            put_name(out);
        }
        out.extend_from_slice(&[0; 6]);
    });
    frame::put(out, b'E', |out| {
        put_name(out);
        out.extend_from_slice(&[0; 4]);
    });
    close(out, b'P');
    close(out, b'S');
}

#[cfg(test)]
mod tests {
    use super::super::params::Params;
    use super::*;

    fn settings(style: &str, silent: &[(&str, &str)]) -> Settings {
        let own = |pairs: &[(&str, &str)]| pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
        let reported = own(&[("DateStyle", style), ("TimeZone", "UTC"), ("search_path", "b")]);
        Settings { params: Rc::new(Params::new(reported)), extras: Rc::new(own(silent)) }
    }

    fn dmy() -> Settings {
        settings("ISO, DMY", &[])
    }

    fn mdy() -> Settings {
        settings("ISO, MDY", &[])
    }

    const DATE: &[u8] = b"SELECT date '01/02/2024'";

    #[test]
    fn a_server_gets_the_settings_of_then_and_those_of_now_back() {
        let read = reading(DATE, &dmy(), Some(&mdy())).unwrap();
        assert_eq!(
            read.give,
            "SELECT pg_catalog.set_config('tenantry.s0',pg_catalog.current_setting('DateStyle'),true),\
             pg_catalog.set_config('DateStyle',E'ISO, DMY',true)"
        );
        assert_eq!(
            read.take,
            "SELECT pg_catalog.set_config('DateStyle',pg_catalog.current_setting('tenantry.s0'),true)"
        );
    }

    #[test]
    fn what_was_not_changed_then_has_its_default() {
        let now = settings("ISO, DMY", &[("my.x", "1"), ("transform_null_equals", "on")]);
        let read = reading(b"SELECT 1 WHERE 1 = NULL", &dmy(), Some(&now)).unwrap();
        assert!(read.give.ends_with("set_config('transform_null_equals',NULL,true)"), "{}", read.give);
    }

    #[test]
    fn texts_that_mean_the_same_are_just_prepared() {
        let (then, now) = (dmy(), mdy());
        for text in
            ["SELECT $1, 1 FROM t WHERE a = b", "SET x = '01/02/2024'", "BEGIN", "COMMIT PREPARED 'x'"]
        {
            assert_eq!(reading(text.as_bytes(), &then, Some(&now)), None, "{text}");
        }
        assert_eq!(reading(DATE, &then, Some(&settings("ISO, DMY", &[("my.x", "1")]))), None);
        assert!(reading(DATE, &then, None).is_some(), "nobody knows what holds");
    }

    #[test]
    fn the_path_is_found_wherever_it_is_known_from() {
        let silent = settings("ISO, DMY", &[("search_path", "a")]);
        assert!(have_same_path(&silent, &settings("ISO, MDY", &[("search_path", "a")])));
        assert!(!have_same_path(&dmy(), &silent) && have_same_path(&dmy(), &mdy()));
    }
}
