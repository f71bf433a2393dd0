//! The table of everything a session may do.
//!
//! Owns how often it is done, by whom, and which promise of the proxy it needs. Must not know how it is said.

use crate::author::Author;
use crate::promises::Promises;
use crate::script::Talk;
use crate::{calls, copies, extended, pins, settings, simple};

/// Which sessions may do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Everybody,
    /// Those that may keep a server to themselves.
    Pinners,
}

/// One thing that a session may do.
pub(crate) struct Feature {
    pub(crate) name: &'static str,
    pub(crate) write: fn(&mut Author) -> Talk,
    /// How often, beside the others.
    pub(crate) weight: usize,
    pub(crate) is_promised: fn(&Promises) -> bool,
    pub(crate) who: Who,
    /// Goes back to what was asked for at startup.
    pub(crate) resets: bool,
    /// The next step may be sent without waiting for the answers.
    pub(crate) may_join: bool,
    /// It changes prepared statements.
    pub(crate) prepares: bool,
}

const fn feature(weight: usize, name: &'static str, write: fn(&mut Author) -> Talk) -> Feature {
    Feature {
        name,
        write,
        weight,
        is_promised: |_| true,
        who: Who::Everybody,
        resets: false,
        may_join: true,
        prepares: false,
    }
}

impl Feature {
    /// Done only if that is promised.
    const fn needs(self, is_promised: fn(&Promises) -> bool) -> Self {
        Self { is_promised, ..self }
    }

    /// Keeps a server.
    const fn pins(self) -> Self {
        Self { who: Who::Pinners, ..self }
    }

    const fn resets(self) -> Self {
        Self { resets: true, ..self }
    }

    /// It changes prepared statements.
    const fn prepares(self) -> Self {
        Self { prepares: true, ..self }
    }

    /// Its answers are awaited.
    const fn alone(self) -> Self {
        Self { may_join: false, ..self }
    }
}

pub(crate) const FEATURES: [Feature; 53] = [
    feature(20, "query", simple::query),
    feature(6, "failing query", simple::failing_query),
    feature(10, "write", simple::write),
    feature(16, "begin", simple::begin),
    feature(14, "end", simple::end),
    feature(8, "savepoint", simple::savepoint),
    feature(8, "several statements", simple::several),
    feature(2, "empty query", simple::empty),
    feature(3, "large rows", simple::large).alone(),
    feature(4, "notices", simple::notices),
    feature(2, "code block", simple::block),
    feature(2, "tables", simple::tables),
    feature(4, "look around", settings::look),
    feature(8, "set reported", settings::set_reported),
    feature(4, "set local", settings::set_local),
    feature(4, "show", settings::show),
    feature(3, "set in a transaction", settings::set_in_transaction),
    feature(2, "reset reported", settings::reset_reported).resets(),
    feature(2, "search path", settings::search_path).needs(|promises| promises.search_path_follows),
    feature(6, "set unreported", settings::set_unreported)
        .needs(|promises| promises.unreported_settings_follow),
    feature(2, "reset unreported", settings::reset_unreported)
        .needs(|promises| promises.unreported_settings_follow)
        .resets(),
    feature(1, "reset all", settings::reset_all).resets(),
    feature(1, "discard all", settings::discard_all).resets().prepares(),
    feature(1, "discard", settings::discard),
    feature(16, "unnamed statement", extended::unnamed),
    feature(4, "unnamed statement later", extended::unnamed_later),
    feature(20, "named statement", extended::named),
    feature(6, "prepare", extended::prepare).prepares(),
    feature(4, "close", extended::close).prepares(),
    feature(3, "deallocate", extended::deallocate).prepares(),
    feature(3, "formats", extended::formats),
    feature(3, "unknown names", extended::unknown_names),
    feature(2, "long messages", extended::long).alone(),
    feature(2, "a query without a Sync", extended::without_sync),
    feature(2, "wrong values", extended::wrong_values),
    feature(2, "guessed names", extended::guessed_names).needs(|promises| promises.server_names_are_hidden),
    feature(12, "pipeline", extended::pipeline).prepares(),
    feature(5, "flush", extended::flush).alone(),
    feature(4, "portals", extended::portals).alone(),
    feature(3, "shared names", extended::shared_names)
        .needs(|promises| promises.sql_and_protocol_share_names),
    feature(2, "prepared by SQL", extended::prepared_by_sql)
        .needs(|promises| promises.sql_and_protocol_share_names)
        .pins(),
    feature(4, "copy in", copies::copy_in),
    feature(4, "copy out", copies::copy_out),
    feature(3, "copy in a pipeline", copies::in_pipeline).prepares(),
    feature(2, "copy over a Sync", copies::over_a_sync).alone(),
    feature(4, "function call", calls::call),
    feature(2, "large object", calls::large_object).alone(),
    feature(1, "cancel", calls::cancel).alone(),
    feature(4, "cursor", pins::cursor),
    feature(2, "transaction lock", pins::transaction_lock),
    feature(2, "notify", pins::notify),
    feature(10, "what pins", pins::pin).pins(),
    feature(4, "what pins, for a while", pins::pin_briefly)
        .needs(|promises| promises.pins_are_released)
        .pins(),
];
