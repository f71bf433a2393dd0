//! Scripts whose every byte of answer can be foretold: bursts of pipelined messages, each ended by what makes the
//! server answer.
//!
//! An author sees the session that its client would have without a proxy, as it was when the last burst had been
//! answered, and keeps off what is documented to differ (`compare`).

use std::collections::BTreeSet;

use super::backend::{Backend, Tx};
use super::messages::{about, bare, bind, execute, function_call, parse, put, query};
use super::rng::Rng;

const NAMES: [&str; 5] = ["s1", "s2", "s3", "S_1", "a:b"];

/// Writes one client's script.
#[derive(Debug)]
pub(super) struct Author {
    pub(super) rng: Rng,
    id: usize,
    /// All texts it ever sent.
    pub(super) texts: BTreeSet<String>,
    /// The unnamed statement can be bound in a later burst.
    unnamed_kept: bool,
    serial: usize,
    /// Names that an earlier segment of this burst has changed.
    changed_before: BTreeSet<&'static str>,
    /// Names that this segment has changed, and whether they are prepared now.
    changed: Vec<(&'static str, bool)>,
    unnamed_here: bool,
    /// The COPY that ends this segment gets its data without waiting for CopyInResponse.
    copies_data: bool,
    /// Ends the next burst's first segment, which the last burst began.
    pub(super) open: bool,
}

impl Author {
    pub(super) fn new(rng: Rng, id: usize) -> Self {
        Self {
            rng,
            id,
            texts: BTreeSet::new(),
            unnamed_kept: false,
            serial: 0,
            changed_before: BTreeSet::new(),
            changed: Vec::new(),
            unnamed_here: false,
            copies_data: false,
            open: false,
        }
    }

    /// The next burst.
    pub(super) fn burst(&mut self, direct: &Backend) -> Vec<u8> {
        let mut out = Vec::new();
        self.changed_before.clear();
        if direct.copy.is_some() {
            while out.is_empty() {
                let _ = self.copy_data(&mut out);
            }
            return out;
        }
        let skipped = direct.skipping;
        let segments = 1 + self.rng.below(3);
        for segment in 0..segments {
            let first = segment == 0;
            let was_open = std::mem::take(&mut self.open);
            if !was_open {
                self.changed.clear();
                self.unnamed_here = false;
            }
            if self.rng.chance(if first { 35 } else { 15 }) {
                if !self.simple(&mut out, direct) {
                    break;
                }
            } else if self.rng.chance(5) {
                function_call(&mut out, if self.rng.chance(30) { "fail" } else { "f" });
                // It is a request of its own, as a simple query is.
                if was_open || self.rng.chance(50) {
                    self.close_segment(&mut out, true);
                }
            } else {
                let copies = self.segment(&mut out, direct, first);
                self.close_segment(&mut out, segment + 1 < segments || copies);
                if copies && !(self.copies_data && self.copy_data(&mut out)) {
                    break;
                }
            }
        }
        self.unnamed_kept &= !skipped;
        out
    }

    /// What brings the session to its end: no COPY, no open segment, no transaction.
    pub(super) fn wrap_up(&mut self, direct: &Backend) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        if direct.copy.is_some() {
            put(&mut out, b'f', &[b"stop\0"]);
            bare(&mut out, b'S');
        } else if direct.skipping || std::mem::take(&mut self.open) {
            bare(&mut out, b'S');
        } else if direct.tx != Tx::None {
            query(&mut out, "ROLLBACK");
        }
        (!out.is_empty()).then_some(out)
    }

    /// What the last burst was answered with.
    pub(super) fn heard(&mut self, errors: bool) {
        if errors {
            self.unnamed_kept = false;
        }
    }

    fn close_segment(&mut self, out: &mut Vec<u8>, synced: bool) {
        if synced || self.rng.chance(85) {
            bare(out, b'S');
        } else {
            bare(out, b'H');
            self.open = true;
        }
        self.changed_before.extend(self.changed.iter().map(|(name, _)| *name));
    }

    fn text(&mut self) -> String {
        self.serial += 1;
        let (id, serial) = (self.id, self.serial);
        let text = match self.rng.below(13) {
            0..3 => format!("SELECT c{id} {serial}"),
            3..5 => format!("SELECT shared {}", self.rng.below(4)),
            5 => "SELECT rows 3 of all".to_owned(),
            6 => "SELECT big".to_owned(),
            7 => "INSERT".to_owned(),
            8 => "SELECT 1/0".to_owned(),
            9 => (*self.rng.pick(&["BROKEN", "COPY t TO STDOUT", ""])).to_owned(),
            10 => (*self.rng.pick(&["BEGIN", "BEGIN", "COMMIT", "ROLLBACK"])).to_owned(),
            _ => self.setting(),
        };
        self.texts.insert(text.clone());
        text
    }

    fn setting(&mut self) -> String {
        let id = self.id;
        let value = *self.rng.pick(&["UTC", "CET", "Asia/Tokyo"]);
        match self.rng.below(7) {
            0 => format!("SET application_name = 'app-{id}'"),
            1 => format!("SET TimeZone = '{value}'"),
            2 => format!("SET LOCAL TimeZone = '{value}'"),
            3..6 => format!("SET my.owner = 'c{id}'"),
            _ => "SET application_name = 'x'".to_owned(),
        }
    }

    /// Returns whether something may follow at once.
    fn simple(&mut self, out: &mut Vec<u8>, direct: &Backend) -> bool {
        let known: Vec<&'static str> = NAMES
            .into_iter()
            .filter(|name| direct.prepared.contains_key(*name) && !self.changed_before.contains(name))
            .collect();
        let text = match self.rng.below(20) {
            0..3 => "BEGIN".to_owned(),
            3 => "COMMIT".to_owned(),
            4 => "ROLLBACK".to_owned(),
            5 => "DISCARD ALL".to_owned(),
            6 => "DEALLOCATE ALL".to_owned(),
            14 => {
                const RESETS: [&str; 4] = ["TimeZone", "my.owner", "application_name", "ALL"];
                format!("RESET {}", self.rng.pick(&RESETS))
            }
            7..9 if !known.is_empty() => {
                let name = *self.rng.pick(&known);
                self.changed_before.insert(name);
                let one = if name == "s1" { name.to_owned() } else { format!("\"{name}\"") };
                match self.rng.below(4) {
                    0 => format!("INSERT; DEALLOCATE {one}; SELECT two"),
                    1 => {
                        let other = *self.rng.pick(&known);
                        self.changed_before.insert(other);
                        format!("DEALLOCATE PREPARE {one}; SELECT 1/0; DEALLOCATE \"{other}\"")
                    }
                    _ => format!("DEALLOCATE {one}"),
                }
            }
            9 => "COPY t FROM STDIN".to_owned(),
            13 if self.rng.chance(20) => "DECLARE c CURSOR WITH HOLD FOR SELECT 1".to_owned(),
            10 => "COPY forbidden FROM STDIN".to_owned(),
            11 => "SELECT one; SELECT two; SELECT 1/0; SELECT four".to_owned(),
            12 => "INSERT; COPY t FROM STDIN; SELECT two".to_owned(),
            _ => self.text(),
        };
        self.unnamed_kept = false;
        if text == "DEALLOCATE ALL" || text == "DISCARD ALL" {
            self.changed_before.extend(NAMES);
        }
        self.texts.extend(super::sql::statements(&text).into_iter().map(str::to_owned));
        query(out, &text);
        // Data without waiting for CopyInResponse.
        !text.contains("FROM STDIN") || self.rng.chance(60) && self.copy_data(out)
    }

    /// Returns whether it ends the COPY.
    fn copy_data(&mut self, out: &mut Vec<u8>) -> bool {
        for _ in 0..self.rng.below(4) {
            let data: &[u8] = if self.rng.chance(10) { b"bad" } else { b"row\n" };
            put(out, b'd', &[data]);
        }
        match self.rng.below(8) {
            0 => put(out, b'f', &[b"stop\0"]),
            1 => return false,
            _ => bare(out, b'c'),
        }
        // Ends an extended COPY; behind a simple one it brings a ReadyForQuery of its own.
        if self.rng.chance(70) {
            bare(out, b'S');
            self.open = false;
        } else if self.rng.chance(50) {
            bare(out, b'H');
        }
        true
    }

    /// Messages of the extended protocol up to a Sync. Returns whether they begin a COPY.
    fn segment(&mut self, out: &mut Vec<u8>, direct: &Backend, first: bool) -> bool {
        for _ in 0..1 + self.rng.below(4) {
            match self.rng.below(12) {
                0..2 => self.parse_unnamed(out),
                2..4 => self.parse_named(out),
                4..9 => self.run_statement(out, direct, first),
                9 => self.describe(out, direct, first),
                10 => self.close(out),
                _ if self.rng.chance(30) => {
                    self.copy_statement(out);
                    return true;
                }
                _ => execute(out, "nothing", 0),
            }
        }
        false
    }

    fn copy_statement(&mut self, out: &mut Vec<u8>) {
        let forbidden = self.rng.chance(30);
        let text = if forbidden { "COPY forbidden FROM STDIN" } else { "COPY t FROM STDIN" };
        self.copies_data = !forbidden && self.rng.chance(40);
        self.unnamed_here = true;
        self.unnamed_kept = false;
        parse(out, "", text);
        bind(out, "", "", b"v");
        execute(out, "", 0);
    }

    fn parse_unnamed(&mut self, out: &mut Vec<u8>) {
        let text = self.text();
        parse(out, "", &text);
        self.unnamed_here = true;
        self.unnamed_kept = true;
    }

    fn parse_named(&mut self, out: &mut Vec<u8>) {
        let Some(name) = self.usable_name() else { return };
        let text = self.text();
        parse(out, name, &text);
        self.changed.push((name, true));
    }

    /// A name whose meaning does not depend on an unanswered segment.
    fn usable_name(&mut self) -> Option<&'static str> {
        let usable: Vec<&'static str> =
            NAMES.into_iter().filter(|name| !self.changed_before.contains(name)).collect();
        (!usable.is_empty()).then(|| *self.rng.pick(&usable))
    }

    /// A statement to bind or describe.
    fn statement(&mut self, direct: &Backend, first: bool) -> Option<&'static str> {
        let unnamed = self.unnamed_here || first && self.unnamed_kept && direct.unnamed.is_some();
        if unnamed && self.rng.chance(40) { Some("") } else { self.usable_name() }
    }

    fn run_statement(&mut self, out: &mut Vec<u8>, direct: &Backend, first: bool) {
        let Some(name) = self.statement(direct, first) else { return };
        let portal = *self.rng.pick(&["", "", "", "p1", "p2"]);
        let value = format!("v{}", self.serial);
        bind(out, portal, name, value.as_bytes());
        if name.is_empty() && self.unnamed_here {
            self.unnamed_kept = false;
        }
        if self.rng.chance(50) {
            about(out, b'D', b'P', portal);
        }
        execute(out, portal, *self.rng.pick(&[0, 0, 0, 1, 2]));
        if self.rng.chance(20) {
            execute(out, portal, 1);
        }
        if self.rng.chance(10) {
            about(out, b'C', b'P', portal);
        }
    }

    fn describe(&mut self, out: &mut Vec<u8>, direct: &Backend, first: bool) {
        let Some(name) = self.statement(direct, first) else { return };
        about(out, b'D', b'S', name);
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if self.rng.chance(10) {
            about(out, b'C', b'S', "");
            self.unnamed_kept = false;
            return;
        }
        let Some(name) = self.usable_name() else { return };
        about(out, b'C', b'S', name);
        self.changed.push((name, false));
    }
}
