//! What the proxy promises, and what it does not yet (`docs/isolation.md`).
//!
//! Owns one switch for each gap, with its reason. A gap that is closed is switched on in [`Promises::TODAY`], and when all
//! are, this file goes. Against Postgres twice everything is switched on, so that nothing here is wrong by itself.

/// The gaps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Promises {
    /// Unreported settings (`SET work_mem`) follow their client. Off: they are lost between two transactions.
    pub(crate) unreported_settings_follow: bool,
    /// `SET search_path` within the tenant's schemas follows its client. Off: as the other unreported settings.
    pub(crate) search_path_follows: bool,
    /// RESET, RESET ALL and DISCARD ALL go to what the client asked for at startup. Off: they go to the server's login.
    pub(crate) reset_goes_to_startup: bool,
    /// A pin ends with what pinned. Off: only DISCARD ALL ends it, and too many sessions would wait for a server.
    pub(crate) pins_are_released: bool,
    /// SQL finds what Parse has prepared and Bind what PREPARE has. Off: they have different names on the server.
    pub(crate) sql_and_protocol_share_names: bool,
    /// A statement may be used in a later segment of the pipeline that changes it. Off: if that change fails or is
    /// skipped, the proxy believes in it all the same.
    pub(crate) names_may_be_used_at_once: bool,
    /// SQL does not find what other clients have prepared. Off: `EXECUTE tenantry_1` does.
    pub(crate) server_names_are_hidden: bool,
    /// The unnamed statement may be bound again in a later transaction. Off: it is forgotten with its first Bind.
    pub(crate) unnamed_statement_is_kept: bool,
    /// A statement that cannot be read any more, because the search_path hides its tables, fails in the very same message.
    /// Off: where it has to be prepared again it fails one message earlier, with the same error.
    pub(crate) unreadable_statements_fail_alike: bool,
}

impl Promises {
    pub(crate) const TODAY: Self = Self {
        unreported_settings_follow: true,
        search_path_follows: true,
        reset_goes_to_startup: true,
        pins_are_released: true,
        sql_and_protocol_share_names: true,
        names_may_be_used_at_once: true,
        server_names_are_hidden: true,
        unnamed_statement_is_kept: false,
        unreadable_statements_fail_alike: false,
    };

    pub(crate) const ALL: Self = Self {
        unreported_settings_follow: true,
        search_path_follows: true,
        reset_goes_to_startup: true,
        pins_are_released: true,
        sql_and_protocol_share_names: true,
        names_may_be_used_at_once: true,
        server_names_are_hidden: true,
        unnamed_statement_is_kept: true,
        unreadable_statements_fail_alike: true,
    };
}
