//! Many sessions at the same time, each of them with a twin; the first difference ends it.
//!
//! Owns the counting of statements and the report. Must not know what is said.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::arena::{Arena, Place};
use crate::author::Author;
use crate::compare::Difference;
use crate::player::play;
use crate::promises::Promises;
use crate::script::Script;
use crate::shrink;
use crate::support::Message;

/// Steps of a session, clearing up not counted.
const STEPS: usize = 120;

/// What both sides of a bout are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opponents {
    /// Postgres and the proxy.
    PostgresAndProxy,
    /// Postgres twice: a difference is a fault of the tester.
    PostgresTwice,
}

/// A run of sessions.
pub(crate) struct Bout {
    arena: Arena,
    opponents: Opponents,
    seed: u64,
    /// Statements that every side is to run.
    goal: u64,
    /// How long a difference is looked into.
    shrink_for: Duration,
    statements: AtomicU64,
    sessions: AtomicU64,
    errors: AtomicU64,
    /// A difference was found: the others go on until it has been looked into.
    is_found: AtomicBool,
    is_over: AtomicBool,
}

/// What a bout without a difference did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Totals {
    pub(crate) statements: u64,
    pub(crate) sessions: u64,
    /// Errors that both sides were told.
    pub(crate) errors: u64,
}

/// A difference, with everything that repeats it.
#[derive(Debug)]
pub(crate) struct Finding {
    seed: u64,
    session_seed: u64,
    place: Place,
    script: Script,
    difference: Difference,
    shrunk: Option<(Script, Difference)>,
    /// What Postgres says if one of its own processes has crashed.
    crash: Option<String>,
}

impl Bout {
    /// Runs until as many statements were compared, or until the first difference.
    pub(crate) async fn run(
        arena: Arena,
        opponents: Opponents,
        seed: u64,
        goal: u64,
        shrink_for: Duration,
    ) -> Result<Totals, Box<Finding>> {
        let bout = Arc::new(Self {
            arena,
            opponents,
            seed,
            goal,
            shrink_for,
            statements: AtomicU64::new(0),
            sessions: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            is_found: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        });
        let mut tasks = tokio::task::JoinSet::new();
        for place in Place::all() {
            tasks.spawn(bout.clone().sessions_of(place));
        }
        let mut finding = None;
        while let Some(ended) = tasks.join_next().await {
            finding = finding.or(ended.unwrap());
        }
        match finding {
            Some(finding) => Err(finding),
            None => Ok(Totals {
                statements: bout.statements.load(Ordering::Relaxed),
                sessions: bout.sessions.load(Ordering::Relaxed),
                errors: bout.errors.load(Ordering::Relaxed),
            }),
        }
    }

    /// One session after another at one place. The first finding ends the bout.
    async fn sessions_of(self: Arc<Self>, place: Place) -> Option<Box<Finding>> {
        let mut round = 0;
        while !self.is_finished() {
            let session_seed = self.session_seed(place, round);
            round += 1;
            let script = Author::script(session_seed, place, self.promises(), STEPS);
            let Some(difference) = self.first_difference(place, &script).await else {
                let before = self.statements.fetch_add(script.statements(), Ordering::Relaxed);
                if before / PROGRESS != (before + script.statements()) / PROGRESS {
                    println!("{before} statements and more");
                }
                self.sessions.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            if self.is_found.swap(true, Ordering::Relaxed) {
                return None;
            }
            let shrunk = shrink::shrink(&self, place, &script, &difference, self.shrink_for).await;
            self.is_over.store(true, Ordering::Relaxed);
            let seed = self.seed;
            let crash = crash(&self.arena.stage.postgres.log());
            return Some(Box::new(Finding { seed, session_seed, place, script, difference, shrunk, crash }));
        }
        None
    }

    fn promises(&self) -> Promises {
        match self.opponents {
            Opponents::PostgresAndProxy => Promises::TODAY,
            Opponents::PostgresTwice => Promises::ALL,
        }
    }

    /// While a difference is looked into, the others make the noise it may need.
    fn is_finished(&self) -> bool {
        if self.is_found.load(Ordering::Relaxed) {
            return self.is_over.load(Ordering::Relaxed);
        }
        self.statements.load(Ordering::Relaxed) >= self.goal
    }

    fn session_seed(&self, place: Place, round: u64) -> u64 {
        let place = Place::all().position(|other| other == place).unwrap() as u64;
        self.seed.wrapping_add(place * 1_000_003).wrapping_add(round.wrapping_mul(0x9E37_79B9))
    }

    /// Plays a script to both sides.
    pub(crate) async fn first_difference(&self, place: Place, script: &Script) -> Option<Difference> {
        let sides = match self.opponents {
            Opponents::PostgresAndProxy => (self.arena.direct(place), self.arena.proxied(place)),
            Opponents::PostgresTwice => (self.arena.direct(place), self.arena.postgres(place, "app")),
        };
        let (direct, proxied) = tokio::join!(play(&sides.0, script), play(&sides.1, script));
        self.errors.fetch_add(direct.errors(), Ordering::Relaxed);
        self.arena.judge.first_difference(&direct, &proxied)
    }
}

fn crash(log: &str) -> Option<String> {
    let lines: Vec<&str> = log.lines().collect();
    let at = lines.iter().position(|line| line.contains("was terminated by signal"))?;
    Some(lines[at..lines.len().min(at + 5)].join("\n"))
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, session_seed, place, script, difference, shrunk, crash } = self;
        writeln!(f, "TENANTRY_TEST_SEED={seed}: a difference in session {session_seed} of {place:?}")?;
        if let Some(crash) = crash {
            writeln!(f, "A process of Postgres crashed:\n{crash}")?;
        }
        writeln!(f, "startup {:?}", script.startup)?;
        difference_in(f, script, difference)?;
        let Some((shorter, difference)) = shrunk else {
            writeln!(f, "it did not come again; the last steps of it:")?;
            return steps(f, script, difference.step.map_or(1, |at| at + 1));
        };
        writeln!(f, "with these steps alone:")?;
        steps(f, shorter, shorter.steps.len())?;
        difference_in(f, shorter, difference)
    }
}

fn difference_in(f: &mut fmt::Formatter<'_>, script: &Script, difference: &Difference) -> fmt::Result {
    match difference.step {
        Some(at) => {
            let step = &script.steps[at];
            writeln!(f, "step {at} of {}, {}: {}", script.steps.len(), step.feature, step.text)?;
        }
        None => writeln!(f, "the greeting")?,
    }
    writeln!(f, "{}", difference.why)?;
    show(f, "direct", &difference.direct)?;
    show(f, "proxied", &difference.proxied)
}

/// The steps before `end`; `+` marks those whose answers were not awaited.
fn steps(f: &mut fmt::Formatter<'_>, script: &Script, end: usize) -> fmt::Result {
    for (at, step) in script.steps.iter().enumerate().take(end).skip(end.saturating_sub(STEPS_SHOWN)) {
        writeln!(f, "  {at}{} {}: {}", if step.is_joined { "+" } else { "" }, step.feature, step.text)?;
    }
    Ok(())
}

fn show(f: &mut fmt::Formatter<'_>, side: &str, messages: &[Message]) -> fmt::Result {
    writeln!(f, "{side}:")?;
    for (at, message) in messages.iter().enumerate().take(MESSAGES_SHOWN) {
        writeln!(f, "  {at} {message:?}")?;
    }
    if messages.len() > MESSAGES_SHOWN {
        writeln!(f, "  and {} more", messages.len() - MESSAGES_SHOWN)?;
    }
    Ok(())
}

/// A long run says where it is after so many statements.
const PROGRESS: u64 = 100_000;
const MESSAGES_SHOWN: usize = 40;
const STEPS_SHOWN: usize = 40;
