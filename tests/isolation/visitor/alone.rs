//! Each way to leave something, tried alone on one server.
//!
//! Owns what two sessions see there. Must not know the order of anything else.

use std::sync::Arc;

use super::Visitor;
use crate::kind::{COLUMNS, Verdict, look};
use crate::mess::Mess;
use crate::scene::Scene;

/// One way to leave something, one server: what the next session sees there, and then the one that left it.
pub(crate) async fn try_alone(scene: &Arc<Scene>, tenant: &'static str, mess: &Mess) -> Vec<String> {
    let mut one = Visitor::new(scene.clone(), tenant, 0).await;
    let mut other = Visitor::new(scene.clone(), tenant, 0).await;
    let sql = format!("{} {:?}", one.fill(mess.sql), mess.values);
    let mut stories = Vec::new();
    for mess in mess.before.into_iter().chain([mess]) {
        let reply = one.ask(one.batch_of(mess, true)).await;
        match reply.errors.first().map(|error| error.code.as_str()) {
            None => one.belong(mess.then),
            Some("22012") if mess.then.is_empty() => {}
            // Refused.
            Some("42501" | "0A000" | "53400") => {}
            Some(code) => stories.push(format!("{sql}: {code}")),
        }
    }
    let look = look();
    for (name, visitor) in [("the other", &mut other), ("itself", &mut one)] {
        let reply = visitor.query(&look).await;
        // It waits in vain for the server that the one keeps.
        if reply.errors.iter().all(|error| error.code == "53300") && !reply.errors.is_empty() {
            continue;
        }
        let row = reply.rows.first().unwrap_or_else(|| panic!("{sql}: {reply:?}"));
        for ((kind, _, _, _), value) in COLUMNS.into_iter().zip(row) {
            let (value, expected) = (value.as_deref().unwrap_or_default(), visitor.belongings.expected(kind));
            let verdict = visitor.belongings.judge(kind, value);
            if verdict != Verdict::Right {
                stories.push(format!("{sql}: {name} saw {value:?} of {kind:?}, expected {expected:?}"));
            }
        }
    }
    stories
}
