//! One client that looks around, leaves something behind, and looks again.
//!
//! Owns what it may expect to see. Must not know what the proxy does to keep it true.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::mess::MESSES;
use crate::support::{Batch, Random, Reply, Stage, Wire};

/// Everything that a strange hand could have left, in one row.
const LOOK: &str = "SELECT current_user, session_user, current_schema(), current_setting('search_path'),
    (SELECT string_agg(DISTINCT owner, ',') FROM things), current_setting('work_mem'),
    current_setting('default_transaction_read_only'), current_setting('default_transaction_isolation'),
    current_setting('statement_timeout'),
    (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()),
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
    (SELECT count(*) FROM pg_listening_channels()), (SELECT count(*) FROM pg_cursors WHERE is_holdable),
    (SELECT count(*) FROM pg_prepared_statements WHERE from_sql), current_setting('TimeZone')";
/// The cheap look, most of the time.
const GLANCE: &str = "SELECT current_user, current_setting('search_path'), owner FROM things WHERE id = 1";

/// A client of one tenant.
pub(crate) struct Visitor {
    wire: Wire,
    tenant: &'static str,
    random: Random,
    zone: Option<&'static str>,
    statement: Option<String>,
    /// Has left something that it may see itself.
    stained: bool,
    /// What it did last, for the report of a failure.
    pub(crate) last: &'static str,
}

impl Visitor {
    pub(crate) async fn new(stage: &Stage, tenant: &'static str, seed: u64) -> Self {
        let wire = stage.client(tenant).await;
        Self {
            wire,
            tenant,
            random: Random::new(seed),
            zone: None,
            statement: None,
            stained: false,
            last: "",
        }
    }

    /// One act: something random, then a look.
    pub(crate) async fn act(&mut self, stage: &Stage) {
        match self.random.below(16) {
            0..=3 => self.leave_a_mess().await,
            4 => self.change_zone().await,
            5 => self.use_a_statement().await,
            6 => self.fail_in_a_pipeline().await,
            7 => self.fail_in_a_transaction().await,
            8 => self.cancel_itself(stage).await,
            9 => self.vanish(stage).await,
            10 => self.write().await,
            _ => self.last = "nothing",
        }
        if self.random.one_in(4) {
            self.look().await;
        } else {
            self.glance().await;
        }
        if self.stained && self.random.one_in(2) {
            self.come_back(stage).await;
        }
    }

    async fn come_back(&mut self, stage: &Stage) {
        if self.random.one_in(2) {
            self.wire.send(&Batch::new().terminate().0).await;
        }
        self.wire = stage.client(self.tenant).await;
        (self.zone, self.statement, self.stained) = (None, None, false);
    }

    /// No error, or one of those that the act may cause; never a lost session.
    fn check(&self, what: &str, reply: &Reply, allowed: &[&str]) {
        assert!(reply.status.is_some(), "{}: {what}: the session was lost: {reply:?}", self.tenant);
        for error in &reply.errors {
            assert!(allowed.contains(&error.code.as_str()), "{}: {what}: {error:?}", self.tenant);
        }
    }

    async fn leave_a_mess(&mut self) {
        let mess = self.random.pick(&MESSES);
        self.last = mess.sql;
        let reply = if self.random.one_in(2) || mess.sql.contains(';') {
            self.wire.query(mess.sql).await
        } else {
            self.wire.ask(Batch::new().run(mess.sql, &[]).sync()).await
        };
        // Refused with a reason; or what the client itself did before is in the way: 42P07 and the like, 25006.
        let mut allowed = vec!["0A000", "42501", "53400"];
        if self.stained {
            allowed.extend(["25006", "42P07", "42P03", "42P05", "42703", "42809", "42P01", "42P17"]);
        }
        self.check(mess.sql, &reply, &allowed);
        self.stained |= mess.own;
        if reply.status == Some('E') || reply.status == Some('T') {
            self.wire.query("ROLLBACK").await;
        }
    }

    async fn change_zone(&mut self) {
        self.last = "SET TimeZone";
        let zone = *self.random.pick(&["Asia/Tokyo", "Europe/Paris", "America/Lima", "UTC"]);
        let reply = self.wire.query(&format!("SET TimeZone = '{zone}'")).await;
        self.check("SET TimeZone", &reply, &[]);
        self.zone = Some(zone);
    }

    /// All clients call theirs `s`, and each means something else by it.
    async fn use_a_statement(&mut self) {
        self.last = "a prepared statement";
        let mark = format!("{}-{}", self.tenant, self.random.next());
        let mut batch = Batch::new();
        if self.statement.is_none() || self.random.one_in(3) {
            batch = batch
                .close_statement("s")
                .parse("s", &format!("SELECT '{mark}' || owner FROM things WHERE id = $1::int"));
            self.statement = Some(mark);
        }
        let mark = self.statement.clone().unwrap();
        let reply = self.wire.ask(batch.bind("", "s", &["3"]).execute("").sync()).await;
        if self.stained && !reply.errors.is_empty() {
            // DISCARD and the like are among the messes: then it is gone, by its own doing.
            self.check("a statement", &reply, &["26000", "42P01", "42501", "42703"]);
            self.statement = None;
            return;
        }
        if !self.stained {
            assert_eq!(reply.value(), format!("{mark}{}", self.tenant));
        }
    }

    async fn fail_in_a_pipeline(&mut self) {
        self.last = "a failing pipeline";
        let batch = Batch::new()
            .run("SELECT 1 / 0", &[])
            .run("SELECT 'skipped'", &[])
            .sync()
            .run("SELECT 'runs'", &[])
            .sync();
        self.wire.send(&batch.0).await;
        let reply = self.wire.until_ready().await;
        assert_eq!((reply.code(), reply.rows.len()), ("22012", 0));
        assert_eq!(self.wire.until_ready().await.value(), "runs");
    }

    async fn fail_in_a_transaction(&mut self) {
        self.last = "a failing transaction";
        self.wire.query("BEGIN; SET TimeZone = 'Africa/Cairo'").await;
        assert_eq!(self.wire.query("SELECT broken").await.status, Some('E'));
        let end = *self.random.pick(&["ROLLBACK", "COMMIT", "ABORT"]);
        assert_eq!(self.wire.query(end).await.status, Some('I'));
    }

    /// A cancel request in the same moment as its query; whatever it hits is ours.
    async fn cancel_itself(&mut self, stage: &Stage) {
        self.last = "a cancel";
        self.wire.send(&Batch::new().query("SELECT pg_sleep(0.003)").0).await;
        let (pid, secret) = self.wire.key.clone();
        let mut stream = TcpStream::connect(stage.address()).await.unwrap();
        stream.write_all(&Batch::cancel_request(pid, &secret).0).await.unwrap();
        let reply = self.wire.until_ready().await;
        self.check("a cancelled query", &reply, &["57014"]);
        // Until the request is answered, by a close, it may still hit the next query of this client.
        let mut nothing = [0];
        assert_eq!(stream.read(&mut nothing).await.expect("a clean close"), 0);
    }

    async fn write(&mut self) {
        self.last = "a write";
        let reply = self.wire.query("BEGIN; INSERT INTO things VALUES (77, 'intruder', ''); ROLLBACK").await;
        // 25006: it made itself read-only; 42703 and 22P02: its own temporary table has other columns.
        let allowed: &[&str] =
            if self.stained { &["25006", "42P01", "42501", "42601", "42703", "22P02"] } else { &["23505"] };
        self.check("a write", &reply, allowed);
        if reply.status != Some('I') {
            self.wire.query("ROLLBACK").await;
        }
    }

    /// Goes in the middle of something, without a word.
    async fn vanish(&mut self, stage: &Stage) {
        let way = self.random.below(7);
        self.last = ["vanish 0", "vanish 1", "vanish 2", "vanish 3", "vanish 4", "vanish 5", "vanish 6"][way];
        let half = match way {
            0 => Batch::new().query("BEGIN; DELETE FROM things"),
            1 => Batch::new().query("BEGIN; SELECT broken"),
            2 => Batch::new().query("COPY things FROM STDIN").copy_data(b"78\tintruder\t\n"),
            3 => Batch::new().query("SELECT repeat('x', 1000) FROM generate_series(1, 20000)"),
            4 => Batch::new().run("DELETE FROM things", &[]),
            5 => Batch::new().query("BEGIN; SET work_mem = '77MB'").raw(b"Q\0\0\0\x50SELECT"),
            _ => Batch::new().parse("s", "DELETE FROM things").bind("", "s", &[]).execute("").flush(),
        };
        self.wire.send(&half.0).await;
        // Without a Flush or a Sync (4), Postgres keeps its answers.
        if way != 4 && self.random.one_in(2) {
            self.wire.message().await;
        }
        self.wire = stage.client(self.tenant).await;
        (self.zone, self.statement, self.stained) = (None, None, false);
    }

    async fn glance(&mut self) {
        let reply = self.wire.query(GLANCE).await;
        if self.stained {
            self.check("a glance at its own remains", &reply, &["42P01", "42501", "42703"]);
            self.never_foreign(&reply);
            return;
        }
        self.check("a glance", &reply, &[]);
        let row: Vec<_> = reply.rows[0].iter().flatten().map(String::as_str).collect();
        let (role, schema) = (format!("role_{}", self.tenant), format!("schema_{}", self.tenant));
        assert_eq!(row, [role.as_str(), schema.as_str(), self.tenant]);
    }

    async fn look(&mut self) {
        let reply = self.wire.query(LOOK).await;
        if self.stained {
            self.check("a look at its own remains", &reply, &["42P01", "42501", "42703"]);
            self.never_foreign(&reply);
            return;
        }
        self.check("a look", &reply, &[]);
        let row: Vec<_> = reply.rows[0].iter().flatten().map(String::as_str).collect();
        let (role, schema) = (format!("role_{}", self.tenant), format!("schema_{}", self.tenant));
        let zone = self.zone.unwrap_or("UTC");
        let (role, schema) = (role.as_str(), schema.as_str());
        let expected = [
            role,
            role,
            schema,
            schema,
            self.tenant,
            "4MB",
            "off",
            "read committed",
            "0",
            "0",
            "0",
            "0",
            "0",
            "0",
            zone,
        ];
        assert_eq!(row, expected);
    }

    /// Even with a mess of its own making, a client sees no other tenant's name in any value.
    fn never_foreign(&self, reply: &Reply) {
        for value in reply.rows.iter().flatten().flatten() {
            for other in super::TENANTS.iter().filter(|other| **other != self.tenant) {
                // The path may be set to anything; what may be read through it is the wall's business.
                let path = value.starts_with("schema_");
                assert!(path || !value.contains(other), "{} saw {value}", self.tenant);
            }
        }
    }
}
