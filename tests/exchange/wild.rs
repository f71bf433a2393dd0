//! Scripts that keep to the message formats and to nothing else: what must hold whatever clients do.
//!
//! Nobody ever runs a text or sees a setting that is another client's; nobody hangs; no server is handed on that is not
//! idle (`world` checks that).

use std::collections::BTreeSet;

use super::messages::{Message, about, bare, bind, execute, function_call, parse, put, query, split};
use super::rng::{Rng, env};
use super::runs::Seed;
use super::world::{Phase, World, login};

const NAMES: [&str; 4] = ["", "a", "b", "c"];

/// A client that says anything.
struct Wild {
    rng: Rng,
    id: usize,
    texts: BTreeSet<String>,
    bursts: usize,
    /// Attempts to come to an end.
    endings: usize,
    asked: bool,
}

impl Wild {
    fn new(rng: Rng, id: usize) -> Self {
        Self { rng, id, texts: BTreeSet::new(), bursts: 20, endings: 0, asked: false }
    }

    fn text(&mut self) -> String {
        let id = self.id;
        let number = self.rng.below(3);
        let text = match self.rng.below(24) {
            0..7 => format!("SELECT c{id} {number}"),
            7 => "SELECT shared 1".to_owned(),
            8 => "SELECT rows 3 all".to_owned(),
            9 => "BROKEN".to_owned(),
            10 => "SELECT 1/0".to_owned(),
            11..13 => "BEGIN".to_owned(),
            13..15 => "COMMIT".to_owned(),
            15 => "ROLLBACK".to_owned(),
            16 => format!("SET my.owner = 'c{id}'"),
            17 => format!("SET application_name = 'c{id}'"),
            18 => format!("PREPARE {} AS SELECT c{id} prepared", self.rng.pick(&NAMES[1..])),
            19 => format!("EXECUTE {}", self.rng.pick(&NAMES[1..])),
            20 => format!("DEALLOCATE {}", self.rng.pick(&NAMES[1..])),
            21 => (*self.rng.pick(&["DEALLOCATE ALL", "DISCARD ALL"])).to_owned(),
            22 => "COPY t FROM STDIN".to_owned(),
            _ => (*self.rng.pick(&["COPY forbidden FROM STDIN", "COPY t TO STDOUT", "INSERT"])).to_owned(),
        };
        self.texts.extend([text.clone(), format!("SELECT c{id} prepared")]);
        text
    }

    fn message(&mut self, out: &mut Vec<u8>) {
        let (name, other) = (*self.rng.pick(&NAMES), *self.rng.pick(&NAMES));
        let text = self.text();
        let id = self.id;
        match self.rng.below(18) {
            0..3 => parse(out, name, &text),
            3..5 => bind(out, other, name, b"v"),
            5..7 => execute(out, other, self.rng.below(2) as u32),
            7 => about(out, b'D', *self.rng.pick(b"SP"), name),
            8 => about(out, b'C', *self.rng.pick(b"SP"), name),
            9..12 => bare(out, b'S'),
            12 => bare(out, b'H'),
            16 => {
                // A Parse that is skipped, and a Bind behind the next Sync that is not.
                execute(out, "nothing", 0);
                parse(out, "", &text);
                bare(out, b'S');
                bind(out, "", "", b"v");
                execute(out, "", 0);
                bare(out, b'S');
            }
            17 if self.rng.chance(30) => {
                query(out, "DISCARD ALL");
                query(out, &format!("SET my.owner = 'c{id}'"));
            }
            13 if self.rng.chance(20) => function_call(out, "f"),
            13 | 17 => put(out, *self.rng.pick(b"dcf"), &[]),
            _ if self.rng.chance(20) => query(out, &format!("{text}; SELECT c{id} behind")),
            _ => query(out, &text),
        }
        self.texts.insert(format!("SELECT c{id} behind"));
    }

    /// What it says next; nothing if it has said everything.
    fn next(&mut self, world: &World) -> Vec<u8> {
        let mut out = Vec::new();
        if self.bursts > 0 {
            self.bursts -= 1;
            for _ in 0..=self.rng.below(7) {
                self.message(&mut out);
            }
            if self.rng.chance(1) {
                bare(&mut out, b'X');
            }
            return out;
        }
        if !world.is_settled(self.id) {
            return out;
        }
        if world.client(self.id).phase != Phase::Parked && !world.is_kept(self.id) {
            self.endings += 1;
            assert!(self.endings < 9, "client {} does not get rid of its server", self.id);
            put(&mut out, b'f', &[b"stop\0"]);
            bare(&mut out, b'S');
            query(&mut out, "ROLLBACK");
        } else if !std::mem::replace(&mut self.asked, true) {
            let text = format!("SELECT c{} finally", self.id);
            query(&mut out, &text);
            self.texts.insert(text);
        } else {
            let heard = split(&world.client(self.id).received).0;
            let text = format!("SELECT c{} finally", self.id).into_bytes();
            let answered = heard.iter().any(|message| message.tag == b'D' && message.body.starts_with(&text));
            assert!(answered, "client {} has no answer to its last query: {heard:?}", self.id);
            bare(&mut out, b'X');
        }
        out
    }

    /// Everything it heard must be its own.
    fn check(&self, heard: &[Message]) {
        for row in heard.iter().filter(|message| message.tag == b'D') {
            let text = String::from_utf8_lossy(&row.body).into_owned();
            let mut fields = text.split('\0');
            let ran = fields.next().unwrap_or_default();
            assert!(self.texts.contains(ran), "client {} ran {ran}, which it did not prepare", self.id);
            let own = format!("c{}", self.id);
            for (name, value) in
                fields.flat_map(|field| field.split(',')).filter_map(|set| set.split_once('='))
            {
                let fits = match name {
                    "my.owner" => value == own,
                    "application_name" => value == own || value == "tenantry",
                    _ => true,
                };
                assert!(fits, "client {} has {name}={value}", self.id);
            }
        }
    }
}

fn run(seed: u64) -> (u64, u64) {
    let _seed = Seed(seed);
    let mut rng = Rng::new(seed);
    let mut world = World::new(rng.clone(), rng.chance(50));
    world.tolerates_faults = true;
    let mut clients: Vec<Wild> =
        (0..2 + rng.below(3)).map(|id| Wild::new(Rng::new(seed * 16 + id as u64), id)).collect();
    clients.iter().for_each(|_| world.add_client(&login()));
    loop {
        let mut spoken = false;
        for client in &mut clients {
            if world.client(client.id).unsent.is_empty() && world.client(client.id).phase != Phase::Over {
                let bytes = client.next(&world);
                spoken |= !bytes.is_empty();
                world.clients[client.id].unsent = bytes;
            }
        }
        if !world.step() && !spoken {
            break;
        }
    }
    for client in &clients {
        client.check(&split(&world.client(client.id).received).0);
        assert!(world.client(client.id).phase == Phase::Over, "client {} hangs", client.id);
    }
    (world.steps, world.faults)
}

#[test]
fn whatever_clients_do_they_meet_only_themselves() {
    if let Some(seed) = env("TENANTRY_SIM_WILD_SEED") {
        run(seed);
        return;
    }
    let worlds = env("TENANTRY_SIM_WORLDS").unwrap_or(500);
    let (mut steps, mut faults) = (0, 0);
    for seed in 0..worlds {
        let sums = run(seed);
        (steps, faults) = (steps + sums.0, faults + sums.1);
    }
    eprintln!("{steps} steps, {faults} clients lost their server");
    assert!(faults * 5 < worlds.max(5), "clients lose their servers only in the oddest pipelines");
}
