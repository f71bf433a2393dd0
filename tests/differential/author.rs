//! Writes the script of a session from a seed.
//!
//! Owns what the author remembers of the session, and the order of steps. Pure: the same seed gives the same script.

use crate::arena::{Place, TENANTS};
use crate::features::{FEATURES, Feature, Who};
use crate::promises::Promises;
use crate::script::{Script, Talk, Value};
use crate::support::{Batch, Random};

/// A statement with parameters.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) sql: String,
    pub(crate) values: Vec<Value>,
}

/// Writes one session.
pub(crate) struct Author {
    pub(crate) random: Random,
    /// Number of the place, the end of the names that are its own.
    pub(crate) place: usize,
    /// Number of the tenant, for what tenants of a database share.
    pub(crate) tenant: usize,
    /// Believes that a transaction is open.
    pub(crate) in_transaction: bool,
    /// What it believes to have prepared, by index into [`NAMES`].
    pub(crate) prepared: [Option<Prepared>; NAMES.len()],
    pub(crate) promises: Promises,
    /// The step that is being written prepares a name.
    pub(crate) prepares_a_name: bool,
    /// Has asked for settings at startup.
    has_startup: bool,
    who: Who,
}

/// Names of prepared statements; every session uses the same. One looks like the proxy's own.
pub(crate) const NAMES: [&str; 6] = ["s0", "s1", "S 2", "tenantry_1", "all", "s5"];

impl Author {
    /// The script of a session of `length` steps.
    pub(crate) fn script(seed: u64, place: Place, promises: Promises, length: usize) -> Script {
        let who = if place.may_pin() { Who::Pinners } else { Who::Everybody };
        let mut author = Self {
            random: Random::new(seed),
            place: place.number,
            tenant: TENANTS.iter().position(|name| *name == place.tenant).unwrap(),
            in_transaction: false,
            prepared: Default::default(),
            promises,
            prepares_a_name: false,
            has_startup: false,
            who,
        };
        let startup = author.startup();
        author.has_startup = !startup.is_empty();
        let mut steps = vec![author.clear_up().step("clear up")];
        let mut joined_bytes = 0;
        while steps.len() <= length {
            let feature = author.choose();
            author.prepares_a_name = false;
            let talk = (feature.write)(&mut author);
            let mut step = talk.step(feature.name);
            let bytes: usize = step.parts.iter().map(|part| part.bytes.len()).sum();
            // What is sent without being read must fit into the sockets' buffers, so must what it makes of it.
            step.is_joined = step.parts.len() == 1
                && feature.may_join
                && (author.promises.names_may_be_used_at_once
                    || !author.prepares_a_name && !feature.prepares)
                && joined_bytes + bytes < JOINED_MAX
                && author.random.one_in(2);
            step.cut = author.one_in(3).then(|| author.below(bytes));
            joined_bytes = if step.is_joined { joined_bytes + bytes } else { 0 };
            steps.push(step);
        }
        let goodbye = author.goodbye();
        Script { startup, steps, goodbye }
    }

    /// Session settings asked for at login, for some.
    fn startup(&mut self) -> Vec<(String, String)> {
        let sets: &[&[(&str, &str)]] = match self.random.below(4) {
            0 => &[
                &[("TimeZone", "Asia/Kathmandu"), ("application_name", "it's a test")],
                &[("DateStyle", "German, YMD")],
                &[("options", "-c IntervalStyle=iso_8601 -c work_mem=5MB")],
                &[("extra_float_digits", "0"), ("statement_timeout", "1h")],
                &[("client_encoding", "LATIN1")],
            ],
            _ => &[&[]],
        };
        let set = *self.random.pick(sets);
        set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// The last words. What they do is not kept: the next session of this place must not be in doubt about it.
    fn goodbye(&mut self) -> Vec<u8> {
        let place = self.place;
        let write = format!("BEGIN; UPDATE box_{place} SET word = 'left'; SELECT repeat('x', 100000)");
        let Batch(bytes) = match self.below(8) {
            0 => Batch::new(),
            1 => Batch::new().query(&write),
            2 => Batch::new().query("SET work_mem = '99MB'"),
            3 => Batch::new().parse("s0", "SELECT 'left'").bind("", "s0", &[]).execute(""),
            4 => Batch::new().query("BEGIN").raw(b"Q\0\0\0\x50SELECT"),
            _ => Batch::new().terminate(),
        };
        bytes
    }

    /// What others of this place left in the tables goes.
    fn clear_up(&self) -> Talk {
        let place = self.place;
        Talk::new().query(&format!(
            "TRUNCATE box_{place}; INSERT INTO box_{place} (id, word, data, once)
                 SELECT n, 'word ' || n, decode(md5(n::text), 'hex'), n FROM generate_series(1, 20) n;
             DROP TABLE IF EXISTS side_{place}; ALTER SEQUENCE seq_{place} RESTART;
             SELECT count(lo_unlink(oid)) FROM pg_largeobject_metadata WHERE oid = {}",
            self.large_object()
        ))
    }

    fn choose(&mut self) -> &'static Feature {
        loop {
            let total: usize = FEATURES.iter().map(|feature| feature.weight).sum();
            let mut at = self.random.below(total);
            let found = FEATURES.iter().find(|feature| match at.checked_sub(feature.weight) {
                Some(rest) => {
                    at = rest;
                    false
                }
                None => true,
            });
            let feature = found.unwrap();
            let is_allowed = feature.who == Who::Everybody || feature.who == self.who;
            let fits = !feature.resets || !self.has_startup || self.promises.reset_goes_to_startup;
            if (feature.is_promised)(&self.promises) && is_allowed && fits {
                return feature;
            }
        }
    }

    /// Number of this place's large object. All tenants of a database share the numbers.
    pub(crate) const fn large_object(&self) -> usize {
        4_000_000 + self.tenant * 100 + self.place
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.random.below(limit)
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.random.one_in(n)
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        *self.random.pick(from)
    }
}

const JOINED_MAX: usize = 8 * 1024;
