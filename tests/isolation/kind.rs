//! The kinds of state that a session can leave behind, and what each client may expect to see of each.
//!
//! Owns the columns of the look, and the expectation for each of them. Must not know statements.

use std::collections::BTreeSet;

/// A kind of state that one column shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Role,
    Path,
    WorkMem,
    StatementTimeout,
    ReadOnly,
    Isolation,
    RowSecurity,
    TimeZone,
    IntervalStyle,
    ApplicationName,
    CustomBySet,
    CustomByFunction,
    CustomByTrigger,
    CustomByDo,
    TempRelation,
    Shadow,
    TempOther,
    Lock,
    Channel,
    HeldCursor,
    Prepared,
}

/// Kind, its name in the table, the column, and what a session without remains sees (`{tenant}` is replaced).
pub(crate) const COLUMNS: [(Kind, &str, &str, &str); 21] = [
    (Kind::Role, "`SET ROLE`", "current_user", "role_{tenant}"),
    (Kind::Path, "`search_path`", "current_setting('search_path')", "schema_{tenant}"),
    (Kind::WorkMem, "a setting, set in 30 ways (`work_mem`)", "current_setting('work_mem')", "4MB"),
    (Kind::StatementTimeout, "`statement_timeout`", "current_setting('statement_timeout')", "0"),
    (
        Kind::ReadOnly,
        "session characteristics: read only",
        "current_setting('default_transaction_read_only')",
        "off",
    ),
    (
        Kind::Isolation,
        "session characteristics: isolation",
        "current_setting('default_transaction_isolation')",
        "read committed",
    ),
    (Kind::RowSecurity, "`row_security`", "current_setting('row_security')", "on"),
    (Kind::TimeZone, "`TimeZone`", "current_setting('TimeZone')", "UTC"),
    (Kind::IntervalStyle, "`IntervalStyle`", "current_setting('IntervalStyle')", "postgres"),
    (Kind::ApplicationName, "`application_name`", "replace(current_setting('application_name'), 'tenantry', '')", ""),
    (Kind::CustomBySet, "custom setting, by SET and set_config", "current_setting('my.name', true)", ""),
    (Kind::CustomByFunction, "custom setting, by a function", "current_setting('my.function', true)", ""),
    (Kind::CustomByTrigger, "custom setting, by a trigger", "current_setting('my.trigger', true)", ""),
    (Kind::CustomByDo, "custom setting, by DO and CALL", "current_setting('my.block', true)", ""),
    (
        Kind::TempRelation,
        "temporary table, view, sequence",
        "(SELECT string_agg(relname, ',' ORDER BY relname) FROM pg_class WHERE relname <> 'things'
            AND relkind IN ('r', 'v', 'S') AND relnamespace = pg_my_temp_schema())",
        "",
    ),
    (
        Kind::Shadow,
        "temporary table in the way of a real one",
        "(SELECT count(*) FROM pg_class WHERE relname = 'things' AND relnamespace = pg_my_temp_schema())",
        "0",
    ),
    (
        Kind::TempOther,
        "temporary function, type",
        "(SELECT string_agg(DISTINCT coalesce(proname, typname), ',') FROM pg_depend
            LEFT JOIN pg_proc ON classid = 'pg_proc'::regclass AND pg_proc.oid = objid
            LEFT JOIN pg_type ON classid = 'pg_type'::regclass AND pg_type.oid = objid AND typtype IN ('d', 'e')
            WHERE refclassid = 'pg_namespace'::regclass AND refobjid = pg_my_temp_schema())",
        "",
    ),
    (
        Kind::Lock,
        "advisory lock",
        "(SELECT string_agg(DISTINCT objid::text, ',') FROM pg_locks
            WHERE locktype = 'advisory' AND pid = pg_backend_pid())",
        "",
    ),
    (
        Kind::Channel,
        "LISTEN",
        // The proxy's own marker is there while a client goes over to the listener of its tenant.
        "(SELECT string_agg(channel, ',') FROM pg_listening_channels() channel WHERE channel NOT LIKE 'tenantry_%')",
        "",
    ),
    (
        Kind::HeldCursor,
        "cursor WITH HOLD",
        "(SELECT string_agg(name, ',') FROM pg_cursors WHERE is_holdable)",
        "",
    ),
    (
        Kind::Prepared,
        "SQL-level PREPARE",
        "(SELECT string_agg(statement, ',') FROM pg_prepared_statements WHERE from_sql)",
        "",
    ),
];

impl Kind {
    const fn index(self) -> usize {
        self as usize
    }

    pub(crate) const fn name(self) -> &'static str {
        COLUMNS[self.index()].1
    }
}

/// One row with everything that a strange hand could have left; its last column is the server's process id.
pub(crate) fn look() -> String {
    let columns: Vec<String> =
        COLUMNS.iter().map(|(_, _, sql, _)| format!("coalesce({sql}::text, '')")).collect();
    format!("SELECT {}, pg_backend_pid()", columns.join(", "))
}

/// What a client may expect to see of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    Clean,
    /// Exactly what it left itself.
    Own(String),
    /// Nothing, or anything that it left itself: what becomes of it is not promised.
    Unsure,
}

/// How a value differs from the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Right,
    /// What the client left itself is gone, or an older one is back.
    Lost,
    /// Somebody else left it.
    Foreign,
}

/// What one client left and has to expect.
#[derive(Debug)]
pub(crate) struct Belongings {
    tenant: &'static str,
    expected: Vec<Expect>,
    mine: BTreeSet<(Kind, String)>,
}

impl Belongings {
    pub(crate) fn new(tenant: &'static str) -> Self {
        Self { tenant, expected: vec![Expect::Clean; COLUMNS.len()], mine: BTreeSet::new() }
    }

    pub(crate) fn is_clean(&self, kind: Kind) -> bool {
        self.expected[kind.index()] == Expect::Clean
    }

    /// Whether it has left anything of the kind, however long ago.
    pub(crate) fn has_left(&self, kind: Kind) -> bool {
        self.mine.iter().any(|(left, _)| *left == kind)
    }

    pub(crate) fn are_clean(&self) -> bool {
        self.expected.iter().all(|expect| *expect == Expect::Clean)
    }

    pub(crate) fn own(&self, kind: Kind) -> Option<&str> {
        match &self.expected[kind.index()] {
            Expect::Own(value) => Some(value),
            Expect::Clean | Expect::Unsure => None,
        }
    }

    /// The client has left this, or may have.
    pub(crate) fn leave(&mut self, kind: Kind, value: &str, is_certain: bool) {
        self.mine.insert((kind, value.to_owned()));
        self.expected[kind.index()] = if is_certain { Expect::Own(value.to_owned()) } else { Expect::Unsure };
    }

    pub(crate) fn clear(&mut self, kind: Kind) {
        self.expected[kind.index()] = Expect::Clean;
    }

    /// It left something of the kind, and from now on that is not promised.
    pub(crate) fn doubt(&mut self, kind: Kind) {
        self.expected[kind.index()] = Expect::Unsure;
    }

    pub(crate) fn judge(&self, kind: Kind, value: &str) -> Verdict {
        let clean = COLUMNS[kind.index()].3.replace("{tenant}", self.tenant);
        let mine = value == clean || self.mine.contains(&(kind, value.to_owned()));
        let right = match &self.expected[kind.index()] {
            Expect::Clean => value == clean,
            Expect::Own(own) => value == own,
            Expect::Unsure => mine,
        };
        match (right, mine) {
            (true, _) => Verdict::Right,
            (false, true) => Verdict::Lost,
            (false, false) => Verdict::Foreign,
        }
    }

    pub(crate) fn expected(&self, kind: Kind) -> &Expect {
        &self.expected[kind.index()]
    }
}
