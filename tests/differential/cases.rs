//! Short sessions that were told something else once, kept.
//!
//! Owns the list. Each is played twice: with a wait behind every step, and all at once.

use crate::promises::Promises;
use crate::script::{Script, Step, Talk, Value};
use crate::support::Batch;

/// A short session and what is special about it.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// All at once it still is.
    pub(crate) only_with_waits: bool,
    talks: fn() -> Vec<Talk>,
}

impl Case {
    pub(crate) fn script(&self, is_joined: bool) -> Script {
        let step = |talk: Talk| Step { is_joined, ..talk.step(self.name) };
        Script {
            startup: Vec::new(),
            steps: (self.talks)().into_iter().map(step).collect(),
            goodbye: Batch::new().terminate().0,
        }
    }
}

fn query(sql: &str) -> Talk {
    Talk::new().query(sql)
}

fn prepare(name: &str, sql: &str) -> Talk {
    Talk::new().parse(name, sql).sync()
}

fn use_bound(name: &str) -> Talk {
    Talk::new().bind("", name, &[]).execute("").sync()
}

const fn case(name: &'static str, talks: fn() -> Vec<Talk>) -> Case {
    Case { name, talks, only_with_waits: false }
}

/// The known difference of what is used before the answer.
const fn early(name: &'static str, talks: fn() -> Vec<Talk>) -> Case {
    Case { name, talks, only_with_waits: !Promises::TODAY.names_may_be_used_at_once }
}

pub(crate) const CASES: [Case; 13] = [
    case("an unnamed statement that is gone", || vec![query("SELECT 1"), use_bound("")]),
    early("a statement that was refused in a failed transaction, used in it", || {
        vec![query("BEGIN; SELECT 1 / 0"), prepare("s", "SELECT 7"), use_bound("s"), query("ROLLBACK")]
    }),
    early("a statement that was refused in a failed transaction, used behind it", || {
        vec![query("BEGIN; SELECT 1 / 0"), prepare("s", "SELECT 7"), query("ROLLBACK"), use_bound("s")]
    }),
    early("a statement that cannot be prepared, used", || {
        vec![prepare("s", "SELECT broken"), use_bound("s")]
    }),
    early("a statement that could not be prepared when it was asked for", || {
        let create = query("CREATE TABLE side_0 (a int)");
        vec![prepare("s", "TABLE side_0"), create, use_bound("s"), query("DROP TABLE side_0")]
    }),
    early("a statement that was skipped", || {
        let fail = Talk::new().parse("", "SELECT 1 / 0").bind("", "", &[]).execute("");
        vec![fail.parse("s", "SELECT 7").sync(), use_bound("s")]
    }),
    early("an unnamed statement that was skipped", || {
        let fail = Talk::new().parse("", "SELECT 1 / 0").bind("", "", &[]).execute("");
        vec![prepare("", "SELECT 8"), fail.parse("", "SELECT 7").sync(), use_bound("")]
    }),
    case("an unnamed statement that could not be prepared", || {
        let create = query("CREATE TABLE side_0 (a int)");
        vec![prepare("", "TABLE side_0"), create, use_bound(""), query("DROP TABLE side_0")]
    }),
    case("an unnamed statement that was refused in a failed transaction", || {
        vec![query("BEGIN; SELECT 1 / 0"), prepare("", "SELECT 7"), query("ROLLBACK"), use_bound("")]
    }),
    early("a statement that was given up in vain", || {
        let fail = Talk::new().parse("", "SELECT 1 / 0").bind("", "", &[]).execute("");
        vec![prepare("s", "SELECT 7"), fail.close_statement("s").sync(), use_bound("s")]
    }),
    early("a statement that was deallocated in vain", || {
        let deallocate = query("BEGIN; SELECT 1 / 0");
        let rest = query("ROLLBACK");
        vec![prepare("s", "SELECT 7"), deallocate, query("DEALLOCATE s"), rest, use_bound("s")]
    }),
    case("a text whose meaning depends on a setting", || {
        let set = query("SET DateStyle = 'ISO, DMY'");
        let prepare = prepare("s", "SELECT date '01/02/2020'");
        vec![prepare, set, query("DISCARD PLANS"), use_bound("s"), query("RESET DateStyle")]
    }),
    case("too many values", || {
        vec![Talk::new().parse("s", "SELECT 1").bind("", "s", &[Value::int(1)]).execute("").sync()]
    }),
];
