//! From a claim to a proof: [`Identity`] is who a client says it is, [`Authenticated`] who it is.
//!
//! Owns the rule that an `Authenticated` is only made in this module's neighbourhood, by a certificate, a SCRAM
//! proof or a token. Must not know how the claim was read (`resolve`) nor the exchange (`scram_server`).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::refusal::Refusal;
use crate::tenant::{ClientAuth, PoolMode, Tenant, User};

/// A user of a tenant that a client claims to be. Nothing is proved.
#[derive(Clone)]
pub struct Identity {
    tenant: Arc<Tenant>,
    user: User,
}

impl Identity {
    pub(super) const fn new(tenant: Arc<Tenant>, user: User) -> Self {
        Self { tenant, user }
    }

    /// How the user has to prove who it is.
    #[must_use]
    pub const fn auth(&self) -> &ClientAuth {
        &self.user.auth
    }

    /// The tenant's name, for logs.
    #[must_use]
    pub fn tenant_name(&self) -> &str {
        &self.tenant.name
    }

    /// The proof by certificate: `common_name` is that of a certificate which TLS has verified.
    ///
    /// # Errors
    /// If the user does not authenticate by certificate (the identity comes back, for another proof), or the name is
    /// another one.
    pub fn prove_by_certificate(self, common_name: Option<&str>) -> Result<Authenticated, Unproved> {
        let ClientAuth::Certificate { common_name: expected } = &self.user.auth else {
            return Err(Unproved::NotByCertificate(self));
        };
        match common_name {
            None => Err(Unproved::Refused(Refusal::NoCertificate)),
            Some(name) if name == &**expected => Ok(self.proved()),
            Some(_) => Err(Unproved::Refused(Refusal::WrongCertificate)),
        }
    }

    /// Only for those that have checked a proof.
    pub(super) fn proved(self) -> Authenticated {
        let mode = self.user.mode.unwrap_or(self.tenant.mode);
        Authenticated { tenant: self.tenant, user: self.user.name, mode, valid_for: None }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} of {})", self.user.name, self.tenant.name)
    }
}

/// Why a certificate did not prove an identity.
#[derive(Debug)]
pub enum Unproved {
    /// The user proves itself in another way.
    NotByCertificate(Identity),
    /// The certificate is missing or another's.
    Refused(Refusal),
}

/// A user of a tenant that has proved who it is.
#[derive(Clone)]
pub struct Authenticated {
    tenant: Arc<Tenant>,
    user: Arc<str>,
    mode: PoolMode,
    valid_for: Option<Duration>,
}

impl Authenticated {
    /// The tenant.
    #[must_use]
    pub const fn tenant(&self) -> &Arc<Tenant> {
        &self.tenant
    }

    /// The user's name within the tenant.
    #[must_use]
    pub const fn user(&self) -> &Arc<str> {
        &self.user
    }

    /// How long the proof would be taken once more, counted from when it was checked; `None`: for ever.
    #[must_use]
    pub const fn valid_for(&self) -> Option<Duration> {
        self.valid_for
    }

    /// The same proof, good for so long.
    pub(super) fn lasting(self, span: Duration) -> Self {
        Self { valid_for: Some(span), ..self }
    }

    /// How long its clients keep a server.
    #[must_use]
    pub const fn mode(&self) -> PoolMode {
        self.mode
    }
}

impl fmt::Debug for Authenticated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authenticated({} of {})", self.user, self.tenant.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::fixtures::tenant;

    fn identity(auth: ClientAuth, mode: Option<PoolMode>) -> Identity {
        let user = User { name: "reader".into(), auth, mode };
        Identity::new(Arc::new(tenant("acme", &[])), user)
    }

    #[test]
    fn a_certificate_proves_exactly_its_common_name() {
        let by_certificate = || identity(ClientAuth::Certificate { common_name: "acme-app".into() }, None);
        let proved = by_certificate().prove_by_certificate(Some("acme-app")).unwrap();
        assert_eq!((&**proved.user(), &*proved.tenant().name), ("reader", "acme"));
        assert_eq!(proved.mode(), PoolMode::Transaction);
        for (name, refusal) in [
            (None, Refusal::NoCertificate),
            (Some("ACME-APP"), Refusal::WrongCertificate),
            (Some(""), Refusal::WrongCertificate),
        ] {
            let unproved = by_certificate().prove_by_certificate(name).unwrap_err();
            assert!(matches!(unproved, Unproved::Refused(why) if why == refusal), "{name:?}");
        }
    }

    #[test]
    fn a_certificate_does_not_replace_a_password() {
        let unproved = identity(ClientAuth::Scram("x".into()), None).prove_by_certificate(Some("acme-app"));
        assert!(matches!(unproved, Err(Unproved::NotByCertificate(_))));
    }

    #[test]
    fn a_users_mode_overrides_its_tenants() {
        let proved = identity(ClientAuth::Scram("x".into()), Some(PoolMode::Session)).proved();
        assert_eq!(proved.mode(), PoolMode::Session);
    }
}
