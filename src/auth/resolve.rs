//! Which tenant a client means: from its TLS server name, startup option, user name and database name.
//!
//! Owns the rule of `docs/login.md`: every enabled source names a tenant or is silent; the first in the configured order
//! that names one wins; a later one that names another is an error. Must not authenticate, nor tell a client anything.
//!
//! | source | names | is silent if |
//! |---|---|---|
//! | `Option` | what it says | it is not given |
//! | `Sni` | the label before the configured domain | the server name is not one label and that domain |
//! | `UserSuffix` | what follows the last dot | there is no such tenant: user names may contain dots |
//! | `User` | the whole user name | there is no such tenant |
//! | `Database` | the database name | there is no such tenant; and when it comes after the one that won |
//!
//! A database that another tenant is called after is no disagreement here: after the login it is refused like any other
//! database the tenant does not have (3D000), so that a tenant cannot learn its neighbours' names.

use std::sync::Arc;

use super::identity::Identity;
use super::refusal::Refusal;
use crate::tenant::{Catalog, Tenant, TenantSource, User};

/// What a client said about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claims<'a> {
    /// Name asked for in the TLS handshake.
    pub server_name: Option<&'a str>,
    /// `tenantry.tenant`, as startup option or parameter.
    pub option: Option<&'a str>,
    /// User name as sent.
    pub user: &'a str,
    /// Database name, if one was sent.
    pub database: Option<&'a str>,
}

/// How tenants are named here.
#[derive(Clone, Copy, Debug)]
pub struct Naming<'a> {
    /// The sources asked, in this order.
    pub sources: &'a [TenantSource],
    /// The domain under which server names are tenants' names, in lower case.
    pub sni_domain: Option<&'a str>,
}

/// Finds the user of a tenant that a client claims to be.
///
/// # Errors
/// If that is nobody, or two sources disagree. All of these look alike to the client.
pub fn resolve(claims: &Claims<'_>, naming: Naming<'_>, catalog: &Catalog) -> Result<Identity, Refusal> {
    let mut found: Option<&Arc<Tenant>> = None;
    for source in naming.sources {
        let Some(name) = claims.named_by(*source, naming) else { continue };
        let Some(named) = catalog.by_name(&name) else {
            match source {
                TenantSource::Option | TenantSource::Sni => return Err(Refusal::UnknownTenant),
                TenantSource::UserSuffix | TenantSource::User | TenantSource::Database => continue,
            }
        };
        match found {
            None => found = Some(named),
            Some(first) if first.id == named.id || *source == TenantSource::Database => {}
            Some(_) => return Err(Refusal::SourcesDisagree),
        }
    }
    let tenant = found.ok_or(Refusal::NoTenantNamed)?;
    let user = claims.user_of(tenant, naming).ok_or(Refusal::UnknownUser)?;
    Ok(Identity::new(tenant.clone(), user.clone()))
}

/// Who the client would be if the tenant it names existed: tenant and user name.
///
/// The salt shown for an unknown user is derived from this, so that asking twice, or in another spelling, gives the same
/// salt as it would for a user that exists. It does not depend on the catalog.
#[must_use]
pub fn claimed<'a>(claims: &Claims<'a>, naming: Naming<'_>) -> (String, &'a str) {
    let enabled = |source: TenantSource| naming.sources.contains(&source);
    let suffix = claims.user.rsplit_once('.').filter(|_| enabled(TenantSource::UserSuffix));
    let explicit = |source: &&TenantSource| matches!(source, TenantSource::Option | TenantSource::Sni);
    let mut explicit =
        naming.sources.iter().filter(explicit).filter_map(|source| claims.named_by(*source, naming));
    if let Some(tenant) = explicit.next() {
        let user = suffix.filter(|(_, suffix)| *suffix == tenant).map_or(claims.user, |(user, _)| user);
        return (tenant, user);
    }
    if let Some((user, suffix)) = suffix {
        return (suffix.to_owned(), user);
    }
    // The user name comes before the database, which an attacker can vary at will without changing who it would be.
    let by_user = enabled(TenantSource::User).then_some(claims.user);
    let by_database = || claims.database.filter(|_| enabled(TenantSource::Database));
    (by_user.or_else(by_database).unwrap_or_default().to_owned(), claims.user)
}

impl Claims<'_> {
    /// What a source says, whether or not there is such a tenant.
    fn named_by(&self, source: TenantSource, naming: Naming<'_>) -> Option<String> {
        match source {
            TenantSource::Sni => {
                let server_name = self.server_name?.to_ascii_lowercase();
                let (label, domain) = server_name.split_once('.')?;
                (Some(domain) == naming.sni_domain).then(|| label.to_owned())
            }
            TenantSource::Option => self.option.map(str::to_owned),
            TenantSource::UserSuffix => self.user.rsplit_once('.').map(|(_, suffix)| suffix.to_owned()),
            TenantSource::User => Some(self.user.to_owned()),
            TenantSource::Database => self.database.map(str::to_owned),
        }
    }

    /// The tenant's user of that name: without the suffix if the suffix names the tenant, else as sent.
    fn user_of<'t>(&self, tenant: &'t Tenant, naming: Naming<'_>) -> Option<&'t User> {
        let suffixed =
            self.user.rsplit_once('.').filter(|_| naming.sources.contains(&TenantSource::UserSuffix));
        suffixed
            .filter(|(_, suffix)| *suffix == &*tenant.name)
            .and_then(|(user, _)| tenant.user(user))
            .or_else(|| tenant.user(self.user))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::auth::fixtures::catalog;

    const ALL: [TenantSource; 5] = [
        TenantSource::Sni,
        TenantSource::Option,
        TenantSource::UserSuffix,
        TenantSource::User,
        TenantSource::Database,
    ];

    fn naming(sources: &[TenantSource]) -> Naming<'_> {
        Naming { sources, sni_domain: Some("db.example.com") }
    }

    fn two() -> Catalog {
        catalog(&[("acme", &["acme", "reader", "odd.acme"]), ("beta", &["beta", "reader"])])
    }

    fn user(user: &str) -> Claims<'_> {
        Claims { user, ..Claims::default() }
    }

    fn found(claims: Claims<'_>, sources: &[TenantSource]) -> Result<String, Refusal> {
        resolve(&claims, naming(sources), &two()).map(|identity| format!("{identity:?}"))
    }

    fn is(who: &str) -> Result<String, Refusal> {
        Ok(format!("Identity({who})"))
    }

    #[test]
    fn each_source_alone_names_the_tenant() {
        assert_eq!(found(user("acme"), &ALL), is("acme of acme"));
        assert_eq!(found(user("reader.beta"), &ALL), is("reader of beta"));
        assert_eq!(found(Claims { option: Some("beta"), ..user("reader") }, &ALL), is("reader of beta"));
        assert_eq!(found(Claims { database: Some("beta"), ..user("reader") }, &ALL), is("reader of beta"));
        let sni = Claims { server_name: Some("ACME.db.example.com"), ..user("reader") };
        assert_eq!(found(sni, &ALL), is("reader of acme"));
    }

    #[test]
    fn a_source_that_is_switched_off_is_not_asked() {
        let others = |off| ALL.into_iter().filter(|source| *source != off).collect::<Vec<_>>();
        for (claims, source) in [
            (user("acme"), TenantSource::User),
            (user("reader.beta"), TenantSource::UserSuffix),
            (Claims { option: Some("beta"), ..user("reader") }, TenantSource::Option),
            (Claims { database: Some("beta"), ..user("reader") }, TenantSource::Database),
            (Claims { server_name: Some("acme.db.example.com"), ..user("reader") }, TenantSource::Sni),
        ] {
            assert!(found(claims, &ALL).is_ok());
            assert_eq!(found(claims, &others(source)), Err(Refusal::NoTenantNamed), "{source:?}");
        }
    }

    #[test]
    fn sources_that_disagree_are_an_error() {
        for claims in [
            Claims { option: Some("beta"), ..user("acme") },
            Claims { option: Some("beta"), ..user("reader.acme") },
            Claims { server_name: Some("beta.db.example.com"), ..user("reader.acme") },
            Claims { server_name: Some("beta.db.example.com"), option: Some("acme"), ..user("reader") },
        ] {
            assert_eq!(found(claims, &ALL), Err(Refusal::SourcesDisagree), "{claims:?}");
        }
    }

    #[test]
    fn sources_that_agree_are_fine() {
        let claims = Claims {
            server_name: Some("acme.db.example.com"),
            option: Some("acme"),
            database: Some("acme"),
            ..user("reader.acme")
        };
        assert_eq!(found(claims, &ALL), is("reader of acme"));
    }

    #[test]
    fn a_database_named_like_another_tenant_is_left_to_the_database_check() {
        assert_eq!(found(Claims { database: Some("beta"), ..user("acme") }, &ALL), is("acme of acme"));
        let database_first = [TenantSource::Database, TenantSource::User];
        let claims = Claims { database: Some("beta"), ..user("acme") };
        assert_eq!(found(claims, &database_first), Err(Refusal::SourcesDisagree));
    }

    #[test]
    fn names_that_need_not_be_tenants_are_silent_if_they_are_none() {
        let claims = Claims { server_name: Some("db.example.com"), database: Some("app"), ..user("acme") };
        assert_eq!(found(claims, &ALL), is("acme of acme"));
        assert_eq!(
            found(Claims { server_name: Some("beta"), ..user("acme") }, &ALL),
            is("acme of acme"),
            "no label"
        );
        assert_eq!(found(Claims { option: Some("acme"), ..user("odd.acme") }, &ALL), is("odd.acme of acme"));
    }

    #[test]
    fn unknown_names_are_refused_each_for_its_reason() {
        assert_eq!(found(user("nobody"), &ALL), Err(Refusal::NoTenantNamed));
        assert_eq!(found(user("x.acme"), &ALL), Err(Refusal::UnknownUser));
        assert_eq!(found(Claims { option: Some("nope"), ..user("acme") }, &ALL), Err(Refusal::UnknownTenant));
        assert_eq!(found(Claims { option: Some(""), ..user("acme") }, &ALL), Err(Refusal::UnknownTenant));
        let sni = Claims { server_name: Some("nope.db.example.com"), ..user("acme") };
        assert_eq!(
            found(sni, &ALL),
            Err(Refusal::UnknownTenant),
            "a tenant's own address is meant seriously"
        );
        assert_eq!(found(user("acme"), &[]), Err(Refusal::NoTenantNamed));
    }

    #[test]
    fn one_user_has_one_claimed_name_however_it_is_spelt() {
        let spelt = [
            Claims { option: Some("acme"), ..user("reader") },
            Claims { option: Some("acme"), ..user("reader.acme") },
            user("reader.acme"),
            Claims { database: Some("x"), server_name: Some("y.example.com"), ..user("reader.acme") },
        ];
        for claims in spelt {
            assert_eq!(claimed(&claims, naming(&ALL)), ("acme".to_owned(), "reader"), "{claims:?}");
        }
        let by_user = Claims { database: Some("x"), server_name: Some("y.example.com"), ..user("acme") };
        assert_eq!(claimed(&by_user, naming(&ALL)), ("acme".to_owned(), "acme"));
        let by_database = [TenantSource::Database];
        assert_eq!(claimed(&by_user, naming(&by_database)), ("x".to_owned(), "acme"));
    }

    proptest! {
        #[test]
        fn whoever_is_found_was_named_by_an_enabled_source(
            user in "acme|beta|reader|reader\\.acme|reader\\.beta|x\\.y|\\.|", option in prop::option::of("acme|beta|x|"),
            database in prop::option::of("acme|beta|app"),
            server_name in prop::option::of("((acme|beta|x)\\.)?db\\.example\\.com|acme"),
            sources in prop::sample::subsequence(&ALL[..], 0..=5).prop_shuffle(),
        ) {
            let claims = Claims {
                server_name: server_name.as_deref(), option: option.as_deref(), user: &user, database: database.as_deref(),
            };
            if let Ok(identity) = resolve(&claims, naming(&sources), &two()) {
                let named: Vec<_> = sources.iter().filter_map(|source| claims.named_by(*source, naming(&sources))).collect();
                prop_assert!(named.iter().any(|name| name == identity.tenant_name()));
                if let Some(option) = option.as_deref().filter(|_| sources.contains(&TenantSource::Option)) {
                    prop_assert_eq!(option, identity.tenant_name());
                }
            }
            let _ = claimed(&claims, naming(&sources));
        }
    }
}
