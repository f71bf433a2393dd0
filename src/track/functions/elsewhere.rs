//! What a tenant's clients on other workers do with its functions.
//!
//! Owns the one number that workers share: how often functions may have changed. Each compares it with what it has heard.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// How often a tenant's functions may have changed, as one of its workers has heard. A clone has heard the same.
#[derive(Clone, Debug, Default)]
pub struct Elsewhere {
    changes: Arc<AtomicU32>,
    heard: Cell<u32>,
}

impl Elsewhere {
    /// They may have changed here: the others have news now.
    pub(super) fn tell(&self) {
        let before = self.changes.fetch_add(1, Ordering::AcqRel);
        // Others' news that came in between stay news.
        if before == self.heard.get() {
            self.heard.set(before.wrapping_add(1));
        }
    }

    /// Whether they may have changed elsewhere since this was asked last.
    pub(super) fn has_news(&self) -> bool {
        let changes = self.changes.load(Ordering::Acquire);
        self.heard.replace(changes) != changes
    }
}

#[cfg(test)]
mod tests {
    use super::super::Functions;
    use super::*;

    #[test]
    fn each_hears_of_the_others_and_not_of_itself() {
        let one = Elsewhere::default();
        let other = one.clone();
        one.tell();
        assert!(!one.has_news());
        assert!(other.has_news() && !other.has_news());
        other.tell();
        one.tell();
        assert!(one.has_news(), "its own does not hide the other's");
        assert!(other.has_news());
        assert!(!one.has_news() && !other.has_news());
    }

    #[test]
    fn what_changes_on_one_worker_is_unknown_on_the_other_and_asked_there_once() {
        let shared = Elsewhere::default();
        let [here, there] = [(); 2].map(|()| {
            let functions = Functions::watched(false);
            functions.share(shared.clone());
            functions.is_known.set(true);
            functions
        });
        let known = there.knowledge();
        here.forget();
        assert!(there.are_unknown() && there.knowledge() != known);
        there.is_known.set(true);
        here.is_known.set(true);
        assert!(!there.are_unknown() && !here.are_unknown(), "nobody tells again what was heard");
        here.ask_again();
        assert!(!there.are_unknown(), "what is only asked again concerns nobody else");
    }
}
