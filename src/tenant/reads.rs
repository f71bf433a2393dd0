//! What a tenant lets read replicas do, and what a client asks for.
//!
//! Owns the words. Which replica it is, and whether one is fit, is the pool's.

/// Where a client's transactions go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// To the primary of the tenant's cluster.
    #[default]
    Primary,
    /// To one of its replicas, as long as one is fit: they only read.
    Replica,
}

impl Target {
    /// By the word of the startup option.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "primary" => Some(Self::Primary),
            "replica" => Some(Self::Replica),
            _ => None,
        }
    }
}

/// What goes to a replica of a tenant's cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplicaReads {
    /// Nothing, whatever clients ask for.
    Never,
    /// Sessions that ask for it when they log in.
    #[default]
    Sessions,
    /// Those, and transactions that begin with `BEGIN READ ONLY`.
    Transactions,
    /// All sessions: the tenant only reads.
    Always,
}

impl ReplicaReads {
    /// The word in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Sessions => "sessions",
            Self::Transactions => "transactions",
            Self::Always => "always",
        }
    }

    /// Where the transactions of a session go that has asked for this, or for nothing.
    #[must_use]
    pub const fn of_session(self, asked: Target) -> Target {
        match self {
            Self::Never => Target::Primary,
            Self::Sessions | Self::Transactions => asked,
            Self::Always => Target::Replica,
        }
    }
}

/// What a client puts behind its user name that wants a replica (`acme+replica`).
pub const REPLICA_SUFFIX: &str = "+replica";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_goes_where_it_asked_to_unless_its_tenant_says_otherwise() {
        use ReplicaReads::{Always, Never, Sessions, Transactions};
        use Target::{Primary, Replica};
        for (reads, of_neither, of_replica) in [
            (Never, Primary, Primary),
            (Sessions, Primary, Replica),
            (Transactions, Primary, Replica),
            (Always, Replica, Replica),
        ] {
            assert_eq!([Primary, Replica].map(|asked| reads.of_session(asked)), [of_neither, of_replica]);
        }
    }
}
