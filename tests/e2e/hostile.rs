//! Hostile bytes at every state: an error or a close, bounded memory, and nobody else is touched.

use std::time::Duration;

use crate::support::{Batch, PATIENCE, Plan, Random, Stage, Wire, eventually};

/// The proxy lives, a bystander's session lives, and no server is left in the middle of something.
async fn unharmed(stage: &Stage, bystander: &mut Wire, what: &str) {
    assert_eq!(
        bystander.query("SELECT owner FROM things WHERE id = 1").await.value(),
        "bolt",
        "after {what}"
    );
    let sql = "SELECT 1 FROM pg_stat_activity WHERE usename LIKE 'role\\_%' AND state <> 'idle'";
    eventually("servers are idle", PATIENCE, async || {
        stage.postgres.psql(sql).await.unwrap().is_empty().then_some(())
    })
    .await;
    let mut fresh = stage.client("acme").await;
    let reply = fresh.query("SELECT count(*), min(owner) FROM things").await;
    assert_eq!(reply.rows[0][0].as_deref(), Some("20"), "after {what}");
}

/// Sends and reads until the close; a session that stays open must be silent or wait for more.
async fn provoke(mut wire: Wire, bytes: &[u8]) {
    wire.send(bytes).await;
    let mut seen = 0;
    while let Some(Some(_)) = wire.message_within(Duration::from_millis(100)).await {
        seen += 1;
        assert!(seen < 10_000, "an endless answer");
    }
}

#[tokio::test]
async fn before_the_login() {
    let stage = Stage::start(Plan::new(&["acme", "bolt"])).await;
    let mut bystander = stage.client("bolt").await;
    let huge = Batch::startup(0x0003_0000, &[("user", &"x".repeat(100_000)), ("database", "app")]);
    let many: Vec<(String, String)> =
        (0..2_000).map(|number| (format!("p{number}"), "x".to_owned())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("a length of zero", vec![0, 0, 0, 0]),
        ("a length of seven", vec![0, 0, 0, 7, 0, 3, 0]),
        ("a length of four gigabytes", [&[0xff; 4][..], &[0; 64]].concat()),
        ("a negative length", [&[0x80, 0, 0, 0][..], &[0; 64]].concat()),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("half a TLS hello", vec![0x16, 3, 1, 2, 0, 1, 0, 1]),
        ("a TLS alert", vec![0x15, 3, 1, 0, 2, 2, 40]),
        ("a huge startup packet", huge.0),
        ("many parameters", Batch::startup(0x0003_0000, &many).0),
        ("no user", Batch::startup(0x0003_0000, &[("database", "app")]).0),
        ("an empty user", Batch::startup(0x0003_0000, &[("user", ""), ("database", "app")]).0),
        (
            "the user twice",
            Batch::startup(0x0003_0000, &[("user", "acme"), ("user", "bolt"), ("database", "app")]).0,
        ),
        ("no terminator", vec![0, 0, 0, 13, 0, 3, 0, 0, b'u', b's', b'e', b'r', 0]),
        ("a name that is not UTF-8", [&[0, 0, 0, 18, 0, 3, 0, 0][..], b"user\0\xff\xfe\xfd\0\0"].concat()),
        ("a short cancel request", vec![0, 0, 0, 8, 4, 210, 22, 46]),
        ("a cancel request with a long key", Batch::cancel_request(7, &[7; 300]).0),
        ("a query", Batch::new().query("SELECT 1").0),
        ("SSLRequest for ever", Batch::ssl_request().0.repeat(1_000)),
        ("GSSENCRequest for ever", Batch::gssenc_request().0.repeat(1_000)),
    ];
    for (what, bytes) in cases {
        provoke(Wire::connect(stage.address()).await, &bytes).await;
        unharmed(&stage, &mut bystander, what).await;
    }
}

#[tokio::test]
async fn in_the_middle_of_the_login() {
    let stage = Stage::start(Plan::new(&["acme", "bolt"])).await;
    let mut bystander = stage.client("bolt").await;
    let long = vec![b'n'; 200_000];
    let sasl = |mechanism: &[u8], data: &[u8]| {
        let length = u32::try_from(data.len()).unwrap().to_be_bytes();
        Batch::new().message(b'p', &[mechanism, b"\0", &length, data].concat())
    };
    let cases = vec![
        ("another message", Batch::new().query("SELECT 1")),
        ("an unknown mechanism", sasl(b"SCRAM-SHA-1", b"n,,n=,r=abc")),
        ("PLUS without TLS", sasl(b"SCRAM-SHA-256-PLUS", b"p=tls-server-end-point,,n=,r=abc")),
        ("no nonce", sasl(b"SCRAM-SHA-256", b"n,,n=")),
        ("garbage", sasl(b"SCRAM-SHA-256", b"\xff\xfe,\0,")),
        ("a huge message", sasl(b"SCRAM-SHA-256", &long)),
        ("a length beyond the body", Batch::new().message(b'p', b"SCRAM-SHA-256\0\x7f\xff\xff\xffn,,")),
        ("an empty body", Batch::new().message(b'p', b"")),
        ("a plain password", Batch::new().message(b'p', b"app-acme\0")),
        ("a huge length", Batch::new().raw(b"p\x7f\xff\xff\xff")),
        ("a query right behind", sasl(b"SCRAM-SHA-256", b"n,,n=,r=abc").query("SELECT 1").query("SELECT 2")),
    ];
    for (what, batch) in cases {
        let mut wire = Wire::connect(stage.address()).await;
        wire.send(&Batch::startup(0x0003_0000, &[("user", "acme"), ("database", "app")]).0).await;
        wire.expect(b'R').await;
        provoke(wire, &batch.0).await;
        unharmed(&stage, &mut bystander, what).await;
    }
}

fn rude_messages() -> Vec<(&'static str, Batch)> {
    vec![
        ("an unknown tag", Batch::new().message(b'z', b"what")),
        ("a tag of zero", Batch::new().message(0, b"")),
        ("a server's message", Batch::new().message(b'Z', b"I")),
        ("a password", Batch::new().message(b'p', b"secret\0")),
        ("a length of three", Batch::new().raw(b"Q\0\0\0\x03")),
        ("a length of zero", Batch::new().raw(b"Q\0\0\0\0SELECT 1\0")),
        ("a negative length", Batch::new().raw(b"Q\xff\xff\xff\xff")),
        ("a length of two gigabytes", Batch::new().raw(b"Q\x7f\xff\xff\xffSELECT")),
        ("a Sync with a body", Batch::new().message(b'S', b"body")),
        ("a Query without an end", Batch::new().message(b'Q', b"SELECT 1")),
        ("a Query with two ends", Batch::new().message(b'Q', b"SELECT 1\0SELECT 2\0")),
        ("a Parse that stops in its name", Batch::new().message(b'P', b"name").sync()),
        ("a Parse that stops in its text", Batch::new().message(b'P', b"name\0SELECT").sync()),
        ("a Bind that stops in its name", Batch::new().message(b'B', b"portal").sync()),
        ("a Bind with counts beyond its body", Batch::new().message(b'B', b"\0\0\x7f\xff\x7f\xff").sync()),
        ("a Close of nothing known", Batch::new().message(b'C', b"Xname\0").sync()),
        ("a Close without a body", Batch::new().message(b'C', b"").sync()),
        ("a Describe of nothing known", Batch::new().message(b'D', b"Xname\0").sync()),
        ("an Execute without a body", Batch::new().message(b'E', b"")),
        ("a Parse without a body", Batch::new().message(b'P', b"").raw(b"\0")),
        ("an Execute that stops", Batch::new().message(b'E', b"portal").sync()),
        ("a name of a megabyte", Batch::new().parse(&"n".repeat(1 << 20), "SELECT 1").sync()),
        ("a name that is not UTF-8", Batch::new().message(b'P', b"\xff\xfe\0SELECT 1\0\0\0").sync()),
        ("CopyData out of place", Batch::new().copy_data(b"1\t2\n").copy_done().copy_fail("why")),
        ("a FunctionCall cut short", Batch::new().message(b'F', b"\0\0")),
        ("Flush without end", Batch::new().raw(&Batch::new().flush().0.repeat(10_000))),
        ("Sync without end", Batch::new().raw(&Batch::new().sync().0.repeat(5_000))),
    ]
}

/// What the proxy throws away of a refused message ends where that message ends. Where it did not, the server waited for
/// bytes that never came, and took what came next for something else.
#[tokio::test]
async fn what_follows_a_refused_message_in_pieces_reaches_the_server_whole() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    let (mut wire, mut bystander) = (stage.client("acme").await, stage.client("acme").await);
    let refused = Batch::new().parse(&"n".repeat(300), "SELECT 1");
    // More than is read at once.
    let long = "x".repeat(200_000);
    let answer =
        wire.ask(refused.parse("", "SELECT $1::text").bind("", "", &[&long]).execute("").sync()).await;
    assert_eq!(answer.code(), "54000", "{answer:?}");
    assert_eq!(wire.query("SELECT 'goes on'").await.value(), "goes on");

    let hidden = Batch::new().sync().query("SELECT set_config('app.who', 'mallory', false)");
    let (begun, filler) = (vec![b'x'; 1_000], vec![b'x'; 4_000]);
    let length = u32::try_from(begun.len() + filler.len() + 4).unwrap().to_be_bytes();
    let promise = [&b"B"[..], &length, &begun].concat();
    wire.send(&Batch::new().parse(&"n".repeat(300), "SELECT 1").raw(&promise).0).await;
    // So that they are two reads.
    tokio::task::yield_now().await;
    wire.send(&filler).await;
    let data = [filler, hidden.0].concat();
    provoke(wire, &Batch::new().sync().query("SELECT 1").copy_data(&data).0).await;
    let who = bystander.query("SELECT coalesce(current_setting('app.who', true), '')").await;
    assert_eq!(who.value(), "", "somebody else's words were taken for a request");
}

/// Nothing comes behind such a message: whoever waited for more of it would ask for a server for ever.
#[tokio::test]
async fn a_message_without_the_body_it_must_have_is_an_error_at_once() {
    let stage = Stage::start(Plan::new(&["acme", "bolt"])).await;
    let mut bystander = stage.client("bolt").await;
    for tag in *b"QPBECDF" {
        let mut wire = stage.client("acme").await;
        wire.send(&Batch::new().message(tag, b"").0).await;
        let answer = wire.message_within(PATIENCE).await.flatten();
        let answer = answer.unwrap_or_else(|| panic!("no answer to an empty {}", char::from(tag)));
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.tag == b'E' && body.contains("08P01"), "{}: {body}", char::from(tag));
        unharmed(&stage, &mut bystander, "it").await;
    }
    // What follows is not a part of it.
    let mut wire = stage.client("acme").await;
    wire.send(&Batch::new().message(b'P', b"").raw(b"\0\0\0").0).await;
    let answer = wire.message_within(PATIENCE).await.flatten().unwrap();
    assert!(answer.tag == b'E' && String::from_utf8_lossy(&answer.body).contains("08P01"));
}

#[tokio::test]
async fn in_an_idle_session() {
    let stage = Stage::start(Plan::new(&["acme", "bolt"]).budget(4)).await;
    let mut bystander = stage.client("bolt").await;
    for (what, batch) in rude_messages() {
        provoke(stage.client("acme").await, &batch.0).await;
        unharmed(&stage, &mut bystander, what).await;
    }
}

#[tokio::test]
async fn in_a_transaction() {
    let stage = Stage::start(Plan::new(&["acme", "bolt"]).budget(4)).await;
    let mut bystander = stage.client("bolt").await;
    for (what, batch) in rude_messages() {
        let mut wire = stage.client("acme").await;
        wire.query("BEGIN; DELETE FROM things").await;
        provoke(wire, &batch.0).await;
        unharmed(&stage, &mut bystander, what).await;
    }
}

#[tokio::test]
async fn in_the_middle_of_copy() {
    let stage = Stage::start(Plan::new(&["acme", "bolt"]).budget(4)).await;
    let mut bystander = stage.client("bolt").await;
    for (what, batch) in rude_messages() {
        let mut wire = stage.client("acme").await;
        wire.query("BEGIN; DELETE FROM things").await;
        wire.send(&Batch::new().query("COPY things FROM STDIN").0).await;
        wire.expect(b'G').await;
        provoke(wire, &batch.0).await;
        unharmed(&stage, &mut bystander, what).await;
    }
}

#[tokio::test]
async fn in_the_middle_of_a_pipeline() {
    let stage = Stage::start(Plan::new(&["acme", "bolt"]).budget(4)).await;
    let mut bystander = stage.client("bolt").await;
    for (what, batch) in rude_messages() {
        let wire = stage.client("acme").await;
        let batch = Batch::new().run("SELECT 1", &[]).raw(&batch.0).run("SELECT 2", &[]).sync();
        provoke(wire, &batch.0).await;
        unharmed(&stage, &mut bystander, what).await;
    }
}

#[tokio::test]
async fn random_bytes_and_damaged_sessions() {
    let stage = Stage::start(Plan::new(&["acme", "bolt"]).budget(4)).await;
    let mut bystander = stage.client("bolt").await;
    let seed = Random::seed();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let good = Batch::new()
        .query("BEGIN")
        .parse("s", "SELECT owner FROM things WHERE id = $1")
        .bind("", "s", &["1"])
        .execute("")
        .sync()
        .query("COMMIT")
        .0;
    for round in 0..60 {
        let mut bytes = good.clone();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            bytes[at] = u8::try_from(random.below(256)).unwrap();
        }
        let wire =
            if random.one_in(4) { Wire::connect(stage.address()).await } else { stage.client("acme").await };
        provoke(wire, &bytes).await;
        if round % 10 == 9 {
            unharmed(&stage, &mut bystander, &format!("seed {seed} round {round}")).await;
        }
    }
    unharmed(&stage, &mut bystander, &format!("seed {seed}")).await;
}

#[tokio::test]
async fn promises_of_much_data_cost_no_memory() {
    let stage = Stage::start(Plan::new(&["acme", "bolt"])).await;
    let before = stage.memory();
    let mut wires = Vec::new();
    for _ in 0..100 {
        let mut wire = stage.client("acme").await;
        wire.send(b"Q\x3f\xff\xff\xffSELECT ").await;
        wires.push(wire);
    }
    let mut bystander = stage.client("bolt").await;
    bystander.query("SELECT 1").await;
    let grown = stage.memory().saturating_sub(before);
    assert!(grown < 40 << 20, "{} MiB for 100 promises", grown >> 20);
}
