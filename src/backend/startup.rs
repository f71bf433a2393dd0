//! The startup packet of a server login.
//!
//! Owns which parameters are sent and how. Settings that Postgres reports travel as parameters of their own, the others
//! in `options`; the proxy's fixed ones come last, where Postgres takes the last of a name. Must not know sockets.

use std::sync::Arc;

use crate::tenant::Replication;
use crate::wire::options::put_option;
use crate::wire::startup::{ProtocolVersion, put_startup};

/// Why no startup packet can be made. The texts name no value: they reach clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartupRefusal {
    /// A C string cannot hold it.
    #[error("a name or setting of the login is empty or contains a NUL byte")]
    Nul,
    /// Longer than Postgres accepts.
    #[error("the settings of the login exceed the 10,000 bytes of a startup packet")]
    TooLong,
}

/// What a login asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wishes<'a> {
    pub(super) role: &'a str,
    pub(super) database: &'a str,
    pub(super) search_path: Option<&'a str>,
    pub(super) settings: &'a [(Arc<str>, Arc<str>)],
    pub(super) protocol: ProtocolVersion,
    /// For a replication connection, which is one client's from its login on.
    pub(super) replication: Option<ClientWishes<'a>>,
}

/// What one client asks for. Its settings come last: in Postgres the last of a name counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientWishes<'a> {
    pub(super) replication: Replication,
    pub(super) settings: &'a [(Box<str>, Box<str>)],
}

/// Builds the packet. `search_path` wins over a setting of that name.
pub(super) fn packet(wishes: &Wishes<'_>) -> Result<Vec<u8>, StartupRefusal> {
    let mut options = String::new();
    let mut parameters: Vec<(&str, &str)> = Vec::new();
    let mut put = |name, value| match REPORTED.iter().find(|reported| name_eq(reported, name)) {
        Some(reported) => parameters.push((*reported, value)),
        None => put_option(&mut options, name, value),
    };
    for (name, value) in wishes.settings {
        put(name, value);
    }
    if let Some(search_path) = wishes.search_path {
        put("search_path", search_path);
    }
    put("application_name", APPLICATION_NAME);
    put("client_encoding", "UTF8");
    let of_client = wishes.replication.map(|client| client.settings).unwrap_or_default();
    for (name, value) in of_client {
        put(name, value);
    }
    parameters.push(("user", wishes.role));
    parameters.push(("database", wishes.database));
    if let Some(client) = wishes.replication {
        parameters.push(("replication", client.replication.as_str()));
    }
    if !options.is_empty() {
        parameters.push(("options", &options));
    }
    if wishes.role.is_empty() || wishes.database.is_empty() {
        return Err(StartupRefusal::Nul);
    }
    let nameless = wishes.settings.iter().any(|(name, _)| name.is_empty())
        || of_client.iter().any(|(name, _)| name.is_empty());
    if nameless || parameters.iter().any(|(_, value)| value.contains('\0')) {
        return Err(StartupRefusal::Nul);
    }
    let mut out = Vec::new();
    put_startup(&mut out, wishes.protocol, &parameters);
    if out.len() > PACKET_BYTES_MAX { Err(StartupRefusal::TooLong) } else { Ok(out) }
}

fn name_eq(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// How the proxy's servers are told from others in `pg_stat_activity`.
const APPLICATION_NAME: &str = "tenantry";

/// `MAX_STARTUP_PACKET_LENGTH` of Postgres.
const PACKET_BYTES_MAX: usize = 10_000;

/// Settings that go into the packet under their own names.
const REPORTED: [&str; 6] = [
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "standard_conforming_strings",
    "application_name",
    "client_encoding",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::options::parse_options;
    use crate::wire::startup::{FirstMessage, StartupLimits, StartupPacket, parse_first};

    fn settings(pairs: &[(&str, &str)]) -> Vec<(Arc<str>, Arc<str>)> {
        pairs.iter().map(|(name, value)| (Arc::from(*name), Arc::from(*value))).collect()
    }

    fn wishes<'a>(settings: &'a [(Arc<str>, Arc<str>)], search_path: &'a str) -> Wishes<'a> {
        let protocol = ProtocolVersion { major: 3, minor: 2 };
        let (role, database, replication) = ("acme", "app", None);
        Wishes { role, database, search_path: Some(search_path), settings, protocol, replication }
    }

    fn read_back(packet: &[u8]) -> StartupPacket {
        let limits = StartupLimits { packet_bytes_max: 10_000, ..StartupLimits::default() };
        match parse_first(packet, limits).unwrap().unwrap().0 {
            FirstMessage::Startup(startup) => startup,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reported_settings_are_parameters_and_the_others_options() {
        let settings =
            settings(&[("timezone", "Europe/Zurich"), ("statement_timeout", "30s"), ("search_path", "x")]);
        let startup = read_back(&packet(&wishes(&settings, "tenant_acme, \"my schema\"")).unwrap());
        assert_eq!(startup.protocol, ProtocolVersion { major: 3, minor: 2 });
        assert_eq!(startup.parameter("user"), Some("acme"));
        assert_eq!(startup.parameter("database"), Some("app"));
        assert_eq!(startup.parameter("application_name"), Some("tenantry"));
        assert_eq!(startup.parameter("client_encoding"), Some("UTF8"));
        assert_eq!(startup.parameter("TimeZone"), Some("Europe/Zurich"));
        let options = parse_options(startup.parameter("options").unwrap()).unwrap();
        let last = options.last().unwrap();
        assert_eq!(
            (&*last.0, &*last.1),
            ("search_path", "tenant_acme, \"my schema\""),
            "the pinned path comes last"
        );
        assert_eq!(options.first().map(|pair| &*pair.1), Some("30s"));
    }

    #[test]
    fn the_fixed_parameters_come_after_the_tenants_own() {
        let settings = settings(&[("application_name", "mine"), ("CLIENT_ENCODING", "LATIN1")]);
        let startup = read_back(&packet(&wishes(&settings, "x")).unwrap());
        let last =
            |name| startup.parameters.iter().rfind(|(key, _)| key == name).map(|(_, value)| value.as_str());
        assert_eq!(last("application_name"), Some("tenantry"));
        assert_eq!(last("client_encoding"), Some("UTF8"));
    }

    #[test]
    fn what_one_client_asks_for_counts_for_its_replication_connection() {
        let tenants = settings(&[("application_name", "tenants"), ("work_mem", "1MB")]);
        let of_client = [("application_name", "standby_1"), ("work_mem", "2MB"), ("search_path", "mine")]
            .map(|(n, v)| (n.into(), v.into()));
        for (replication, value) in [(Replication::Physical, "true"), (Replication::Logical, "database")] {
            let client = Some(ClientWishes { replication, settings: &of_client });
            let startup =
                read_back(&packet(&Wishes { replication: client, ..wishes(&tenants, "acme") }).unwrap());
            let last = |name| {
                startup.parameters.iter().rfind(|(key, _)| key == name).map(|(_, value)| value.as_str())
            };
            assert_eq!(last("application_name"), Some("standby_1"));
            assert_eq!(last("client_encoding"), Some("UTF8"));
            assert_eq!(last("replication"), Some(value));
            let options = parse_options(startup.parameter("options").unwrap()).unwrap();
            let last = |name| options.iter().rfind(|(key, _)| key == name).map(|(_, value)| value.as_str());
            assert_eq!((last("work_mem"), last("search_path")), (Some("2MB"), Some("mine")));
        }
        assert_eq!(read_back(&packet(&wishes(&tenants, "x")).unwrap()).parameter("replication"), None);
    }

    #[test]
    fn what_a_packet_cannot_hold_is_refused() {
        let nul = settings(&[("a", "b\0c")]);
        assert_eq!(packet(&wishes(&nul, "x")), Err(StartupRefusal::Nul));
        assert_eq!(packet(&wishes(&[], "x\0")), Err(StartupRefusal::Nul));
        assert_eq!(packet(&Wishes { role: "", ..wishes(&[], "x") }), Err(StartupRefusal::Nul));
        assert_eq!(packet(&wishes(&[], &"x".repeat(10_000))), Err(StartupRefusal::TooLong));
    }

    proptest! {
        #[test]
        fn any_search_path_and_setting_arrives_unchanged(path in "[^\0]{0,60}", value in "[^\0]{0,60}") {
            let settings = settings(&[("statement_timeout", &value)]);
            let startup = read_back(&packet(&wishes(&settings, &path)).unwrap());
            let options = parse_options(startup.parameter("options").unwrap()).unwrap();
            prop_assert_eq!(&options[0].1, &value);
            prop_assert_eq!(&options[1].1, &path);
        }
    }
}
