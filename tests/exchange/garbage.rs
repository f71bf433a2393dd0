//! Bytes that nobody should send, from either side: an error at worst, never a panic, and never more in memory than was
//! sent.

use proptest::prelude::*;
use tenantry::ids::ClientId;
use tenantry::track::{
    ClientState, Exchange, ServerState, Settings, Sink, StatementCache, is_worth_a_lease, skip_request,
    skip_to_sync, unleased_bytes,
};
use tenantry::wire::frame;

/// What one side sends.
#[derive(Clone, Debug)]
enum Said {
    Client(Vec<u8>),
    Server(Vec<u8>),
    /// The client has another server.
    Moves,
}

/// Messages of the right shape with bodies that may make sense.
fn messages(tags: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
    let bodies = prop_oneof![
        Just(b"".to_vec()),
        Just(b"I".to_vec()),
        Just(b"E".to_vec()),
        Just(b"s\0SELECT 1\0\0\0".to_vec()),
        Just(b"\0SELECT 1\0\0\0".to_vec()),
        Just(b"\0DISCARD ALL\0\0\0".to_vec()),
        Just(b"\0s\0\0\0\0\0\0\0".to_vec()),
        Just(b"\0\0\0\0\0\0\0\0".to_vec()),
        Just(b"Ss\0".to_vec()),
        Just(b"S\0".to_vec()),
        Just(b"DEALLOCATE s\0".to_vec()),
        Just(b"DEALLOCATE ALL\0".to_vec()),
        Just(b"DISCARD ALL\0".to_vec()),
        Just(b"TimeZone\0UTC\0".to_vec()),
        Just(b"\0\0\0\0\0".to_vec()),
        prop::collection::vec(any::<u8>(), 0..30),
    ];
    let message = (prop::sample::select(tags), bodies).prop_map(|(tag, body)| {
        let mut out = Vec::new();
        frame::put(&mut out, tag, |out| out.extend_from_slice(&body));
        out
    });
    prop::collection::vec(message, 1..8).prop_map(|messages| messages.concat())
}

fn said() -> impl Strategy<Value = Said> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        6 => messages(b"PBDECSSHQFdcf").prop_map(Said::Client),
        6 => messages(b"123TnDCIsEZZSNAGHdctV").prop_map(Said::Server),
        1 => bytes().prop_map(Said::Client),
        1 => bytes().prop_map(Said::Server),
        1 => Just(Said::Moves),
    ]
}

/// Plays it; stops where the proxy would close one of the two.
fn play(script: &[Said], piece: usize) {
    let mut client = ClientState::new(ClientId(1), Settings::default(), 9);
    let mut server = ServerState::new(Settings::default(), 2);
    let mut cache = StatementCache::default();
    let mut exchange = Exchange::default();
    let (mut carry, mut server_carry, mut sent) = (Vec::new(), Vec::new(), 0);
    for said in script {
        match said {
            Said::Client(bytes) => {
                for bytes in bytes.chunks(piece) {
                    carry.extend_from_slice(bytes);
                    sent += bytes.len();
                    let (mut out, mut answers) = (Vec::new(), Vec::new());
                    let mut sink = Sink::new(&carry, &mut out);
                    let parties = (&mut client, &mut server, &mut cache);
                    let Ok(fed) = exchange.client_bytes(parties, &carry, &mut sink, &mut answers) else {
                        return;
                    };
                    let _ = sink.finish();
                    carry.drain(..fed.consumed);
                    assert!(exchange.outstanding() <= sent * 2, "an answer takes a message");
                }
            }
            Said::Server(bytes) => {
                for bytes in bytes.chunks(piece) {
                    server_carry.extend_from_slice(bytes);
                    let mut out = Vec::new();
                    let mut sink = Sink::new(&server_carry, &mut out);
                    let Ok(turn) = exchange.server_bytes(&mut client, &mut server, &server_carry, &mut sink)
                    else {
                        return;
                    };
                    let _ = sink.finish();
                    server_carry.drain(..turn.consumed);
                }
            }
            Said::Moves if exchange.is_over(&server) => {
                server = ServerState::new(Settings::default(), 2);
                exchange.clear();
                exchange.begin(&client, &mut server, &mut Vec::new());
            }
            Said::Moves => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_sent_is_understood_or_refused(script in prop::collection::vec(said(), 0..12), piece in 1..60_usize) {
        play(&script, piece);
    }

    #[test]
    fn bytes_without_a_server_are_understood_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = is_worth_a_lease(&bytes);
        let mut answers = Vec::new();
        if let Ok(done) = unleased_bytes(&bytes, &mut answers) {
            assert!(done.consumed <= bytes.len() && answers.len() <= bytes.len() * 2);
        }
        for skipped in [skip_request(&bytes), skip_to_sync(&bytes)].into_iter().flatten() {
            assert!(skipped.consumed <= bytes.len());
        }
    }
}
