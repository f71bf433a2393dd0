//! Makes a script that shows a difference shorter.
//!
//! Owns the order in which steps are left out. Must not know how a script is played.

use std::time::Duration;

use crate::arena::Place;
use crate::bout::Bout;
use crate::compare::Difference;
use crate::script::Script;

/// Leaves out steps for as long as there still is a difference. `None` if it does not come again at all: then it
/// depends on what others did at the same time.
pub(crate) async fn shrink(
    bout: &Bout,
    place: Place,
    script: &Script,
    difference: &Difference,
    span: Duration,
) -> Option<(Script, Difference)> {
    let mut best = None;
    let _ = tokio::time::timeout(span, shorten(bout, place, script, difference, &mut best)).await;
    best
}

async fn shorten(
    bout: &Bout,
    place: Place,
    script: &Script,
    difference: &Difference,
    best: &mut Option<(Script, Difference)>,
) {
    // What comes behind the difference cannot matter.
    let mut shortest = cut(script, difference.step.map_or(1, |step| step + 1));
    let mut again = None;
    for _ in 0..ATTEMPTS {
        again = bout.first_difference(place, &shortest).await;
        if again.is_some() {
            break;
        }
    }
    let Some(again) = again else { return };
    *best = Some((shortest.clone(), again));
    // Halves, quarters, eighths, then single steps; the first step clears up and stays.
    let mut size = shortest.steps.len() / 2;
    while size > 0 {
        let mut at = 1;
        while at < shortest.steps.len() {
            let mut shorter = shortest.clone();
            shorter.steps.drain(at..(at + size).min(shorter.steps.len()));
            // A difference that depends on others may not come at once.
            let mut found = None;
            for _ in 0..2 {
                found = found.or(bout.first_difference(place, &shorter).await);
            }
            match found {
                Some(difference) => {
                    shortest = cut(&shorter, difference.step.map_or(1, |step| step + 1));
                    *best = Some((shortest.clone(), difference));
                }
                None => at += size,
            }
        }
        size /= 2;
    }
}

fn cut(script: &Script, length: usize) -> Script {
    let mut cut = script.clone();
    cut.steps.truncate(length);
    cut
}

/// Shrinking must not take longer than the search.
pub(crate) const SPAN: Duration = Duration::from_secs(30);
const ATTEMPTS: u32 = 5;
