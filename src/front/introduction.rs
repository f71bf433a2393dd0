//! What a startup packet says about a client: who it wants to be, and with which settings.
//!
//! Owns the meaning of the parameters that the proxy takes for itself; the others are settings, for the worker to apply
//! or refuse. Pure.

use super::failure::LoginFailure;
use crate::auth::resolve::Claims;
use crate::wire::options::parse_options;
use crate::wire::startup::StartupPacket;

/// A client that has introduced itself and proved nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Introduction {
    /// User name as sent, not empty.
    pub(super) user: String,
    /// Database name as sent, if it is there and not empty.
    pub(super) database: Option<String>,
    /// `tenantry.tenant`.
    pub(super) tenant: Option<String>,
    /// `tenantry.auth`.
    pub(super) auth: Option<AuthWish>,
    /// Everything else, each name once.
    pub(super) settings: Vec<(String, String)>,
    /// The minor protocol version to speak.
    pub(super) protocol_minor: u16,
}

/// How a client wants to prove who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AuthWish {
    /// By password, with SCRAM.
    Scram,
    /// By token, with OAUTHBEARER.
    OauthBearer,
    /// By token, which it sends as a password.
    Password,
}

impl AuthWish {
    fn parse(word: &str) -> Result<Self, LoginFailure> {
        match word {
            "scram" => Ok(Self::Scram),
            "oauthbearer" => Ok(Self::OauthBearer),
            "password" => Ok(Self::Password),
            _ => Err(LoginFailure::BadAuthWish),
        }
    }
}

impl Introduction {
    /// Reads a startup packet.
    ///
    /// # Errors
    /// If it lacks a user name, asks for replication, or contradicts itself.
    pub(super) fn read(packet: &StartupPacket) -> Result<Self, LoginFailure> {
        let user = packet.parameter("user").filter(|user| !user.is_empty()).ok_or(LoginFailure::NoUser)?;
        if packet.parameter("replication").is_some_and(|value| !is_false(value)) {
            return Err(LoginFailure::Replication);
        }
        let mut introduction = Self {
            user: user.to_owned(),
            database: packet.parameter("database").filter(|name| !name.is_empty()).map(str::to_owned),
            tenant: None,
            auth: None,
            settings: Vec::new(),
            protocol_minor: packet.protocol.minor_to_speak(),
        };
        // As in PostgreSQL, parameters of the packet override those within `options`.
        let options = packet.parameter("options").map(parse_options).transpose()?.unwrap_or_default();
        for (name, value) in options.into_iter().chain(packet.parameters.iter().cloned()) {
            introduction.add(name, value)?;
        }
        Ok(introduction)
    }

    /// What the tenant is found by.
    pub(super) fn claims<'a>(&'a self, server_name: Option<&'a str>) -> Claims<'a> {
        Claims {
            server_name,
            option: self.tenant.as_deref(),
            user: &self.user,
            database: self.database.as_deref(),
        }
    }

    /// The database asked for, if it says more than the user name does: PostgreSQL takes the user's name for an absent
    /// database, and libpq sends it so. Who asks for none gets the tenant's own.
    pub(super) fn wanted_database(&self) -> Option<&str> {
        self.database.as_deref().filter(|name| *name != self.user)
    }

    fn add(&mut self, name: String, value: String) -> Result<(), LoginFailure> {
        if matches!(&*name, "user" | "database" | "options" | "replication") {
            return Ok(());
        }
        if name.eq_ignore_ascii_case(TENANT) {
            if self.tenant.as_ref().is_some_and(|tenant| *tenant != value) {
                return Err(LoginFailure::TwoTenants);
            }
            self.tenant = Some(value);
            return Ok(());
        }
        if name.eq_ignore_ascii_case(AUTH) {
            let wish = AuthWish::parse(&value)?;
            if self.auth.is_some_and(|known| known != wish) {
                return Err(LoginFailure::BadAuthWish);
            }
            self.auth = Some(wish);
            return Ok(());
        }
        self.settings.retain(|(known, _)| !known.eq_ignore_ascii_case(&name));
        self.settings.push((name, value));
        Ok(())
    }
}

/// The words for "no" that PostgreSQL accepts; `replication` may also be `database`.
fn is_false(value: &str) -> bool {
    ["false", "off", "no", "0"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

const TENANT: &str = "tenantry.tenant";
const AUTH: &str = "tenantry.auth";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::startup::ProtocolVersion;

    fn read(parameters: &[(&str, &str)]) -> Result<Introduction, LoginFailure> {
        let parameters =
            parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let protocol = ProtocolVersion { major: 3, minor: 2 };
        Introduction::read(&StartupPacket { protocol, parameters, unknown_options: vec![] })
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_proxys_own_parameters_are_consumed_and_the_rest_are_settings() {
        let introduction = read(&[
            ("user", "acme"),
            ("database", "app"),
            ("application_name", "shop"),
            ("options", "-c tenantry.tenant=acme --statement-timeout=5s"),
            ("replication", "false"),
        ])
        .unwrap();
        assert_eq!(introduction.user, "acme");
        assert_eq!(introduction.database.as_deref(), Some("app"));
        assert_eq!(introduction.tenant.as_deref(), Some("acme"));
        assert_eq!(
            introduction.settings,
            pairs(&[("statement_timeout", "5s"), ("application_name", "shop")])
        );
        assert_eq!(introduction.protocol_minor, 2);
    }

    #[test]
    fn a_setting_comes_once_with_the_value_that_counts() {
        let introduction = read(&[
            ("user", "a"),
            ("DateStyle", "ISO"),
            ("datestyle", "German"),
            ("options", "-c work_mem=1 -c datestyle=SQL -c work_mem=2"),
        ]);
        assert_eq!(introduction.unwrap().settings, pairs(&[("work_mem", "2"), ("datestyle", "German")]));
    }

    #[test]
    fn a_database_named_like_the_user_is_no_wish() {
        for (database, wanted) in [("", None), ("acme", None), ("app", Some("app"))] {
            let introduction = read(&[("user", "acme"), ("database", database)]).unwrap();
            assert_eq!(introduction.wanted_database(), wanted);
        }
    }

    #[test]
    fn a_wish_for_a_way_to_log_in_is_consumed() {
        for (word, wish) in [
            ("scram", AuthWish::Scram),
            ("oauthbearer", AuthWish::OauthBearer),
            ("password", AuthWish::Password),
        ] {
            let options = format!("-c tenantry.auth={word}");
            let introduction =
                read(&[("user", "a"), ("options", &options), ("Tenantry.Auth", word)]).unwrap();
            assert_eq!((introduction.auth, introduction.settings), (Some(wish), vec![]));
        }
        assert_eq!(read(&[("user", "a")]).unwrap().auth, None);
        let twice = [("user", "a"), ("options", "-c tenantry.auth=scram"), ("tenantry.auth", "password")];
        assert!(matches!(read(&twice), Err(LoginFailure::BadAuthWish)));
        assert!(matches!(read(&[("user", "a"), ("tenantry.auth", "md5")]), Err(LoginFailure::BadAuthWish)));
    }

    #[test]
    fn what_cannot_be_accepted_is_refused() {
        assert!(matches!(read(&[("database", "app")]), Err(LoginFailure::NoUser)));
        assert!(matches!(read(&[("user", "")]), Err(LoginFailure::NoUser)));
        for value in ["true", "database", "on", "1", "maybe"] {
            assert!(matches!(read(&[("user", "a"), ("replication", value)]), Err(LoginFailure::Replication)));
        }
        assert!(matches!(read(&[("user", "a"), ("options", "-d 5")]), Err(LoginFailure::Options(_))));
        let twice = [("user", "a"), ("Tenantry.Tenant", "x"), ("options", "-c tenantry.tenant=y")];
        assert!(matches!(read(&twice), Err(LoginFailure::TwoTenants)));
        let agreeing = [("user", "a"), ("tenantry.tenant", "x"), ("options", "-c tenantry.tenant=x")];
        assert_eq!(read(&agreeing).unwrap().tenant.as_deref(), Some("x"));
    }
}
