//! One function per parser that hostile clients reach: arbitrary bytes in, no panic, and the promises of the parser kept.
//!
//! Owns the targets. They are called by `tests/fuzz_targets.rs` (a few thousand inputs with every test run) and by
//! cargo-fuzz (`tests/fuzz/cargo`, for hours).

use std::num::NonZeroU32;

use tenantry::auth::bearer;
use tenantry::auth::refusal::Refusal;
use tenantry::auth::resolve::{Claims, Naming, claimed, resolve};
use tenantry::auth::scram_server::{Exchange, MockSecret, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramError};
use tenantry::auth::verifier::{Verifier, normalize};
use tenantry::config::settings::TenantSource;
use tenantry::tenant::Catalog;
use tenantry::tenant::issuer::{Algorithm, Issuer, KeySet, TokenAs};
use tenantry::wire::frame::{HEADER_BYTES, MAX_BODY_BYTES, peek};
use tenantry::wire::messages::{
    Authentication, parse_authentication, parse_backend_key_data, parse_error_fields,
    parse_negotiate_protocol_version, parse_parameter_status, parse_sasl_initial, split_message,
};
use tenantry::wire::options::{parse_options, put_option};
use tenantry::wire::proxy_header;
use tenantry::wire::startup::{FirstMessage, StartupLimits, parse_first, put_startup};

/// A function of this file.
pub(crate) struct Target {
    /// Its name without `fuzz_`.
    pub(crate) name: &'static str,
    /// The function.
    pub(crate) run: fn(&[u8]),
}

/// All targets.
pub(crate) const TARGETS: &[Target] = &[
    Target { name: "startup", run: fuzz_startup },
    Target { name: "proxy_header", run: fuzz_proxy_header },
    Target { name: "frames", run: fuzz_frames },
    Target { name: "messages", run: fuzz_messages },
    Target { name: "options", run: fuzz_options },
    Target { name: "scram", run: fuzz_scram },
    Target { name: "verifier", run: fuzz_verifier },
    Target { name: "token", run: fuzz_token },
    Target { name: "login", run: fuzz_login },
];

/// The first packet: a verdict never changes when more bytes come, and what is read can be written again.
pub(crate) fn fuzz_startup(data: &[u8]) {
    let limits = StartupLimits::default();
    let verdict = parse_first(data, limits);
    match &verdict {
        Ok(Some((message, consumed))) => {
            assert!(*consumed <= data.len(), "no more is consumed than there is");
            let exactly = data.get(..*consumed).unwrap_or_default();
            assert_eq!(parse_first(exactly, limits), verdict, "what follows a packet does not matter");
            let short = exactly.get(..consumed.saturating_sub(1)).unwrap_or_default();
            assert_eq!(parse_first(short, limits), Ok(None), "no packet is read before its last byte");
            if let FirstMessage::Startup(packet) = message
                && packet.unknown_options.is_empty()
            {
                let parameters: Vec<_> =
                    packet.parameters.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                let mut again = Vec::new();
                put_startup(&mut again, packet.protocol, &parameters);
                assert_eq!(again, exactly, "a packet is written as it was read");
            }
        }
        Ok(None) => assert!(data.len() < limits.packet_bytes_max + 4, "a packet has a limit"),
        Err(error) => {
            let longer = [data, b"more"].concat();
            assert_eq!(parse_first(&longer, limits).as_ref(), Err(error), "an error stays one");
        }
    }
}

/// PROXY protocol headers: nothing is taken that follows one, and a verdict never changes when more bytes come.
pub(crate) fn fuzz_proxy_header(data: &[u8]) {
    match proxy_header::parse(data) {
        Ok(Some((origin, consumed))) => {
            let exactly = data.get(..consumed).unwrap_or_default();
            assert_eq!(exactly.len(), consumed, "no more is consumed than there is");
            assert_eq!(
                proxy_header::parse(exactly),
                Ok(Some((origin, consumed))),
                "what follows does not matter"
            );
            let short = exactly.get(..consumed.saturating_sub(1)).unwrap_or_default();
            assert_eq!(proxy_header::parse(short), Ok(None), "no header is read before its last byte");
        }
        Ok(None) => assert!(data.len() < proxy_header::BODY_BYTES_MAX + 16, "a header has a limit"),
        Err(error) => {
            let longer = [data, b"more"].concat();
            assert_eq!(proxy_header::parse(&longer), Err(error), "an error stays one");
        }
    }
}

/// Frame headers: a walk over the bytes ends, and finds the same frames however the bytes are cut.
pub(crate) fn fuzz_frames(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some(header)) = peek(rest) {
        let start = rest.get(..HEADER_BYTES).unwrap_or_default();
        assert_eq!(peek(start), Ok(Some(header)), "five bytes are enough");
        assert_eq!(peek(start.get(..HEADER_BYTES - 1).unwrap_or_default()), Ok(None), "fewer are not");
        assert!(header.body_len <= MAX_BODY_BYTES && header.total_len() == header.body_len + HEADER_BYTES);
        match (rest.get(header.total_len()..), split_message(rest, MAX_BODY_BYTES)) {
            (Some(after), Ok(Some(message))) => {
                assert_eq!((message.tag, message.body.len()), (header.tag, header.body_len));
                rest = after;
            }
            (None, Ok(None)) => return,
            other => panic!("two readers disagree: {other:?}"),
        }
    }
}

/// Tagged messages and the bodies that logins read, of clients and of servers.
pub(crate) fn fuzz_messages(data: &[u8]) {
    const BODY_MAX: usize = 1024;
    match split_message(data, BODY_MAX) {
        Ok(Some(message)) => {
            assert!(message.consumed <= data.len() && message.body.len() <= BODY_MAX);
            assert_eq!(message.consumed, message.body.len() + 5);
        }
        Ok(None) => assert!(data.len() < BODY_MAX + 5, "a message has a limit"),
        Err(_) => {}
    }
    if let Ok(initial) = parse_sasl_initial(data) {
        assert!(initial.mechanism.len() + initial.data.map_or(0, <[u8]>::len) + 5 == data.len());
    }
    if let Ok(Authentication::Sasl(mechanisms)) = parse_authentication(data) {
        assert!(mechanisms.count() <= data.len());
    }
    if let Ok((_, secret)) = parse_backend_key_data(data) {
        assert!((4..=256).contains(&secret.len()));
    }
    if let Ok((version, options)) = parse_negotiate_protocol_version(data) {
        assert!(version.major == 3 && options <= data.len());
    }
    let _ = parse_parameter_status(data);
    assert!(parse_error_fields(data).count() <= data.len());
}

/// The startup parameter `options`: what is read is read again after it was written by us.
pub(crate) fn fuzz_options(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(settings) = parse_options(text) {
        let mut again = String::new();
        for (name, value) in &settings {
            put_option(&mut again, name, value);
        }
        assert_eq!(parse_options(&again), Ok(settings));
    }
}

/// SCRAM messages, two of them separated by a zero byte: nobody proves anything without the password.
pub(crate) fn fuzz_scram(data: &[u8]) {
    let (first, last) = split(data);
    let iterations = NonZeroU32::MIN;
    for (mechanism, end_point) in
        [(SCRAM_SHA_256, None), (SCRAM_SHA_256, Some(vec![1])), (SCRAM_SHA_256_PLUS, Some(vec![1]))]
    {
        let mock = MockSecret::new([0; 32]);
        let exchange = Exchange::new(Err(Refusal::UnknownUser), ("t", "u"), &mock, end_point);
        if let Ok((challenge, server_first)) = exchange.begin(mechanism.as_bytes(), first, "nonce") {
            assert!(server_first.starts_with("r="));
            let refused = challenge.finish(last).map(|_| ());
            assert!(refused.is_err(), "a proof of nothing");
            if let Err(error) = refused {
                assert!(!error.to_client("u").message.is_empty());
                assert!(error != ScramError::Refused(Refusal::WrongPassword), "nobody is there");
            }
        }
    }
    let _ = Verifier::from_password(&String::from_utf8_lossy(first), b"salt", iterations);
}

/// Stored verifiers and passwords.
pub(crate) fn fuzz_verifier(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(verifier) = Verifier::parse(text) {
        assert_eq!(Verifier::parse(&verifier.to_string()).as_ref(), Ok(&verifier));
    }
    let _ = normalize(text);
}

/// OAUTHBEARER messages and tokens: nobody proves anything without the issuer's key.
pub(crate) fn fuzz_token(data: &[u8]) {
    let algorithms = [Algorithm::EdDSA];
    let issuer = Issuer {
        name: "i".into(),
        audiences: vec!["a".into()],
        scopes: Vec::new(),
        algorithms: algorithms.to_vec(),
        keys: KeySet::parse(JWKS, &algorithms).unwrap_or_default(),
        tenant_claim: "t".into(),
        user_claim: "u".into(),
        leeway_s: 0,
        token_as: TokenAs::OauthBearer,
        ends_sessions: false,
    };
    let token = bearer::parse_initial(data).ok().flatten();
    for token in [token, std::str::from_utf8(data).ok()].into_iter().flatten() {
        let proved = bearer::prove(Err(Refusal::UnknownUser), &issuer, token, 0);
        assert!(matches!(proved, Err(Refusal::UnknownUser)), "nobody is there");
    }
    let _ = KeySet::parse(&String::from_utf8_lossy(data), &algorithms);
}

/// The public key of RFC 8037, A.2.
const JWKS: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// A whole login's decisions before the password: packet, options, resolution.
pub(crate) fn fuzz_login(data: &[u8]) {
    let (server_name, packet) = split(data);
    let Ok(Some((FirstMessage::Startup(packet), _))) = parse_first(packet, StartupLimits::default()) else {
        return;
    };
    let options = packet.parameter("options").map(parse_options).and_then(Result::ok).unwrap_or_default();
    let claims = Claims {
        server_name: std::str::from_utf8(server_name).ok(),
        option: options.iter().find(|(name, _)| name == "tenantry.tenant").map(|(_, value)| value.as_str()),
        user: packet.parameter("user").unwrap_or_default(),
        database: packet.parameter("database"),
    };
    let sources = [
        TenantSource::Sni,
        TenantSource::Option,
        TenantSource::UserSuffix,
        TenantSource::User,
        TenantSource::Database,
    ];
    let naming = Naming { sources: &sources, sni_domain: Some("db.test") };
    assert!(resolve(&claims, naming, &Catalog::default()).is_err(), "nobody is there");
    let (tenant, user) = claimed(&claims, naming);
    assert_eq!(claimed(&claims, naming), (tenant, user));
}

/// Two inputs out of one.
fn split(data: &[u8]) -> (&[u8], &[u8]) {
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (first, rest) = data.split_at(end);
    (first, rest.get(1..).unwrap_or_default())
}
