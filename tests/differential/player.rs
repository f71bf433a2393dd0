//! Plays a script on one connection and writes down every message that comes.
//!
//! Owns the connection. Must not know what the answers should be; the comparison is of two players.

use std::collections::VecDeque;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::script::{Script, Wait};
use crate::support::{Batch, Io, Login, Message, PATIENCE, Wire};

/// Where to log in, and as whom.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    pub(crate) address: SocketAddr,
    pub(crate) login: Login,
}

/// What a session was told.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    pub(crate) greeting: Vec<Message>,
    /// By step.
    pub(crate) steps: Vec<Vec<Message>>,
    /// Why it ended before the script did.
    pub(crate) broke_off: Option<&'static str>,
}

impl Transcript {
    pub(crate) fn errors(&self) -> u64 {
        self.steps.iter().flatten().filter(|message| message.tag == b'E').count() as u64
    }
}

/// A session at work.
struct Player {
    address: SocketAddr,
    key: (u32, Vec<u8>),
    io: Box<dyn Io>,
    inbox: Vec<u8>,
    read: usize,
    /// Steps whose answers are still to come, with the ReadyForQuery they bring.
    pending: VecDeque<(usize, usize)>,
    /// What is to be cancelled runs.
    seen_running: bool,
    transcript: Transcript,
}

/// Why a session cannot go on.
type Broken = &'static str;

/// Plays the script to its end, or as far as it goes.
pub(crate) async fn play(side: &Side, script: &Script) -> Transcript {
    let mut wire = Wire::connect(side.address).await;
    let mut login = side.login.clone();
    login.parameters.extend(script.startup.iter().cloned());
    let reply = wire.log_in(&login).await;
    let key = wire.key.clone();
    let (io, inbox) = wire.into_parts();
    let mut player = Player {
        address: side.address,
        key,
        io,
        inbox,
        read: 0,
        pending: VecDeque::new(),
        seen_running: false,
        transcript: Transcript { greeting: reply.messages, ..Transcript::default() },
    };
    if reply.status.is_none() {
        player.transcript.broke_off = Some("the login failed");
        return player.transcript;
    }
    if let Err(broken) = player.all(script).await {
        player.transcript.broke_off = Some(broken);
        return player.transcript;
    }
    let _ = player.io.write_all(&script.goodbye).await;
    if script.goodbye == Batch::new().terminate().0 {
        // The session is over when the other side says so.
        let _ = tokio::time::timeout(PATIENCE, player.io.read_u8()).await;
    }
    player.transcript
}

impl Player {
    async fn all(&mut self, script: &Script) -> Result<(), Broken> {
        for (index, step) in script.steps.iter().enumerate() {
            self.transcript.steps.push(Vec::new());
            let mut is_ignoring = false;
            let mut cut = step.cut;
            for part in &step.parts {
                if !matches!(part.wait, Wait::Ready(_)) {
                    self.settle().await?;
                }
                let (first, second) = part.bytes.split_at(cut.take().unwrap_or(0).min(part.bytes.len()));
                self.send(first).await?;
                if !first.is_empty() {
                    tokio::task::yield_now().await;
                }
                self.send(second).await?;
                match part.wait {
                    Wait::Ready(count) => {
                        self.pending.push_back((index, count));
                        is_ignoring = false;
                        if !step.is_joined {
                            self.settle().await?;
                        }
                    }
                    Wait::Answers(count) if !is_ignoring => {
                        is_ignoring = in_time(self.answers(index, count)).await?;
                    }
                    Wait::Answers(_) => {}
                    Wait::Cancel(count) => {
                        self.pending.push_back((index, count));
                        self.seen_running = false;
                        self.cancel().await?;
                    }
                }
            }
        }
        self.settle().await
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let sent = tokio::time::timeout(PATIENCE, self.io.write_all(bytes)).await;
        sent.map_err(|_| "nobody reads what is sent")?.map_err(|_| "the stream is closed")
    }

    /// Reads what is pending.
    async fn settle(&mut self) -> Result<(), Broken> {
        while !self.pending.is_empty() {
            in_time(self.read_pending()).await?;
        }
        Ok(())
    }

    /// One message of what is pending.
    async fn read_pending(&mut self) -> Result<(), Broken> {
        let Some(&(step, _)) = self.pending.front() else { return Ok(()) };
        let message = self.message().await?;
        self.seen_running |= message.tag == b'N' && message.fields().message == IT_RUNS;
        if message.tag == b'Z'
            && let Some((_, left)) = self.pending.front_mut()
        {
            *left -= 1;
            if *left == 0 {
                self.pending.pop_front();
            }
        }
        self.transcript.steps[step].push(message);
        Ok(())
    }

    /// Reads so many answers, or an error: then the answer is `true`.
    async fn answers(&mut self, step: usize, count: usize) -> Result<bool, Broken> {
        let mut left = count;
        while left > 0 {
            let message = self.message().await?;
            let tag = message.tag;
            self.transcript.steps[step].push(message);
            match tag {
                b'E' => return Ok(true),
                b'1' | b'2' | b'3' | b'T' | b'n' | b'C' | b'I' | b's' => left -= 1,
                _ => {}
            }
        }
        Ok(false)
    }

    /// Asks for a cancel as soon as what is to be cancelled says that it runs: a request that comes before is ignored, or
    /// hits something else.
    async fn cancel(&mut self) -> Result<(), Broken> {
        while !self.seen_running {
            // It may also fail before.
            if self.pending.is_empty() {
                return Ok(());
            }
            in_time(self.read_pending()).await?;
        }
        let (pid, secret) = self.key.clone();
        let mut stream = TcpStream::connect(self.address).await.map_err(|_| "a cancel was refused")?;
        let request = Batch::cancel_request(pid, &secret).0;
        let asked = async {
            stream.write_all(&request).await?;
            stream.read(&mut [0]).await
        };
        let _ = tokio::time::timeout(PATIENCE, asked).await;
        self.settle().await
    }

    async fn message(&mut self) -> Result<Message, Broken> {
        loop {
            let unread = &self.inbox[self.read..];
            if let Some(length) = unread.get(1..5) {
                let length = u32::from_be_bytes(length.try_into().unwrap());
                let length = 1 + usize::try_from(length).unwrap();
                if unread.len() >= length {
                    let message = Message { tag: unread[0], body: unread[5..length].to_vec() };
                    self.read += length;
                    return Ok(message);
                }
            }
            self.inbox.drain(..self.read);
            self.read = 0;
            self.inbox.reserve(READ_BYTES);
            match self.io.read_buf(&mut self.inbox).await {
                Ok(0) | Err(_) => return Err("the stream ended"),
                Ok(_) => {}
            }
        }
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, Broken>>) -> Result<T, Broken> {
    tokio::time::timeout(PATIENCE, answer).await.map_err(|_| "no answer in time")?
}

/// The notice of a query that is to be cancelled.
pub(crate) const IT_RUNS: &str = "it runs";

const READ_BYTES: usize = 32 * 1024;
