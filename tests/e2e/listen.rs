//! Notifications in transaction mode: one server listens for all clients of a tenant, and each of them hears what it would
//! hear on a connection of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::support::{Batch, Message, PATIENCE, Plan, Reply, Stage, Wire, eventually};

/// A client that listens, and what it has heard: channel and payload.
struct Ear {
    wire: Wire,
    heard: Vec<(String, String)>,
}

impl Ear {
    async fn new(stage: &Stage) -> Self {
        Self { wire: stage.client("acme").await, heard: Vec::new() }
    }

    fn hear(&mut self, message: &Message) {
        if message.tag == b'A' {
            let mut texts = message.body[4..].split(|byte| *byte == 0);
            let mut text = || String::from_utf8(texts.next().unwrap().to_vec()).unwrap();
            self.heard.push((text(), text()));
        }
    }

    async fn one(&mut self) {
        let message = self.wire.message().await.unwrap();
        self.hear(&message);
    }

    async fn ask(&mut self, batch: Batch) -> Reply {
        let reply = self.wire.ask(batch).await;
        reply.messages.iter().for_each(|message| self.hear(message));
        reply
    }

    async fn say(&mut self, sql: &str) -> Reply {
        let reply = self.ask(Batch::new().query(sql)).await;
        assert!(reply.errors.is_empty(), "{sql}: {reply:?}");
        reply
    }

    /// Listens until that payload comes. Returns the notices that came meanwhile.
    async fn until(&mut self, payload: &str) -> Vec<crate::support::Fields> {
        let mut notices = Vec::new();
        while self.heard.last().is_none_or(|(_, last)| last != payload) {
            let message = self.wire.message().await.expect("the session goes on");
            match message.tag {
                b'A' => self.hear(&message),
                b'N' => notices.push(message.fields()),
                tag => panic!("{}: {message:?}", char::from(tag)),
            }
        }
        notices
    }

    /// All that was heard, as `channel:payload`.
    fn all(&mut self) -> Vec<String> {
        self.heard.drain(..).map(|(channel, payload)| format!("{channel}:{payload}")).collect()
    }

    /// The numbers that were heard.
    fn numbers(&mut self) -> Vec<u64> {
        self.heard.drain(..).filter_map(|(_, payload)| payload.parse().ok()).collect()
    }

    /// Nothing but these comes before an answer that the server gives after everything that was sent.
    async fn hears(&mut self, stage: &Stage, expected: &[&str]) {
        let admin = stage.admin().await;
        self.say("LISTEN the_end").await;
        admin.batch_execute("NOTIFY the_end, 'end'").await.unwrap();
        self.until("end").await;
        self.say("UNLISTEN the_end").await;
        let mut expected: Vec<String> = expected.iter().map(|text| (*text).to_owned()).collect();
        expected.push("the_end:end".to_owned());
        assert_eq!(self.all(), expected);
    }
}

async fn stage(ceiling: u32) -> Stage {
    let mut plan = Plan::new(&["acme"]).budget(20).queue_timeout("15s");
    plan.tenants[0].lines.push(format!("limits = {{ ceiling = {ceiling} }}"));
    Stage::start(plan).await
}

async fn metric(stage: &Stage, name: &str) -> f64 {
    stage.proxy().metrics().await.sum(name, &[("tenant", "acme")])
}

/// Waits until nothing but the listener keeps a server.
async fn is_settled(stage: &Stage, pinned: f64, listening: f64) {
    eventually("clients without servers", PATIENCE, async || {
        let metrics = stage.proxy().metrics().await;
        let of = |name| metrics.sum(name, &[("tenant", "acme")]);
        let active = metrics.sum("tenantry_tenant_clients", &[("tenant", "acme"), ("state", "active")]);
        let now = (of("tenantry_tenant_servers_pinned"), of("tenantry_tenant_listening_clients"), active);
        (now == (pinned, listening, 0.0)).then_some(())
    })
    .await;
}

/// How many servers of the tenant are the listener.
async fn listeners(stage: &Stage) -> i64 {
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tenantry listener'";
    stage.admin().await.query_one(count, &[]).await.unwrap().get(0)
}

/// Waits until there are as many: the listener gets its name when it is one already.
async fn has_listeners(stage: &Stage, count: i64) {
    eventually("listeners", PATIENCE, async || (listeners(stage).await == count).then_some(())).await;
}

/// Sends numbers to the channel of each until it is told that it is over. Says how many there were.
fn sender(
    stage: &Arc<Stage>,
    channel: impl Fn(u64) -> String + Send + 'static,
) -> (Arc<AtomicU64>, Arc<AtomicBool>, tokio::task::JoinHandle<()>) {
    let (sent, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (stage, count, ends) = (stage.clone(), sent.clone(), is_over.clone());
    let task = tokio::spawn(async move {
        let admin = stage.admin().await;
        while !ends.load(Ordering::SeqCst) {
            let number = count.load(Ordering::SeqCst) + 1;
            admin.batch_execute(&format!("NOTIFY {}, '{number}'", channel(number))).await.unwrap();
            count.store(number, Ordering::SeqCst);
        }
    });
    (sent, is_over, task)
}

fn is_run(numbers: &[u64]) -> bool {
    numbers.windows(2).all(|pair| pair[1] == pair[0] + 1)
}

#[tokio::test]
async fn two_hundred_clients_hear_everything_once_and_in_order_from_one_server_of_three() {
    let stage = Arc::new(stage(3).await);
    let mut ears = Vec::new();
    for _ in 0..CLIENTS {
        let mut ear = Ear::new(&stage).await;
        ear.say("LISTEN news").await;
        ears.push(ear);
    }
    is_settled(&stage, 1.0, f64::from(CLIENTS)).await;
    has_listeners(&stage, 1).await;
    let mut tasks = JoinSet::new();
    for (number, mut ear) in ears.into_iter().enumerate() {
        tasks.spawn(async move {
            if number % 4 == 0 {
                for _ in 0..20 {
                    ear.say("SELECT 1").await;
                }
            }
            ear.until("end").await;
            assert_eq!(ear.numbers(), (1..=1000).collect::<Vec<_>>());
        });
    }
    let admin = stage.admin().await;
    for number in 1..=1000 {
        admin.batch_execute(&format!("NOTIFY news, '{number}'")).await.unwrap();
    }
    admin.batch_execute("NOTIFY news, 'end'").await.unwrap();
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let told = f64::from(CLIENTS) * 1001.0;
    assert_eq!(metric(&stage, "tenantry_tenant_notifications_total").await, told);
    // With the last client the listener goes.
    is_settled(&stage, 0.0, 0.0).await;
    has_listeners(&stage, 0).await;
}

const CLIENTS: u32 = 200;

/// What is sent while clients come and go: everything from a LISTEN on is heard, once, in order, and nothing behind an
/// UNLISTEN. Without the marker in the queue, this is where a switch would lose or repeat something.
#[tokio::test]
async fn who_comes_and_goes_hears_a_run_without_gaps() {
    let stage = Arc::new(stage(4).await);
    let (sent, is_over, sender) = sender(&stage, |_| "news".to_owned());
    let mut tasks = JoinSet::new();
    for client in 0..12 {
        let (stage, sent) = (stage.clone(), sent.clone());
        tasks.spawn(async move {
            let mut ear = Ear::new(&stage).await;
            for round in 0..ROUNDS {
                ear.say(if round % 2 == 0 {
                    "LISTEN news"
                } else {
                    "BEGIN; LISTEN other; LISTEN news; COMMIT"
                })
                .await;
                let before = sent.load(Ordering::SeqCst);
                if client % 3 == 0 {
                    ear.say("SELECT 1").await;
                }
                while ear.heard.len() < 15 {
                    ear.one().await;
                }
                ear.say(if client % 2 == 0 { "UNLISTEN *" } else { "UNLISTEN news; UNLISTEN other" }).await;
                let numbers = ear.numbers();
                assert!(is_run(&numbers), "client {client}, round {round}: {numbers:?}");
                // One may be committed and not counted.
                assert!(numbers[0] <= before + 2, "{numbers:?} begins late: {before}");
                ear.say("SELECT 1").await;
                assert_eq!(ear.all(), [""; 0], "client {client} hears what it does not listen to");
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    is_over.store(true, Ordering::SeqCst);
    sender.await.unwrap();
    is_settled(&stage, 0.0, 0.0).await;
}

const ROUNDS: usize = 25;

/// One LISTEN more must not mix up what comes on it with what comes on the others, nor lose any of either.
#[tokio::test]
async fn the_order_across_channels_is_that_of_one_queue() {
    let stage = Arc::new(stage(5).await);
    let (_, is_over, sender) = sender(&stage, |number| format!("c{}", number % 4));
    let mut tasks = JoinSet::new();
    for client in 0..8 {
        let stage = stage.clone();
        tasks.spawn(async move {
            let mut ear = Ear::new(&stage).await;
            for round in 0..10 {
                for channel in 0..4 {
                    match (round + client) % 3 {
                        0 => drop(ear.say(&format!("LISTEN c{channel}")).await),
                        1 => drop(ear.say(&format!("BEGIN; SELECT 1; LISTEN c{channel}; COMMIT")).await),
                        _ => {
                            let sql = format!("LISTEN c{channel}");
                            ear.ask(Batch::new().parse("", &sql).bind("", "", &[]).execute("").sync()).await;
                        }
                    }
                    let more = ear.heard.len() + client + round;
                    while channel < 3 && ear.heard.len() < more {
                        ear.one().await;
                    }
                }
                while !(0..4).all(|channel| ear.heard.iter().any(|(of, _)| *of == format!("c{channel}"))) {
                    ear.one().await;
                }
                for _ in 0..20 {
                    ear.one().await;
                }
                ear.say("UNLISTEN *").await;
                let heard = ear.numbers();
                let words = format!("client {client}, round {round}: {heard:?}");
                assert!(heard.is_sorted_by(|a, b| a < b), "{words}");
                let mut first = 0;
                for channel in 0..4 {
                    let of: Vec<_> = heard.iter().filter(|number| *number % 4 == channel).collect();
                    assert!(of.windows(2).all(|pair| *pair[1] == *pair[0] + 4), "{words}");
                    first = first.max(*of[0]);
                }
                let all: Vec<_> = heard.iter().copied().filter(|number| *number >= first).collect();
                assert!(is_run(&all), "{words}");
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    is_over.store(true, Ordering::SeqCst);
    sender.await.unwrap();
    is_settled(&stage, 0.0, 0.0).await;
}

#[tokio::test]
async fn thirty_clients_that_listen_at_the_same_time_need_one_server_for_it() {
    let stage = Arc::new(stage(4).await);
    let mut tasks = JoinSet::new();
    for number in 0..30 {
        let stage = stage.clone();
        tasks.spawn(async move {
            let mut ear = Ear::new(&stage).await;
            ear.say(&format!("LISTEN all_of_us; LISTEN only_{number}")).await;
            (number, ear)
        });
    }
    let mut ears = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        ears.push(ended.unwrap());
    }
    is_settled(&stage, 1.0, 30.0).await;
    let admin = stage.admin().await;
    for (number, ear) in &mut ears {
        admin
            .batch_execute(&format!("NOTIFY only_{number}, 'a'; NOTIFY all_of_us, '{number}'"))
            .await
            .unwrap();
        ear.until(&number.to_string()).await;
        assert_eq!(ear.heard.iter().filter(|(channel, _)| channel.starts_with("only")).count(), 1);
    }
    // Others may still keep servers for what works there only.
    let mut keepers = [stage.client("acme").await, stage.client("acme").await, stage.client("acme").await];
    for (keeper, code) in keepers.iter_mut().zip(["", "", "53400"]) {
        let reply = keeper.query("CREATE TEMP TABLE mine (x int)").await;
        assert_eq!(reply.errors.first().map_or("", |error| &error.code), code, "{reply:?}");
    }
    let (_, last) = ears.last_mut().unwrap();
    last.say("LISTEN again").await;
}

#[tokio::test]
async fn channels_are_those_of_a_session_of_its_own() {
    let stage = stage(3).await;
    let (mut ear, admin) = (Ear::new(&stage).await, stage.admin().await);
    let tell = async |texts: &[&str]| {
        for text in texts {
            admin.batch_execute(&format!("NOTIFY a, '{text}'; NOTIFY b, '{text}'")).await.unwrap();
        }
    };
    ear.say("BEGIN; LISTEN a; ROLLBACK").await;
    ear.say("BEGIN").await;
    ear.say("LISTEN a").await;
    tell(&["1", "2"]).await;
    ear.say("COMMIT").await;
    tell(&["3"]).await;
    ear.hears(&stage, &["a:3"]).await;
    // Once more, and another one.
    ear.say("LISTEN a").await;
    ear.say("LISTEN \"b\"").await;
    tell(&["4"]).await;
    ear.hears(&stage, &["a:4", "b:4"]).await;
    ear.say("BEGIN; UNLISTEN a; ROLLBACK").await;
    ear.say("UNLISTEN b; LISTEN b").await;
    tell(&["5"]).await;
    ear.hears(&stage, &["a:5", "b:5"]).await;
    assert_eq!(ear.say("UNLISTEN a").await.tags, ["UNLISTEN"]);
    tell(&["6"]).await;
    ear.hears(&stage, &["b:6"]).await;
    // Prepared, in both ways.
    for prepared in ["", "s"] {
        let listen = Batch::new().parse(prepared, "LISTEN a").bind("", prepared, &[]).execute("").sync();
        ear.ask(listen).await;
        tell(&["7"]).await;
        ear.hears(&stage, &["a:7", "b:7"]).await;
        let parse = Batch::new().parse("", "UNLISTEN a").describe_statement("").sync();
        ear.ask(parse).await;
        tell(&["8"]).await;
        ear.hears(&stage, &["a:8", "b:8"]).await;
        ear.ask(Batch::new().parse(prepared, "UNLISTEN a").sync()).await;
        ear.ask(Batch::new().close_statement("s").parse("s", "UNLISTEN a").sync()).await;
        ear.ask(Batch::new().bind("", "s", &[]).execute("").sync()).await;
        ear.ask(Batch::new().close_statement("s").sync()).await;
        tell(&["9"]).await;
        ear.hears(&stage, &["b:9"]).await;
    }
    for all in ["DISCARD ALL", "UNLISTEN *", "SELECT 1; UNLISTEN *"] {
        ear.say("LISTEN a; LISTEN b").await;
        ear.say(all).await;
        tell(&["10"]).await;
        ear.hears(&stage, &[]).await;
    }
    ear.say("LISTEN a").await;
    // Before the answer, as in Postgres.
    ear.say("NOTIFY a, 'mine'").await;
    assert_eq!(ear.all(), ["a:mine"]);
    ear.say("BEGIN; SELECT pg_notify('a', 'mine'); NOTIFY a, 'too'; NOTIFY b, 'not'").await;
    assert_eq!(ear.say("COMMIT").await.shape(), "CAAZ");
    ear.ask(Batch::new().parse("", "NOTIFY a, '3'").bind("", "", &[]).execute("").sync()).await;
    assert_eq!(ear.all(), ["a:mine", "a:too", "a:3"]);
    // Out of sight.
    ear.say("DO $$ BEGIN EXECUTE 'LISTEN \"Odd \"\" name\"'; END $$").await;
    admin.batch_execute("NOTIFY \"Odd \"\" name\", 'odd'").await.unwrap();
    ear.until("odd").await;
}

#[tokio::test]
async fn nothing_is_told_inside_a_transaction_and_nothing_is_lost_by_one() {
    let stage = stage(3).await;
    let (mut ear, admin) = (Ear::new(&stage).await, stage.admin().await);
    ear.say("LISTEN news").await;
    is_settled(&stage, 1.0, 1.0).await;
    ear.say("BEGIN").await;
    for number in 1..=3 {
        admin.batch_execute(&format!("NOTIFY news, '{number}'")).await.unwrap();
    }
    // The listener has told them by then.
    eventually("told", PATIENCE, async || {
        (metric(&stage, "tenantry_tenant_notifications_total").await == 3.0).then_some(())
    })
    .await;
    let inside = ear.say("SELECT 1").await;
    assert_eq!(inside.shape(), "TDCZ");
    let end = ear.say("COMMIT").await;
    assert_eq!(end.shape(), "CAAAZ", "before it is ready, as Postgres does it");
    assert_eq!(ear.numbers(), [1, 2, 3]);
}

#[tokio::test]
async fn a_listener_that_is_lost_comes_again_and_its_clients_are_told() {
    let stage = stage(3).await;
    let admin = stage.admin().await;
    let mut ears = Vec::new();
    for channel in ["a", "b", "a"] {
        let mut ear = Ear::new(&stage).await;
        ear.say(&format!("LISTEN {channel}")).await;
        ears.push(ear);
    }
    is_settled(&stage, 1.0, 3.0).await;
    for round in 1..=3 {
        admin.batch_execute(KILL).await.unwrap();
        for ear in &mut ears {
            let warning = ear.wire.expect(b'N').await.fields();
            assert_eq!((&*warning.severity, &*warning.code), ("WARNING", "01000"));
            assert!(warning.detail.contains("between 20") && !warning.hint.is_empty(), "{warning:?}");
        }
        admin.batch_execute(&format!("NOTIFY a, '{round}'; NOTIFY b, '{round}'")).await.unwrap();
        for ear in &mut ears {
            assert!(ear.until(&round.to_string()).await.is_empty());
            assert_eq!(ear.heard.len(), round);
        }
        has_listeners(&stage, 1).await;
    }
    assert_eq!(metric(&stage, "tenantry_tenant_listener_restarts_total").await, 3.0);
}

/// Whoever is on its way to the listener when that is lost stays where it is, or becomes the next one: nobody waits for a
/// server that nobody can have.
#[tokio::test]
async fn a_listener_that_is_lost_all_the_time_loses_nothing_unsaid() {
    let stage = Arc::new(stage(3).await);
    let (_, is_over, sender) = sender(&stage, |_| "news".to_owned());
    let killer = tokio::spawn({
        let (stage, is_over) = (stage.clone(), is_over.clone());
        async move {
            let admin = stage.admin().await;
            let mut pause = tokio::time::interval(Duration::from_millis(30));
            while !is_over.load(Ordering::SeqCst) {
                pause.tick().await;
                admin.batch_execute(KILL).await.unwrap();
            }
        }
    });
    let mut tasks = JoinSet::new();
    for client in 0..9 {
        let stage = stage.clone();
        tasks.spawn(async move {
            let mut ear = Ear::new(&stage).await;
            for round in 0..12 {
                ear.say("LISTEN news").await;
                let mut gaps = 0;
                let mut said = 0;
                while ear.heard.len() < 60 {
                    let message = ear.wire.message().await.unwrap();
                    said += usize::from(message.tag == b'N');
                    ear.hear(&message);
                }
                let reply = ear.say("UNLISTEN *").await;
                said += reply.notices.len();
                for pair in ear.numbers().windows(2) {
                    assert!(pair[0] < pair[1], "client {client}, round {round}: {pair:?}");
                    gaps += usize::from(pair[0] + 1 != pair[1]);
                }
                assert!(gaps <= said, "client {client}, round {round}: {gaps} gaps, {said} warnings");
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    is_over.store(true, Ordering::SeqCst);
    sender.await.unwrap();
    killer.await.unwrap();
    is_settled(&stage, 0.0, 0.0).await;
    assert!(metric(&stage, "tenantry_tenant_listener_restarts_total").await > 5.0);
}

const KILL: &str =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tenantry listener'";

#[tokio::test]
async fn a_tenant_that_gets_another_login_gets_another_listener() {
    let mut stage = stage(3).await;
    let mut ears = [Ear::new(&stage).await, Ear::new(&stage).await];
    for ear in &mut ears {
        ear.say("LISTEN news").await;
    }
    is_settled(&stage, 1.0, 2.0).await;
    let change = |mut plan: Plan| {
        plan.tenants[0].lines.push("settings = { work_mem = \"5MB\" }".to_owned());
        plan
    };
    stage.reload(change).await;
    let admin = stage.admin().await;
    for ear in &mut ears {
        assert_eq!(ear.wire.expect(b'N').await.fields().code, "01000");
        admin.batch_execute("NOTIFY news, 'after'").await.unwrap();
        ear.until("after").await;
    }
    is_settled(&stage, 1.0, 2.0).await;
    has_listeners(&stage, 1).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_ended_and_others_hear_on() {
    let stage = stage(3).await;
    let admin = stage.admin().await;
    let (mut deaf, mut ear) = (Ear::new(&stage).await, Ear::new(&stage).await);
    deaf.say("LISTEN news").await;
    ear.say("LISTEN news").await;
    is_settled(&stage, 1.0, 2.0).await;
    let body = "x".repeat(7_000);
    let mut sent = 0;
    while metric(&stage, "tenantry_tenant_listening_clients").await == 2.0 {
        for _ in 0..50 {
            admin.batch_execute(&format!("NOTIFY news, '{sent} {body}'")).await.unwrap();
            sent += 1;
            ear.until(&format!("{} {body}", sent - 1)).await;
        }
    }
    assert_eq!(ear.heard.len(), sent);
    let mut last = None;
    while let Some(message) = deaf.wire.message().await {
        last = Some(message);
    }
    let error = last.unwrap().fields();
    assert_eq!((&*error.severity, &*error.code), ("FATAL", "53400"), "{error:?}");
    assert!(!error.detail.is_empty() && !error.hint.is_empty());
    admin.batch_execute("NOTIFY news, 'after'").await.unwrap();
    ear.until("after").await;
}

#[tokio::test]
async fn two_tenants_with_a_channel_of_the_same_name_have_a_listener_each() {
    let stage = Stage::start(Plan::new(&["acme", "bolt"]).budget(20)).await;
    let mut ears = Vec::new();
    for tenant in ["acme", "bolt", "acme", "bolt"] {
        let mut ear = Ear { wire: stage.client(tenant).await, heard: Vec::new() };
        ear.say("LISTEN news").await;
        ears.push(ear);
    }
    is_settled(&stage, 1.0, 2.0).await;
    has_listeners(&stage, 2).await;
    // A channel is the database's, as in Postgres.
    ears[0].say("NOTIFY news, 'for all'").await;
    for ear in &mut ears {
        ear.until("for all").await;
        assert_eq!(ear.all(), ["news:for all"]);
    }
}

#[tokio::test]
async fn a_tenant_with_one_server_keeps_it_for_whoever_listens() {
    let stage = stage(1).await;
    let (mut ear, mut other) = (Ear::new(&stage).await, stage.client("acme").await);
    ear.say("LISTEN news").await;
    ear.say("SELECT 1").await;
    assert_eq!(metric(&stage, "tenantry_tenant_servers_pinned").await, 1.0);
    assert_eq!(listeners(&stage).await, 0);
    stage.admin().await.batch_execute("NOTIFY news, '1'").await.unwrap();
    ear.until("1").await;
    ear.say("UNLISTEN *").await;
    assert_eq!(other.query("SELECT 2").await.value(), "2");
}

#[tokio::test]
async fn a_client_in_another_encoding_keeps_its_server() {
    let stage = stage(3).await;
    let mut ear = Ear::new(&stage).await;
    ear.say("SET client_encoding = 'LATIN1'").await;
    ear.say("LISTEN news").await;
    ear.say("SELECT 1").await;
    assert_eq!(metric(&stage, "tenantry_tenant_servers_pinned").await, 1.0);
    assert_eq!(listeners(&stage).await, 0);
    ear.say("SET client_encoding = 'UTF8'").await;
    ear.say("LISTEN more").await;
    is_settled(&stage, 1.0, 1.0).await;
    has_listeners(&stage, 1).await;
}

#[tokio::test]
async fn the_listener_ends_with_its_clients_when_the_proxy_drains() {
    let stage = stage(3).await;
    let mut ear = Ear::new(&stage).await;
    ear.say("LISTEN news").await;
    is_settled(&stage, 1.0, 1.0).await;
    stage.proxy().signal("TERM");
    assert_eq!(ear.wire.expect(b'E').await.fields().code, "57P01");
    stage.servers_become(0, Duration::from_secs(10)).await;
}
