//! What a startup packet says about a client: who it wants to be, and with which settings.
//!
//! Owns the meaning of the parameters that the proxy takes for itself; the others are settings, for the worker to apply
//! or refuse. Pure.

use super::failure::LoginFailure;
use crate::auth::resolve::Claims;
use crate::tenant::{REPLICA_SUFFIX, Replication, Target};
use crate::wire::options::parse_options;
use crate::wire::startup::StartupPacket;

/// A client that has introduced itself and proved nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Introduction {
    /// User name as sent, not empty, without the wish for a replica.
    pub(super) user: String,
    /// Database name as sent, if it is there and not empty.
    pub(super) database: Option<String>,
    /// `tenantry.tenant`.
    pub(super) tenant: Option<String>,
    /// `tenantry.auth`.
    pub(super) auth: Option<AuthWish>,
    /// `tenantry.target`, or a user name that asks for a replica.
    pub(super) target: Option<Target>,
    /// `replication`, unless it says no.
    pub(super) replication: Option<Replication>,
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
    /// If it lacks a user name, or contradicts itself.
    pub(super) fn read(packet: &StartupPacket) -> Result<Self, LoginFailure> {
        let user = packet.parameter("user").filter(|user| !user.is_empty()).ok_or(LoginFailure::NoUser)?;
        let database = packet.parameter("database").filter(|name| !name.is_empty());
        let who = user.strip_suffix(REPLICA_SUFFIX).filter(|who| !who.is_empty());
        let mut introduction = Self {
            user: who.unwrap_or(user).to_owned(),
            // libpq sends the user's name for an absent database.
            database: database.filter(|name| who.is_none() || *name != user).map(str::to_owned),
            tenant: None,
            auth: None,
            target: who.map(|_| Target::Replica),
            replication: replication(packet.parameter("replication"))?,
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
        Claims { server_name, option: self.tenant.as_deref(), user: &self.user, database: self.database() }
    }

    /// The database asked for, if it says more than the user name does: PostgreSQL takes the user's name for an absent
    /// database, and libpq sends it so. Who asks for none gets the tenant's own.
    pub(super) fn wanted_database(&self) -> Option<&str> {
        self.database().filter(|name| *name != self.user)
    }

    /// The database asked for. Physical replication has none: what is sent for it (`replication`, by pg_basebackup) is
    /// nobody's name.
    fn database(&self) -> Option<&str> {
        self.database.as_deref().filter(|_| self.replication != Some(Replication::Physical))
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
        if name.eq_ignore_ascii_case(TARGET) {
            let wish = Target::parse(&value).ok_or(LoginFailure::BadTarget)?;
            if self.target.is_some_and(|known| known != wish) {
                return Err(LoginFailure::BadTarget);
            }
            self.target = Some(wish);
            return Ok(());
        }
        self.settings.retain(|(known, _)| !known.eq_ignore_ascii_case(&name));
        self.settings.push((name, value));
        Ok(())
    }
}

/// What PostgreSQL makes of the parameter: `database`, or a boolean, which may be abbreviated.
fn replication(value: Option<&str>) -> Result<Option<Replication>, LoginFailure> {
    let Some(value) = value else { return Ok(None) };
    if value == "database" {
        return Ok(Some(Replication::Logical));
    }
    let value = value.to_ascii_lowercase();
    let is = |word: &str, letters: usize| value.len() >= letters && word.starts_with(&value);
    if is("true", 1) || is("yes", 1) || is("on", 2) || value == "1" {
        Ok(Some(Replication::Physical))
    } else if is("false", 1) || is("no", 1) || is("off", 2) || value == "0" {
        Ok(None)
    } else {
        Err(LoginFailure::BadReplication)
    }
}

const TENANT: &str = "tenantry.tenant";
const AUTH: &str = "tenantry.auth";
const TARGET: &str = "tenantry.target";

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
    fn who_wants_a_replica_says_so_behind_the_user_name_or_as_an_option() {
        let by_name = read(&[("user", "acme+replica"), ("database", "acme+replica")]).unwrap();
        assert_eq!((&*by_name.user, by_name.wanted_database()), ("acme", None));
        let by_option = read(&[("user", "acme"), ("options", "-c tenantry.target=replica")]).unwrap();
        let neither = read(&[("user", "acme"), ("Tenantry.Target", "primary")]).unwrap();
        let targets = [by_name, by_option, neither].map(|who| (who.target, who.settings));
        let wanted = [Target::Replica, Target::Replica, Target::Primary].map(|target| (Some(target), vec![]));
        assert_eq!(targets, wanted);
        assert_eq!(read(&[("user", "+replica")]).unwrap().user, "+replica");
        let wrong = [
            [("user", "a"), ("tenantry.target", "standby")],
            [("user", "a+replica"), ("tenantry.target", "primary")],
        ];
        for packet in wrong {
            assert!(matches!(read(&packet), Err(LoginFailure::BadTarget)));
        }
    }

    #[test]
    fn replication_is_read_as_postgres_reads_it() {
        let words = [
            (&["database"][..], Some(Replication::Logical)),
            (&["true", "t", "TRUE", "yes", "y", "on", "1"], Some(Replication::Physical)),
            (&["false", "f", "no", "n", "off", "of", "0"], None),
        ];
        for (words, wanted) in words {
            for word in words {
                let read =
                    read(&[("user", "a"), ("database", "replication"), ("replication", word)]).unwrap();
                assert_eq!(read.replication, wanted, "{word}");
                let database = (wanted != Some(Replication::Physical)).then_some("replication");
                assert_eq!(
                    (read.wanted_database(), read.claims(None).database),
                    (database, database),
                    "{word}"
                );
            }
        }
    }

    #[test]
    fn what_cannot_be_accepted_is_refused() {
        assert!(matches!(read(&[("database", "app")]), Err(LoginFailure::NoUser)));
        assert!(matches!(read(&[("user", "")]), Err(LoginFailure::NoUser)));
        for value in ["maybe", "o", "", "truely", "databases"] {
            let read = read(&[("user", "a"), ("replication", value)]);
            assert!(matches!(read, Err(LoginFailure::BadReplication)), "{value}");
        }
        assert!(matches!(read(&[("user", "a"), ("options", "-d 5")]), Err(LoginFailure::Options(_))));
        let twice = [("user", "a"), ("Tenantry.Tenant", "x"), ("options", "-c tenantry.tenant=y")];
        assert!(matches!(read(&twice), Err(LoginFailure::TwoTenants)));
        let agreeing = [("user", "a"), ("tenantry.tenant", "x"), ("options", "-c tenantry.tenant=x")];
        assert_eq!(read(&agreeing).unwrap().tenant.as_deref(), Some("x"));
    }
}
