//! One client that looks around, leaves something behind, and looks again.
//!
//! Owns what it does and what answers it accepts. Must not know what the proxy does to keep it true.

mod alone;

use std::sync::Arc;

pub(crate) use alone::try_alone;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::hidden;
use crate::kind::{Belongings, COLUMNS, Kind, Verdict, look};
use crate::mess::{Mess, Then};
use crate::scene::Scene;
use crate::support::{Batch, Random, Reply, Wire};

/// The cheap look, most of the time.
const GLANCE: &str =
    "SELECT current_user, current_setting('search_path'), coalesce(current_setting('my.name', true), ''),
    current_setting('work_mem'), pg_backend_pid(), (SELECT owner FROM things WHERE id = 1)";
/// What the columns of the glance are.
const GLANCED: [Kind; 4] = [Kind::Role, Kind::Path, Kind::CustomBySet, Kind::WorkMem];

/// What is met otherwise than in a column of the look.
pub(crate) const OTHERS: [&str; 8] = [NAMED, UNNAMED, SEQUENCE, NOTIFICATION, LOST, TENANT, ERROR, PIPELINE];
const NAMED: &str = "named statement of the protocol";
const UNNAMED: &str = "unnamed statement, bound in a later transaction";
const SEQUENCE: &str = "`lastval`, `currval`";
const NOTIFICATION: &str = "notification of a channel";
const LOST: &str = "session ended";
const TENANT: &str = "something of another tenant";
const ERROR: &str = "error for which there is no reason";
const PIPELINE: &str = "answers of a pipeline";

/// A number that the client was not told.
const UNTOLD: &str = "untold";

/// A client of one tenant.
pub(crate) struct Visitor {
    scene: Arc<Scene>,
    wire: Wire,
    tenant: &'static str,
    random: Random,
    /// What clients of the tenant can leave behind.
    messes: Vec<&'static Mess>,
    /// Number of the session.
    id: u64,
    belongings: Belongings,
    /// What its named statement `s` answers.
    statement: Option<String>,
    /// Whether its named statement `t` is there, which sets something.
    setter: bool,
    /// What a sequence gave it last.
    number: Option<String>,
    /// What it did last, for the report of a failure.
    pub(crate) last: String,
    /// Its session was ended for what it had left: the rest of this act is another session's, of which nothing is known.
    was_ended: bool,
}

impl Visitor {
    pub(crate) async fn new(scene: Arc<Scene>, tenant: &'static str, seed: u64) -> Self {
        let (wire, id) = scene.client(tenant).await;
        Self {
            scene,
            wire,
            tenant,
            random: Random::new(seed),
            messes: hidden::messes(tenant),
            id,
            belongings: Belongings::new(tenant),
            statement: None,
            setter: false,
            number: None,
            last: String::new(),
            was_ended: false,
        }
    }

    /// One act: something random, then a look.
    pub(crate) async fn act(&mut self) {
        self.was_ended = false;
        match self.random.below(20) {
            0..=4 => self.leave_a_mess().await,
            5 => self.use_a_statement().await,
            6 => self.set_by_a_statement().await,
            7 => self.use_the_unnamed_statement().await,
            8 => self.fail_in_a_pipeline().await,
            9 => self.fail_in_a_transaction().await,
            // PgBouncer 1.18 may end in the middle of a cancel (its issue 822), and nothing can be counted then.
            10 if !self.scene.is_peer() => self.cancel_itself().await,
            11 => self.vanish().await,
            12 => self.write().await,
            13 => self.count().await,
            14 => self.use_what_it_prepared().await,
            15 => self.notify().await,
            16 => self.call_a_function().await,
            _ => "nothing".clone_into(&mut self.last),
        }
        if self.random.one_in(4) {
            self.look().await;
        } else {
            self.glance().await;
        }
        if !self.belongings.are_clean() && self.random.one_in(4) {
            if self.random.one_in(2) {
                self.wire.send(&Batch::new().terminate().0).await;
            }
            self.begin_anew().await;
        }
    }

    /// A new session in place of this one.
    async fn begin_anew(&mut self) {
        (self.wire, self.id) = self.scene.client(self.tenant).await;
        self.belongings = Belongings::new(self.tenant);
        (self.statement, self.setter, self.number) = (None, false, None);
    }

    fn differs(&self, kind: &str, verdict: Verdict, what: &str) {
        if self.was_ended {
            return;
        }
        self.scene.differs(kind, verdict, || {
            format!(
                "session {} of {}, after {}: {what}\n{:#?}",
                self.id, self.tenant, self.last, self.belongings
            )
        });
    }

    async fn query(&mut self, sql: &str) -> Reply {
        self.ask(Batch::new().query(sql)).await
    }

    async fn ask(&mut self, batch: Batch) -> Reply {
        self.wire.send(&batch.0).await;
        self.answer().await
    }

    /// The answer up to ReadyForQuery; what comes in between by itself must be this client's.
    async fn answer(&mut self) -> Reply {
        let reply = self.wire.until_ready().await;
        let channel = format!("remains_{}", self.id);
        for message in reply.messages.iter().filter(|message| message.tag == b'A') {
            let name = message.body[4..].split(|byte| *byte == 0).next().unwrap_or_default();
            if name != channel.as_bytes() {
                self.differs(NOTIFICATION, Verdict::Foreign, &String::from_utf8_lossy(name));
            }
        }
        if reply.status.is_none() && reply.errors.last().is_some_and(|error| error.code == "53400") {
            // What it left out of sight kept one server too many, and it was told.
            self.begin_anew().await;
            self.was_ended = true;
        } else if reply.status.is_none() {
            self.differs(LOST, Verdict::Lost, &format!("{reply:?}"));
            self.begin_anew().await;
        }
        reply
    }

    /// This is not the answer to what was asked last: from here on, nothing fits.
    async fn lose_step(&mut self, reply: &Reply) {
        self.differs(PIPELINE, Verdict::Foreign, &format!("{reply:?}"));
        self.begin_anew().await;
    }

    /// No error, or one of those that the act or what the client left itself may cause. Whether there was none.
    fn check(&self, what: &str, reply: &Reply, allowed: &[&str]) -> bool {
        for error in &reply.errors {
            let code = error.code.as_str();
            let cause = match code {
                "25006" => Some(Kind::ReadOnly),
                "42P07" | "42703" | "42809" | "42601" | "22P02" => Some(Kind::Shadow),
                "42P01" | "3F000" | "42883" | "42704" => Some(Kind::Path),
                "42501" => Some(Kind::Role),
                "42P05" => Some(Kind::Prepared),
                "42P03" => Some(Kind::HeldCursor),
                "42723" | "42710" => Some(Kind::TempOther),
                _ => None,
            };
            let excused = cause.is_some_and(|kind| !self.belongings.is_clean(kind))
                || code == "42P07" && !self.belongings.is_clean(Kind::TempRelation)
                // What it made in another role belongs to that one.
                || code == "42501" && self.belongings.has_left(Kind::Role);
            if allowed.contains(&code) || excused {
                continue;
            }
            let story = format!("{what}: {error:?}");
            match cause {
                Some(kind) => self.differs(kind.name(), Verdict::Foreign, &story),
                None => self.differs(ERROR, Verdict::Foreign, &story),
            }
        }
        reply.errors.is_empty()
    }

    async fn roll_back(&mut self, reply: &Reply) {
        if matches!(reply.status, Some('E' | 'T')) {
            self.query("ROLLBACK").await;
        }
    }

    fn fill(&self, text: &str) -> String {
        let odd = 3_600_001 + 2 * self.id;
        text.replace("{id}", &self.id.to_string())
            .replace("{odd}", &odd.to_string())
            .replace("{tenant}", self.tenant)
    }

    fn pick_a_mess(&mut self) -> &'static Mess {
        let &mess = self.random.pick(&self.messes);
        mess
    }

    /// A simple query, if it can be one and is to be.
    fn batch_of(&self, mess: &Mess, is_simple: bool) -> Batch {
        let sql = self.fill(mess.sql);
        if mess.values.is_empty() && (is_simple || sql.contains(';')) {
            return Batch::new().query(&sql);
        }
        let values: Vec<String> = mess.values.iter().map(|value| self.fill(value)).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        Batch::new().run(&sql, &values).sync()
    }

    async fn leave_a_mess(&mut self) {
        let mess = self.pick_a_mess();
        let id = self.id;
        if let Some(before) = mess.before {
            if !self.leave(before).await {
                return;
            }
            self.glance().await;
        }
        if self.id == id {
            self.leave(mess).await;
        }
    }

    /// Whether it was left.
    async fn leave(&mut self, mess: &Mess) -> bool {
        let sql = self.fill(mess.sql);
        self.last = format!("{sql} {:?}", mess.values);
        let (id, is_simple) = (self.id, self.random.one_in(2));
        let reply = self.ask(self.batch_of(mess, is_simple)).await;
        if self.id != id {
            return false;
        }
        // Refused with a reason; or broken on purpose.
        let mut allowed = vec!["0A000", "42501", "53400"];
        if mess.then.is_empty() {
            allowed.push("22012");
        }
        let is_left = self.check(&sql, &reply, &allowed);
        if is_left {
            self.belong(mess.then);
            if sql.ends_with(" ALL") && (sql.starts_with("DISCARD") || sql.starts_with("DEALLOCATE")) {
                (self.statement, self.setter) = (None, false);
            }
            if sql.starts_with("INSERT INTO notes") {
                self.number = Some(UNTOLD.to_owned());
            }
        }
        self.roll_back(&reply).await;
        is_left
    }

    fn belong(&mut self, then: &[Then]) {
        for effect in then {
            match *effect {
                Then::Own(kind, value) => self.belongings.leave(kind, &self.fill(value), true),
                Then::Maybe(kind, value) => self.belongings.leave(kind, &self.fill(value), false),
                Then::Clean(kind) => self.belongings.clear(kind),
                Then::CleanSettings => self.clear_settings(),
                Then::CleanAll => {
                    self.clear_settings();
                    self.belongings.clear(Kind::Role);
                    for kind in [
                        Kind::TempRelation,
                        Kind::Shadow,
                        Kind::TempOther,
                        Kind::Lock,
                        Kind::Channel,
                        Kind::HeldCursor,
                        Kind::Prepared,
                    ] {
                        self.belongings.clear(kind);
                    }
                }
            }
        }
    }

    fn clear_settings(&mut self) {
        for kind in [
            Kind::Path,
            Kind::WorkMem,
            Kind::StatementTimeout,
            Kind::ReadOnly,
            Kind::Isolation,
            Kind::RowSecurity,
            Kind::TimeZone,
            Kind::IntervalStyle,
            Kind::ApplicationName,
            Kind::CustomBySet,
            Kind::CustomByFunction,
            Kind::CustomByTrigger,
            Kind::CustomByDo,
        ] {
            self.belongings.clear(kind);
        }
    }

    /// All clients call theirs `s`, and each means something else by it.
    async fn use_a_statement(&mut self) {
        "a prepared statement".clone_into(&mut self.last);
        let mark = format!("{}-{}-{}", self.tenant, self.id, self.random.next());
        let mut batch = Batch::new();
        if self.statement.is_none() || self.random.one_in(3) {
            batch = batch.close_statement("s").parse("s", &format!("SELECT '{mark}-' || $1::text"));
            self.statement = Some(mark);
        }
        let expected = format!("{}-3", self.statement.clone().unwrap());
        let reply = self.ask(batch.bind("", "s", &["3"]).execute("").sync()).await;
        self.judge_text(NAMED, &reply, &expected);
        if !reply.errors.is_empty() {
            self.statement = None;
        }
    }

    /// One value, this one; or its loss, or another's.
    fn judge_text(&self, kind: &str, reply: &Reply, expected: &str) {
        let value = reply.rows.first().and_then(|row| row.first()).cloned().flatten();
        match (value, reply.errors.first()) {
            (Some(value), None) if value == expected => {}
            (Some(value), None) => self.differs(kind, Verdict::Foreign, &format!("{value} for {expected}")),
            (_, error) => self.differs(kind, Verdict::Lost, &format!("{error:?} for {expected}")),
        }
    }

    /// A statement with a name that sets something each time it runs, on whichever server.
    async fn set_by_a_statement(&mut self) {
        "a prepared set_config".clone_into(&mut self.last);
        let mut batch = Batch::new();
        if !self.setter {
            batch = batch.close_statement("t").parse("t", "SELECT set_config('my.name', $1, false)");
        }
        let (id, value) = (self.id, format!("{}-{}", self.id, self.random.below(100)));
        let reply = self.ask(batch.bind("", "t", &[&value]).execute("").sync()).await;
        if self.id != id {
            return;
        }
        self.setter = reply.errors.is_empty();
        match reply.errors.first() {
            None => self.belongings.leave(Kind::CustomBySet, &value, true),
            Some(error) => self.differs(NAMED, Verdict::Lost, &format!("{error:?}")),
        }
    }

    /// Prepared by itself, and bound when others may have been on the server; or never prepared at all.
    async fn use_the_unnamed_statement(&mut self) {
        "the unnamed statement".clone_into(&mut self.last);
        let mark = format!("{}-{}", self.id, self.random.next());
        if self.random.one_in(3) {
            // A simple query takes it away.
            self.query("SELECT 1").await;
            let reply = self.ask(Batch::new().bind("", "", &[]).execute("").sync()).await;
            if reply.errors.first().is_none_or(|error| error.code != "26000") {
                self.differs(UNNAMED, Verdict::Foreign, &format!("{reply:?}"));
            }
            return;
        }
        let reply = self.ask(Batch::new().parse("", &format!("SELECT '{mark}'")).sync()).await;
        self.check("an unnamed Parse", &reply, &[]);
        let reply = self.ask(Batch::new().bind("", "", &[]).execute("").sync()).await;
        self.judge_text(UNNAMED, &reply, &mark);
    }

    /// What was prepared in SQL answers to who prepared it.
    async fn use_what_it_prepared(&mut self) {
        "EXECUTE".clone_into(&mut self.last);
        let own = self.belongings.own(Kind::Prepared).is_some();
        let reply = self.query("EXECUTE remains").await;
        let name = Kind::Prepared.name();
        if own {
            self.judge_text(name, &reply, &self.id.to_string());
        } else if self.belongings.is_clean(Kind::Prepared)
            && reply.errors.first().is_none_or(|error| error.code != "26000")
        {
            self.differs(name, Verdict::Foreign, &format!("{reply:?}"));
        }
    }

    /// A number of its own, or what the server says of numbers.
    async fn count(&mut self) {
        "a sequence".clone_into(&mut self.last);
        if self.random.one_in(2) {
            let sql = *self
                .random
                .pick(&["SELECT nextval('tick')", "INSERT INTO notes (body) VALUES ('{id}') RETURNING id"]);
            let (id, sql) = (self.id, self.fill(sql));
            let reply = self.query(&sql).await;
            if self.id != id || !self.check(&sql, &reply, &[]) {
                return;
            }
            let Some(row) = reply.rows.first() else { return self.lose_step(&reply).await };
            self.number.clone_from(&row[0]);
            if sql.starts_with("INSERT") && hidden::has_trigger(self.tenant) {
                self.belongings.leave(Kind::CustomByTrigger, &self.id.to_string(), true);
            }
        }
        let sql = *self.random.pick(&["SELECT lastval()", "SELECT currval('tick')"]);
        let reply = self.query(sql).await;
        let number = self.number.as_deref();
        let value = reply.rows.first().and_then(|row| row[0].as_deref());
        if value.is_some() && number != Some(UNTOLD) && number != value {
            self.differs(SEQUENCE, Verdict::Foreign, &format!("{sql}: {reply:?} for {number:?}"));
        }
        self.check(sql, &reply, &["55000"]);
    }

    /// To whoever listens there: one session at most.
    async fn notify(&mut self) {
        "NOTIFY".clone_into(&mut self.last);
        let other = self.id.saturating_sub(u64::try_from(self.random.below(40)).unwrap());
        let reply = self.query(&format!("NOTIFY remains_{other}, '{}'", self.id)).await;
        self.check("NOTIFY", &reply, &[]);
    }

    /// A function-call message for `set_config`.
    async fn call_a_function(&mut self) {
        "a function call".clone_into(&mut self.last);
        let (id, value) = (self.id, format!("call-{}", self.id));
        let mut body = [&2078_u32.to_be_bytes()[..], &0_u16.to_be_bytes(), &3_u16.to_be_bytes()].concat();
        for argument in ["my.block", &value, "f"] {
            body.extend_from_slice(&u32::try_from(argument.len()).unwrap().to_be_bytes());
            body.extend_from_slice(argument.as_bytes());
        }
        body.extend_from_slice(&0_u16.to_be_bytes());
        let reply = self.ask(Batch::new().message(b'F', &body)).await;
        if self.id == id && self.check("a function call", &reply, &["0A000"]) {
            self.belongings.leave(Kind::CustomByDo, &value, false);
        }
    }

    async fn fail_in_a_pipeline(&mut self) {
        "a failing pipeline".clone_into(&mut self.last);
        let batch = Batch::new()
            .run("SELECT set_config('my.name', 'x', false)", &[])
            .run("SELECT 1 / 0", &[])
            .run("SELECT 'skipped'", &[])
            .sync()
            .run("SELECT 'runs'", &[])
            .sync();
        let reply = self.ask(batch).await;
        let codes: Vec<&str> = reply.errors.iter().map(|error| error.code.as_str()).collect();
        if codes != ["22012"] || reply.rows.len() != 1 {
            self.differs(PIPELINE, Verdict::Foreign, &format!("{reply:?}"));
        }
        if reply.status.is_some() {
            let reply = self.answer().await;
            self.judge_text(PIPELINE, &reply, "runs");
        }
    }

    async fn fail_in_a_transaction(&mut self) {
        "a failing transaction".clone_into(&mut self.last);
        let reply = self.query("BEGIN; SET TimeZone = 'Africa/Cairo'; SET my.name = 'x'").await;
        self.check("a transaction", &reply, &[]);
        let broken = self.query("SELECT broken").await;
        let end = *self.random.pick(&["ROLLBACK", "COMMIT", "ABORT"]);
        let ended = self.query(end).await;
        if (broken.status, ended.status) != (Some('E'), Some('I')) {
            self.differs(PIPELINE, Verdict::Foreign, &format!("{broken:?} {ended:?}"));
        }
    }

    /// A cancel request in the same moment as its query; whatever it hits is ours.
    async fn cancel_itself(&mut self) {
        "a cancel".clone_into(&mut self.last);
        self.wire.send(&Batch::new().query("SELECT pg_sleep(0.003)").0).await;
        let (pid, secret) = self.wire.key.clone();
        let mut stream = TcpStream::connect(self.scene.address()).await.unwrap();
        stream.write_all(&Batch::cancel_request(pid, &secret).0).await.unwrap();
        let reply = self.answer().await;
        self.check("a cancelled query", &reply, &["57014"]);
        // Until the request is answered, by a close, it may still hit the next query of this client.
        let mut nothing = [0];
        assert_eq!(stream.read(&mut nothing).await.expect("a clean close"), 0);
    }

    async fn write(&mut self) {
        "a write".clone_into(&mut self.last);
        let reply = self.query("BEGIN; INSERT INTO things VALUES (77, 'intruder', ''); ROLLBACK").await;
        self.check("a write", &reply, &["23505"]);
        self.roll_back(&reply).await;
    }

    /// Goes in the middle of something, without a word.
    async fn vanish(&mut self) {
        let way = self.random.below(9);
        self.last = format!("vanish {way}");
        let mess = self.pick_a_mess();
        if let (Some(before), 7 | 8) = (mess.before, way) {
            // PgBouncer 1.18 gives the answer to a second query, of a client that is gone, to another client.
            self.ask(self.batch_of(before, true)).await;
        }
        let mess = self.batch_of(mess, true);
        let half = match way {
            0 => Batch::new().query("BEGIN; DELETE FROM things"),
            1 => Batch::new().query("BEGIN; SELECT broken"),
            2 => Batch::new().query("COPY things FROM STDIN").copy_data(b"78\tintruder\t\n"),
            3 => Batch::new().query("SELECT repeat('x', 1000) FROM generate_series(1, 20000)"),
            4 => Batch::new().run("DELETE FROM things", &[]),
            5 => Batch::new().query("BEGIN; SET work_mem = '77MB'").raw(b"Q\0\0\0\x50SELECT"),
            6 => Batch::new().parse("s", "DELETE FROM things").bind("", "s", &[]).execute("").flush(),
            7 => mess,
            _ => mess.terminate(),
        };
        self.wire.send(&half.0).await;
        // Without a Flush or a Sync (4), Postgres keeps its answers.
        if way != 4 && self.random.one_in(2) {
            self.wire.message().await;
        }
        self.begin_anew().await;
    }

    async fn glance(&mut self) {
        let id = self.id;
        let reply = self.query(GLANCE).await;
        if self.id != id || !self.check("a glance", &reply, &[]) {
            return;
        }
        let Some(row) = reply.rows.first() else { return self.lose_step(&reply).await };
        for (kind, value) in GLANCED.into_iter().zip(row) {
            self.judge(kind, value.as_deref().unwrap_or_default());
        }
        self.scene.see(row[4].as_deref().unwrap(), self.id);
        if self.belongings.is_clean(Kind::Shadow) && row[5].as_deref() != Some(self.tenant) {
            self.differs(Kind::Shadow.name(), Verdict::Foreign, &format!("{row:?}"));
        }
    }

    async fn look(&mut self) {
        let id = self.id;
        let reply = self.query(&look()).await;
        if self.id != id || !self.check("a look", &reply, &[]) {
            return;
        }
        let Some(row) = reply.rows.first() else { return self.lose_step(&reply).await };
        for ((kind, _, _, _), value) in COLUMNS.into_iter().zip(row) {
            self.judge(kind, value.as_deref().unwrap_or_default());
        }
        self.scene.see(row[COLUMNS.len()].as_deref().unwrap(), self.id);
    }

    fn judge(&mut self, kind: Kind, value: &str) {
        for other in super::TENANTS.iter().filter(|other| **other != self.tenant) {
            if value.contains(other) {
                self.differs(TENANT, Verdict::Foreign, value);
            }
        }
        let verdict = self.belongings.judge(kind, value);
        if verdict == Verdict::Right {
            return;
        }
        let story = format!("saw {value:?}, expected {:?}", self.belongings.expected(kind));
        self.differs(kind.name(), verdict, &story);
        // Behind a peer: told once, then it expects nothing any more, and counts what is another's.
        if !self.belongings.is_clean(kind) {
            self.belongings.doubt(kind);
        }
    }
}
