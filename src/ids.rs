//! Identities: small copyable numbers that name tenants, clusters, workers, clients, servers and requests.
//!
//! Owns the newtypes. Must not know what any of them stands for beyond its name.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

id! {
    /// A tenant. Keeps its number for the life of the process, across reloads, as long as its name stays.
    TenantId(u32)
}
id! {
    /// A cluster: one Postgres primary and the budget that belongs to it.
    ClusterId(u16)
}
id! {
    /// A worker thread.
    WorkerId(u16)
}
id! {
    /// One client of one worker: slot number in the low 32 bits, generation above. Never used twice.
    ClientId(u64)
}
id! {
    /// One server connection (and its permit): slot number in the low 32 bits, generation above. Never used twice.
    ServerId(u64)
}
id! {
    /// One request for a lease. Chosen by the caller of the scheduler; unique while it is open.
    RequestId(u64)
}
