//! Servers whose transaction has committed, and that are being asked whether it made functions.
//!
//! Owns the gap between such a commit and the answer: what other servers run in it may already be one of the new functions,
//! of which nobody knows yet. They are asked the same, behind their own answers. One for all workers of a tenant.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use super::Newest;

/// Those that are being asked.
#[derive(Debug, Default)]
pub(super) struct Makers {
    /// How many there are: who finds none needs no lock.
    count: AtomicU32,
    asked: Mutex<Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    last: u64,
    /// Which functions were the newest before each of them began, in the order of their commits.
    before: BTreeMap<u64, Newest>,
}

/// One of them; it has been told when this is dropped.
#[derive(Debug)]
pub(in crate::track) struct Making {
    makers: Arc<Makers>,
    number: u64,
}

impl Makers {
    /// Its transaction has committed; `before` were the newest before that began.
    pub(super) fn enter(self: &Arc<Self>, before: Newest) -> Making {
        let mut asked = self.asked.lock();
        asked.last = asked.last.wrapping_add(1);
        let number = asked.last;
        asked.before.insert(number, before);
        self.count_of(&asked);
        Making { makers: self.clone(), number }
    }

    /// What the first of them is compared with, if there is one.
    #[inline]
    pub(super) fn first(&self) -> Option<Newest> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.asked.lock().before.values().next().cloned()
    }

    fn count_of(&self, asked: &Asked) {
        self.count.store(u32::try_from(asked.before.len()).unwrap_or(u32::MAX), Ordering::Release);
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        let mut asked = self.makers.asked.lock();
        asked.before.remove(&self.number);
        self.makers.count_of(&asked);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::answers::data_row;
    use super::super::super::fixture::{DONE, READY, Talk, messages};
    use super::super::Reach;
    use super::super::tests::settled;
    use super::super::{Functions, Hidden, Left, Made};
    use super::*;

    fn runs(talk: &mut Talk, text: &str) {
        talk.say(&messages(&[(b'Q', &[text.as_bytes(), b"\0"].concat())]));
        talk.answer(&messages(&[DONE, READY]));
    }

    fn asks_for_made(asked: &[u8]) -> bool {
        memchr::memmem::find(asked, b"SELECT pg_catalog.concat_ws").is_some()
    }

    fn told(talk: &mut Talk, newest: &str) {
        talk.answer(&messages(&[(b'D', &data_row(&[Some(newest)])), DONE, READY]));
        while talk.server.asking {
            talk.answer(&messages(&[DONE, READY]));
        }
    }

    /// Two servers of a tenant with a procedure that makes functions, and the newest of those is 7.
    fn two() -> [Talk; 2] {
        let functions = Functions::watched(false);
        let mut maker = Hidden { left: Left { makes: Made::New, ..Left::default() }, ..Hidden::default() };
        maker.reach = Reach::default();
        maker.reach.functions.add(Some(b"make"));
        functions.know(Some(maker));
        functions.newest.replace(Some(Arc::from(b"7".as_slice())));
        [(); 2].map(|()| {
            let mut talk = Talk::new(9);
            talk.client.functions = functions.clone();
            talk
        })
    }

    #[test]
    fn what_runs_between_a_commit_and_what_it_made_is_asked_about() {
        for newest in ["7", "8"] {
            let [mut here, mut there] = two();
            runs(&mut here, "CALL make()");
            // Its client knows of the commit; another one runs what was made, and is done before that is known.
            runs(&mut there, "SELECT made()");
            let asked = settled(&mut there);
            assert!(asks_for_made(&asked), "{}", asked.escape_ascii());
            told(&mut there, newest);
            assert_eq!(there.client.functions.are_unknown(), newest == "8");
            // It is asked what the function does that it may have run.
            assert_eq!(there.server.is_unsettled(), newest == "8");
            assert!(asks_for_made(&settled(&mut here)));
            told(&mut here, newest);
        }
    }

    #[test]
    fn who_is_asked_only_because_of_another_is_no_reason_to_ask_a_third() {
        let [mut here, mut there] = two();
        runs(&mut here, "CALL make()");
        runs(&mut there, "SELECT made()");
        assert!(asks_for_made(&settled(&mut here)) && asks_for_made(&settled(&mut there)));
        told(&mut here, "7");
        let mut third = Talk::new(9);
        third.client.functions = here.client.functions.clone();
        runs(&mut third, "SELECT made()");
        assert_eq!(settled(&mut third), b"");
    }

    #[test]
    fn a_server_that_ends_before_it_has_told_may_have_made_some() {
        let [mut here, mut there] = two();
        runs(&mut here, "CALL make()");
        assert!(asks_for_made(&settled(&mut here)));
        assert!(here.server.takes_new_functions());
        drop(here);
        runs(&mut there, "SELECT made()");
        assert_eq!(settled(&mut there), b"", "nobody is being asked any more");
    }
}
