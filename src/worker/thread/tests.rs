//! Newcomers: what happens between the order to admit one and its first poll.

use std::path::Path;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::*;
use crate::backend::Connector;
use crate::config::load_text;
use crate::net::Listener;
use crate::session::SessionWishes;

const MAX_CLIENTS: usize = 3;

/// A worker whose Postgres takes connections and says nothing, so that greetings wait; and where its clients come from.
struct Rig {
    work: Work,
    listener: Listener,
    _postgres: std::net::TcpListener,
}

impl Rig {
    fn new() -> Self {
        let postgres = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let settings = settings(postgres.local_addr().unwrap().port());
        let connectors =
            settings.clusters.iter().map(|one| Connector::new(one, &settings.servers).unwrap()).collect();
        let (capacities, shares_budgets) = (vec![2], false);
        let plan =
            Plan { settings, connectors, capacities, shares_budgets, recording: None, shortest_limit: None };
        let work = Work::new(WorkerId(0), plan, CancelKeys::new(&[7; 32]), mpsc::unbounded_channel().0);
        let listener = Listener::bind_tcp("127.0.0.1:0".parse().unwrap(), 8).unwrap();
        Self { work, listener, _postgres: postgres }
    }

    /// A client that has logged in; the order to admit it; and what it hears.
    async fn newcomer(&self, parameters: &[(&str, &str)]) -> (Newcomer, TcpStream) {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = self.listener.accept().await.unwrap();
        let tenant = self.work.plan.settings.catalog.by_name("acme").unwrap().clone();
        let newcomer = Newcomer {
            wishes: SessionWishes {
                mode: tenant.mode,
                replication: None,
                target: Target::Primary,
                ends_at: None,
                protocol_minor: 0,
                parameters: parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
                unread: Vec::new(),
                unsent: UNSENT.as_bytes().to_vec(),
            },
            tenant,
            stream: stream.into_portable().unwrap(),
            request_id: 1,
            elsewhere: 0,
            place: Box::new(()),
        };
        (newcomer, client)
    }

    /// Clients that count: in the registry, and for their tenant.
    fn counts(&self) -> (usize, u32) {
        let connected =
            self.work.floor.pool.tenants().iter().map(|state| state.clients.connected.get()).sum();
        (self.work.floor.registry.len(), connected)
    }
}

fn settings(postgres: u16) -> Arc<Settings> {
    let text = format!(
        "[cluster.main]\nurl = \"postgres://127.0.0.1:{postgres}/app?sslmode=disable\"\nmax_connections = 40\n\
         [[tenant]]\nname = \"acme\"\nrole = \"acme\"\nschema = \"acme\"\nclient_auth = {{ scram = \"{VERIFIER}\" }}\n\
         limits = {{ max_clients = {MAX_CLIENTS} }}\n"
    );
    Arc::new(load_text(&text, Path::new(""), &|_| None, None).unwrap().settings)
}

/// What a login has yet to say to its client.
const UNSENT: &str = "the end of the login";
const VERIFIER: &str = "SCRAM-SHA-256$4096:c2FsdA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:\
                        AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// Runs on a runtime like a worker's own.
fn on_a_worker(test: impl AsyncFnOnce(Rig)) {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async { test(Rig::new()).await });
    runtime.shutdown_background();
}

/// All that a client hears until it is hung up on.
async fn last_words(mut client: TcpStream) -> String {
    let mut heard = Vec::new();
    let told = tokio::time::timeout(std::time::Duration::from_secs(10), client.read_to_end(&mut heard)).await;
    told.expect("the client is not told anything").unwrap();
    let heard = String::from_utf8_lossy(&heard).into_owned();
    assert!(heard.starts_with(UNSENT), "the login comes first: {heard}");
    heard
}

#[test]
fn a_burst_of_logins_does_not_exceed_the_limit_of_the_tenant() {
    on_a_worker(async |rig| {
        let mut clients = Vec::new();
        let mut newcomers = Vec::new();
        for _ in 0..MAX_CLIENTS + 2 {
            let (newcomer, client) = rig.newcomer(&[]).await;
            newcomers.push(newcomer);
            clients.push(client);
        }
        // All of them in one turn of the worker: no task of theirs runs in between.
        newcomers.into_iter().for_each(|newcomer| rig.work.admit(newcomer));
        assert_eq!(rig.counts(), (MAX_CLIENTS, 3));
        for refused in clients.drain(MAX_CLIENTS..) {
            let heard = last_words(refused).await;
            assert!(heard.contains("FATAL") && heard.contains("53300"), "{heard}");
        }
        assert_eq!(rig.counts(), (MAX_CLIENTS, 3));
    });
}

#[test]
fn a_newcomer_in_the_instant_of_a_drain_is_told_to_go() {
    on_a_worker(async |rig| {
        let (newcomer, client) = rig.newcomer(&[]).await;
        rig.work.admit(newcomer);
        rig.work.floor.registry.close();
        assert_eq!(rig.counts(), (1, 1), "the drain waits for it");
        let heard = last_words(client).await;
        assert!(heard.contains("FATAL") && heard.contains("57P01"), "{heard}");
        assert_eq!(rig.counts(), (0, 0));
    });
}

#[test]
fn a_newcomer_that_waits_for_a_server_is_told_of_a_drain_at_once() {
    on_a_worker(async |rig| {
        let (newcomer, client) = rig.newcomer(&[]).await;
        rig.work.admit(newcomer);
        let waits = || rig.work.floor.pool.inspect(|_, scheduler, _| scheduler.waiting_tenants()) == [1];
        while !waits() {
            tokio::task::yield_now().await;
        }
        rig.work.floor.registry.close();
        let heard = last_words(client).await;
        assert!(heard.contains("FATAL") && heard.contains("57P01"), "{heard}");
        assert!(!waits(), "it has left the queue");
        assert_eq!(rig.counts(), (0, 0));
    });
}

#[test]
fn a_newcomer_that_may_no_longer_replicate_is_sent_away() {
    on_a_worker(async |rig| {
        let (mut newcomer, client) = rig.newcomer(&[]).await;
        newcomer.wishes.replication = Some(crate::tenant::Replication::Physical);
        rig.work.admit(newcomer);
        let heard = last_words(client).await;
        assert!(heard.contains("57P01") && heard.contains("replication"), "{heard}");
        assert_eq!(rig.counts(), (0, 0));
    });
}

#[test]
fn tenants_that_are_known_connect_by_the_newest_settings() {
    on_a_worker(async |mut rig| {
        let (newcomer, _client) = rig.newcomer(&[]).await;
        let id = newcomer.tenant.id;
        rig.work.admit(newcomer);
        let state = rig.work.floor.pool.tenant(id).unwrap();
        let (before, epoch) = (format!("{:?}", state.profile()), state.epoch());
        let mut settings = (*rig.work.plan.settings).clone();
        settings.servers.connect_timeout = std::time::Duration::from_millis(1_234);
        let connectors =
            settings.clusters.iter().map(|one| Connector::new(one, &settings.servers).unwrap()).collect();
        rig.work.apply(Plan { settings: Arc::new(settings), connectors, ..rig.work.plan.clone() });
        let after = format!("{:?}", state.profile());
        assert!(after.contains("1.234s") && !before.contains("1.234s"), "{after}");
        assert_eq!(state.epoch(), epoch, "its servers stay");
    });
}

#[test]
fn a_newcomer_that_is_not_greeted_does_not_count() {
    on_a_worker(async |rig| {
        let (newcomer, client) = rig.newcomer(&[("role", "somebody")]).await;
        rig.work.admit(newcomer);
        let heard = last_words(client).await;
        assert!(heard.contains("42501"), "{heard}");
        assert_eq!(rig.counts(), (0, 0));
    });
}
