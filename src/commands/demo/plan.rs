//! Who takes part: tenants with their names, tiers, passwords and habits.
//!
//! Owns the demo's cast. Must not connect to anything.

use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::{Context, Result};
use aws_lc_rs::rand;

use super::DemoArgs;
use crate::auth::verifier::Verifier;
use crate::tenant::Tier;

/// How a tenant's clients behave, which is also a row of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Habit {
    /// A hot tenant: several clients, short pauses.
    Hot,
    /// The one hot tenant that sends more than it may have: many clients, no pause, slow transactions.
    Noisy,
    /// A warm tenant: two clients that pause longer.
    Warm,
    /// A cold tenant: one client, seldom seen.
    Cold,
}

impl Habit {
    /// All rows, in the order of the report.
    pub(super) const ALL: [Self; 4] = [Self::Hot, Self::Noisy, Self::Warm, Self::Cold];

    /// The name in the report.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Noisy => "hot, noisy",
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }

    /// The tier in the configuration.
    pub(super) const fn tier(self) -> Tier {
        match self {
            Self::Hot | Self::Noisy => Tier::Hot,
            Self::Warm => Tier::Warm,
            Self::Cold => Tier::Cold,
        }
    }

    /// Clients of one tenant.
    pub(super) const fn clients(self) -> usize {
        match self {
            Self::Hot => 4,
            Self::Noisy => 60,
            Self::Warm => 2,
            Self::Cold => 1,
        }
    }

    /// The mean pause of a client between two transactions.
    pub(super) const fn pause(self) -> Duration {
        match self {
            Self::Hot => Duration::from_millis(20),
            Self::Noisy => Duration::ZERO,
            Self::Warm => Duration::from_millis(200),
            Self::Cold => Duration::from_millis(800),
        }
    }

    /// The position in [`Self::ALL`].
    pub(super) const fn index(self) -> usize {
        match self {
            Self::Hot => 0,
            Self::Noisy => 1,
            Self::Warm => 2,
            Self::Cold => 3,
        }
    }
}

/// A tenant of the demo.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// The tenant's and its user's name, e.g. `hot01`.
    pub(super) name: String,
    /// How its clients behave.
    pub(super) habit: Habit,
    /// The password of the user, and of the role.
    pub(super) password: String,
    /// What the proxy and Postgres know of the password.
    pub(super) verifier: String,
}

impl Member {
    fn new(habit: Habit, number: u32) -> Result<Self> {
        let name = format!("{}{number:02}", habit.tier().as_str());
        let password: String = random::<10>()?.iter().map(|byte| format!("{byte:02x}")).collect();
        let iterations = NonZeroU32::new(4_096).context("not zero")?;
        let verifier = Verifier::from_password(&password, &random::<16>()?, iterations).to_string();
        Ok(Self { name, habit, password, verifier })
    }

    /// The role and the schema; one name for both, different from the tenant's to show which is which.
    pub(super) fn role(&self) -> String {
        format!("tenant_{}", self.name)
    }
}

/// The whole cast, hottest first.
pub(super) fn members(args: &DemoArgs) -> Result<Vec<Member>> {
    let mut members = Vec::new();
    for number in 1..=args.hot {
        let habit = if number == args.hot { Habit::Noisy } else { Habit::Hot };
        members.push(Member::new(habit, number)?);
    }
    for (habit, count) in [(Habit::Warm, args.warm), (Habit::Cold, args.cold)] {
        for number in 1..=count {
            members.push(Member::new(habit, number)?);
        }
    }
    Ok(members)
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_hot_tenant_is_the_only_noisy_one() {
        let args = DemoArgs { seconds: None, hot: 2, warm: 1, cold: 1, pg_bin: None };
        let members = members(&args).unwrap();
        let names: Vec<_> = members.iter().map(|member| (member.name.as_str(), member.habit)).collect();
        let expected = [
            ("hot01", Habit::Hot),
            ("hot02", Habit::Noisy),
            ("warm01", Habit::Warm),
            ("cold01", Habit::Cold),
        ];
        assert_eq!(names, expected);
        assert_ne!(members[0].password, members[1].password);
    }

    #[test]
    fn a_habit_knows_its_place() {
        for (index, habit) in Habit::ALL.into_iter().enumerate() {
            assert_eq!(habit.index(), index);
        }
    }
}
