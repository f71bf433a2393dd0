//! Every fuzz target with a few thousand inputs, so that it cannot rot between fuzzing runs.
//!
//! Method: random bytes, and valid messages with random damage, which get deeper.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test expects by failing")]

#[path = "fuzz/targets.rs"]
mod targets;

use proptest::prelude::*;
use targets::TARGETS;
use tenantry::wire::messages::{put_authentication_sasl, put_parameter_status, put_sasl_initial_response};
use tenantry::wire::startup::{ProtocolVersion, put_cancel_request, put_ssl_request, put_startup};

/// Messages as real clients and servers send them.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![Vec::new(); 6];
    let [startup, ssl, cancel, sasl, offer, status] = seeds.get_disjoint_mut([0, 1, 2, 3, 4, 5]).unwrap();
    let parameters =
        [("user", "reader.acme"), ("database", "app"), ("options", "-c tenantry.tenant=acme --a-b=c\\ d")];
    put_startup(startup, ProtocolVersion { major: 3, minor: 2 }, &parameters);
    put_ssl_request(ssl);
    put_cancel_request(cancel, 7, &[1; 32]);
    put_sasl_initial_response(sasl, "SCRAM-SHA-256", b"n,,n=,r=abcdef");
    put_authentication_sasl(offer, &["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]);
    put_parameter_status(status, "client_encoding", "UTF8");
    let with_name = [b"acme.db.test\0", seeds[0].as_slice()].concat();
    let texts: [&[u8]; 8] = [
        b"n,,\x01auth=Bearer eyJhbGciOiJFZERTQSJ9.eyJpc3MiOiJpIiwiYXVkIjoiYSIsImV4cCI6MX0.AAAA\x01\x01",
        br#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"x","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
        b"PROXY TCP4 192.0.2.1 198.51.100.7 51234 5432\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11\xc0\0\x02\x01\xc6\x33\x64\x07\xc8\x22\x15\x38\x04\0\x02\x01\x01",
        b"-c tenantry.tenant=acme --search-path=a\\ b -cx=y",
        b"n,,n=,r=abc\0c=biws,r=abcnonce,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        b"p=tls-server-end-point,,n=u,r=abc\0c=cD10bHMtc2VydmVyLWVuZC1wb2ludCwsAQ==,r=abcnonce,\
            p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        b"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
            wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
    ];
    seeds.extend(texts.map(<[u8]>::to_vec));
    seeds.push(with_name);
    seeds
}

/// Changes bytes, cuts, and repeats.
fn damage(mut bytes: Vec<u8>, changes: &[(usize, u8)], cut: usize, twice: bool) -> Vec<u8> {
    for (at, value) in changes {
        let length = bytes.len();
        if let Some(byte) = bytes.get_mut(at % length.max(1)) {
            *byte = *value;
        }
    }
    bytes.truncate(bytes.len().saturating_sub(cut));
    if twice {
        bytes.extend_from_within(..);
    }
    bytes
}

fn run_all(data: &[u8]) {
    for target in TARGETS {
        (target.run)(data);
    }
}

#[test]
fn every_seed_passes_every_target() {
    seeds().iter().for_each(|seed| run_all(seed));
}

#[test]
fn every_target_is_known_to_cargo_fuzz() {
    let manifest = include_str!("fuzz/cargo/Cargo.toml");
    for target in TARGETS {
        assert!(manifest.contains(&format!("name = \"{}\"", target.name)), "{}", target.name);
    }
    assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
}

#[test]
fn targets_have_names_of_their_own() {
    let mut names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), TARGETS.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn random_bytes_break_nothing(data in prop::collection::vec(any::<u8>(), 0..300)) {
        run_all(&data);
    }

    #[test]
    fn damaged_messages_break_nothing(
        seed in prop::sample::select(seeds()),
        changes in prop::collection::vec((any::<usize>(), any::<u8>()), 0..6),
        cut in prop_oneof![3 => Just(0_usize), 1 => 0_usize..40], twice: bool,
    ) {
        run_all(&damage(seed, &changes, cut, twice));
    }
}
