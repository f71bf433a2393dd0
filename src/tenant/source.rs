//! How a client can name its tenant.
//!
//! Owns the list of ways. Must not know how a name is read (`auth::resolve`) nor which ways are switched on (`config`).

/// A way for a client to name its tenant (`docs/login.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TenantSource {
    /// First label of the TLS server name, if the rest of it is `login.sni_domain`: `acme.db.example.com`.
    Sni,
    /// Startup option `-c tenantry.tenant=acme`, or the startup parameter `tenantry.tenant`.
    Option,
    /// Suffix of the user name after the last dot: `reader.acme`.
    UserSuffix,
    /// The user name is the tenant's name.
    User,
    /// The database name is the tenant's name.
    Database,
}
