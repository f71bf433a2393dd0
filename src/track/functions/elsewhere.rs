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
    use super::super::super::answers::data_row;
    use super::super::super::fixture::{DONE, READY, Talk, messages};
    use super::super::Functions;
    use super::super::tests::settled;
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
        let hear = || [&here, &there].into_iter().for_each(|functions| functions.hear());
        hear();
        assert!(there.are_unknown() && there.knowledge() != known);
        there.is_known.set(true);
        here.is_known.set(true);
        hear();
        assert!(!there.are_unknown() && !here.are_unknown(), "nobody tells again what was heard");
        here.ask_again();
        hear();
        assert!(!there.are_unknown(), "what is only asked again concerns nobody else");
    }

    #[test]
    fn another_worker_hears_of_functions_when_they_are_asked_for_and_again_when_they_are_there() {
        let mut talk = Talk::new(9);
        let shared = Elsewhere::default();
        let there = Functions::watched(false);
        talk.client.functions = Functions::watched(false);
        there.share(shared.clone());
        talk.client.functions.share(shared);
        for step in ["asked", "answered"] {
            there.hear();
            there.is_known.set(true);
            match step {
                "asked" => talk.say(&messages(&[(b'Q', b"CREATE FUNCTION f() RETURNS int AS ''\0")])),
                _ => talk.answer(&messages(&[DONE, READY])),
            };
            there.hear();
            assert!(there.are_unknown(), "{step}");
        }
    }

    /// Whenever news come, they are heard before anybody else gets the server.
    #[test]
    fn what_another_worker_makes_is_asked_for_whenever_it_comes() {
        for moment in [
            "before the lease",
            "before the text",
            "before the answer",
            "before the question is answered",
            "never",
        ] {
            let mut talk = Talk::new(9);
            let shared = Elsewhere::default();
            let there = Functions::watched(false);
            there.share(shared.clone());
            talk.client.functions = Functions::watched(false);
            talk.client.functions.share(shared);
            let is_late = moment == "before the question is answered";
            talk.client.functions.is_known.set(!is_late);
            let tells = |now| {
                if now == moment {
                    there.forget();
                }
            };
            tells("before the lease");
            talk.exchange.begin(&talk.client, &mut talk.server, &mut Vec::new());
            assert_eq!(talk.server.blind, is_late || moment == "before the lease", "{moment}");
            tells("before the text");
            talk.say(&messages(&[(b'Q', b"SELECT f()\0")]));
            tells("before the answer");
            talk.answer(&messages(&[DONE, READY]));
            let asked = settled(&mut talk);
            assert_eq!(asked.is_empty(), moment == "never", "{moment}");
            tells("before the question is answered");
            let no_functions = data_row(&[None, Some("7"), Some("f"), Some("f"), Some("f"), None]);
            if !asked.is_empty() {
                talk.answer(&messages(&[(b'D', &no_functions), DONE, READY]));
            }
            assert_eq!(talk.client.functions.are_unknown(), is_late, "{moment}");
        }
    }
}
