//! What is known of a tenant's functions on several workers.
//!
//! Owns what they share: the one truth, of which each has a copy, and the number by which it sees that its copy is old.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::makers::Makers;
use super::{Functions, Hidden, Newest};

/// What is known of one tenant's functions, by how its servers log in: on another cluster, or with another search_path,
/// they are others. A clone is the same.
#[derive(Clone, Debug, Default)]
pub struct Elsewhere(Arc<Mutex<BTreeMap<Box<str>, Arc<Shared>>>>);

impl Elsewhere {
    /// That of those who log in so.
    fn of(&self, login: &str) -> Arc<Shared> {
        self.0.lock().entry(login.into()).or_default().clone()
    }
}

/// What all workers know.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// The version of what is known: who has it needs no lock to see that.
    version: AtomicU32,
    known: Mutex<Known>,
    makers: Arc<Makers>,
}

/// What [`super::Functions`] know, as far as it is the same for all workers.
#[derive(Debug, Default)]
struct Known {
    is_known: bool,
    reads_sequences: bool,
    changes: u32,
    version: u32,
    hidden: Option<Arc<Hidden>>,
    newest: Newest,
}

impl Known {
    /// What these know.
    fn of(functions: &Functions) -> Self {
        Self {
            is_known: functions.is_known.get(),
            reads_sequences: functions.reads_sequences.get(),
            changes: functions.changes.get(),
            version: functions.version.get(),
            hidden: functions.hidden.borrow().clone(),
            newest: functions.newest.borrow().clone(),
        }
    }

    /// These know the same from here on.
    fn teach(&self, functions: &Functions) {
        if functions.changes.replace(self.changes) != self.changes {
            functions.due.take();
        }
        functions.is_known.set(self.is_known);
        functions.reads_sequences.set(functions.reads_sequences.get() || self.reads_sequences);
        functions.version.set(self.version);
        functions.hidden.borrow_mut().clone_from(&self.hidden);
        functions.newest.borrow_mut().clone_from(&self.newest);
    }
}

impl Functions {
    /// The tenant has clients on other workers too: what is known of its functions is known to all who log in so. They are
    /// asked again.
    pub fn share(&self, elsewhere: &Elsewhere, login: &str) {
        let (changes, version) = (self.changes.get(), self.version.get());
        let shared = elsewhere.of(login);
        self.makers.replace(shared.makers.clone());
        self.shared.replace(Some(shared));
        self.change(|this| {
            // Neither goes back, or what was read or asked long ago would pass for what is known now.
            this.changes.set(this.changes.get().max(changes));
            this.version.set(this.version.get().max(version));
            this.doubt();
        });
    }

    /// Takes note of what other workers have found out: when a lease begins, and when a text or a question is answered.
    #[inline]
    pub(in crate::track) fn hear(&self) {
        if let Some(shared) = self.shared.borrow().as_deref()
            && !shared.is_at(self.version.get())
        {
            shared.known().teach(self);
        }
    }

    /// Changes what is known, for all workers: to each it is what the last of them has made of it.
    pub(super) fn change<R>(&self, change: impl FnOnce(&Self) -> R) -> R {
        let shared = self.shared.borrow().clone();
        let Some(shared) = shared else { return change(self) };
        let mut known = shared.known();
        known.teach(self);
        let result = change(self);
        *known = Known::of(self);
        shared.moved_to(self.version.get());
        result
    }
}

impl Shared {
    /// Whether that is what is known.
    fn is_at(&self, version: u32) -> bool {
        self.version.load(Ordering::Acquire) == version
    }

    /// It is, from here on. Under the lock.
    fn moved_to(&self, version: u32) {
        self.version.store(version, Ordering::Release);
    }

    /// What is known, for as long as it is held: never beyond a few assignments.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::answers::data_row;
    use super::super::super::fixture::{DONE, READY, Talk, messages};
    use super::super::tests::settled;
    use super::super::{Left, Made};
    use super::*;

    fn two() -> [std::rc::Rc<Functions>; 2] {
        let elsewhere = Elsewhere::default();
        [(); 2].map(|()| {
            let functions = Functions::watched(false);
            functions.share(&elsewhere, "a login");
            functions
        })
    }

    /// A lease that has begun, of a client whose tenant has these functions.
    fn lease(functions: &std::rc::Rc<Functions>) -> Talk {
        let mut talk = Talk::new(9);
        talk.client.functions = functions.clone();
        talk
    }

    fn hear(functions: &[std::rc::Rc<Functions>]) {
        functions.iter().for_each(|functions| functions.hear());
    }

    #[test]
    fn what_one_worker_learns_the_other_knows_and_what_changes_is_unknown_to_both() {
        let both @ [here, there] = &two();
        hear(both);
        assert!(here.learn(here.changes.get(), |here| here.know(None)));
        hear(both);
        assert!(!here.are_unknown() && !there.are_unknown());
        let known = there.knowledge();
        there.forget();
        hear(both);
        assert!(here.are_unknown() && there.are_unknown() && here.knowledge() != known);
        let hidden = Hidden { left: Left { makes: Made::New, ..Left::default() }, ..Hidden::default() };
        assert!(there.learn(there.changes.get(), |there| there.know(Some(hidden))));
        here.hear();
        assert!(here.hidden().is_some_and(|hidden| hidden.left.makes == Made::New));
        there.change(|there| there.reads_sequences.set(true));
        there.forget();
        here.hear();
        assert!(here.reads_sequences.get());
    }

    #[test]
    fn those_who_log_in_otherwise_have_other_functions() {
        let elsewhere = Elsewhere::default();
        let functions = ["one", "another"].map(|login| {
            let functions = Functions::watched(false);
            functions.share(&elsewhere, login);
            functions
        });
        assert!(functions[0].learn(functions[0].changes.get(), |functions| functions.know(None)));
        hear(&functions);
        assert_eq!([&functions[0], &functions[1]].map(|functions| functions.are_unknown()), [false, true]);
    }

    #[test]
    fn an_answer_is_none_if_another_worker_has_heard_of_a_change_before_it_is_taken() {
        let [here, there] = two();
        here.hear();
        let asked_behind = here.changes.get();
        there.forget();
        // It has not been heard here: the lock tells.
        assert!(!here.learn(asked_behind, |here| here.know(None)));
        assert!(here.are_unknown() && there.are_unknown());
    }

    #[test]
    fn what_was_read_or_asked_before_they_were_shared_is_old() {
        let functions = Functions::watched(false);
        (0..9).for_each(|_| functions.forget());
        functions.know(None);
        let (changes, known) = (functions.changes.get(), functions.knowledge());
        let elsewhere = Elsewhere::default();
        functions.share(&elsewhere, "a login");
        for _ in 0..20 {
            assert!(!functions.learn(changes, |functions| functions.know(None)));
            assert!(functions.are_unknown() && functions.knowledge() != known);
            functions.forget();
        }
    }

    /// Whenever it comes that functions have changed, it is heard before anybody else gets the server.
    #[test]
    fn what_another_worker_makes_is_asked_for_whenever_it_comes() {
        let moments = [
            "before the lease",
            "before the text",
            "before the answer",
            "before the question is answered",
            "before the question, the login",
            "never",
        ];
        for moment in moments {
            let [here, there] = two();
            let mut talk = lease(&here);
            let is_late = moment.starts_with("before the question");
            if !is_late {
                here.hear();
                assert!(here.learn(here.changes.get(), |here| here.know(None)));
            }
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
            // The tenant logs in otherwise by now, and has other functions.
            talk.server.is_outdated = moment == "before the question, the login";
            let no_functions = data_row(&[Some("7")]);
            if !asked.is_empty() {
                talk.answer(&messages(&[(b'D', &no_functions), DONE, READY]));
            }
            assert_eq!(talk.client.functions.are_unknown(), is_late, "{moment}");
        }
    }

    /// A client that has made functions and goes on in the same batch is told so before its lease ends. As long as its
    /// transaction goes on nobody else can see them.
    #[test]
    fn functions_are_unknown_again_with_each_transaction_that_may_have_made_some() {
        let [here, there] = two();
        let mut talk = lease(&here);
        let in_transaction = |sql: &'static [u8]| messages(&[(b'Q', sql)]);
        talk.say(&in_transaction(b"CREATE FUNCTION g() RETURNS int AS ''\0"));
        there.hear();
        assert!(there.learn(there.changes.get(), |there| there.know(None)));
        talk.answer(&messages(&[DONE, (b'Z', b"T")]));
        there.hear();
        assert!(!there.are_unknown());
        talk.say(&in_transaction(b"COMMIT\0"));
        talk.answer(&messages(&[DONE, READY]));
        there.hear();
        assert!(there.are_unknown());
        talk.say(&messages(&[
            (b'Q', b"CREATE FUNCTION f() RETURNS int AS ''\0"),
            (b'Q', b"SELECT pg_sleep(9)\0"),
        ]));
        there.hear();
        // Another lease, from before there was anything to see.
        assert!(there.learn(there.changes.get(), |there| there.know(None)));
        talk.answer(&messages(&[DONE, READY]));
        there.hear();
        assert!(there.are_unknown());
    }
}
