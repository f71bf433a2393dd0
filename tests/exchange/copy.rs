//! COPY in the model (`src/backend/commands/copyfromparse.c`, CopyGetData).

use super::backend::{Backend, PgError};
use super::messages::put;
use super::sql::Sql;

/// A COPY that reads from the client.
#[derive(Debug)]
pub(super) struct CopyIn {
    rows: usize,
    /// The statements of the simple query behind it; `None` in the extended protocol.
    rest: Option<Vec<String>>,
}

impl Backend {
    pub(super) fn begin_copy_in(&mut self, sql: &Sql, rest: Option<Vec<String>>) -> Result<(), PgError> {
        put(&mut self.buffered, b'G', &[b"\0\0\0"]);
        self.flush();
        if *sql == Sql::CopyInFails {
            return Err(PgError("42501", "a trigger does not want this".to_owned()));
        }
        self.copy = Some(CopyIn { rows: 0, rest });
        Ok(())
    }

    /// A message while a COPY reads.
    pub(super) fn copy_message(&mut self, tag: u8, body: &[u8]) {
        let Some(copy) = &mut self.copy else { return };
        match tag {
            b'd' if body == b"bad" => {
                self.fail(&PgError("22P04", "extra data after last expected column".to_owned()));
            }
            b'd' => copy.rows += 1,
            b'f' => self.fail(&PgError("57014", "COPY from stdin failed: stop".to_owned())),
            b'c' => {
                let tag = format!("COPY {}", copy.rows);
                let rest = copy.rest.take();
                self.copy = None;
                put(&mut self.buffered, b'C', &[tag.as_bytes(), b"\0"]);
                if let Some(Err(error)) = rest.map(|rest| self.simple_rest(rest)) {
                    self.fail(&error);
                }
            }
            // Sync and Flush are ignored: a client may not know yet that its command was a COPY.
            b'H' | b'S' => {}
            _ => self.die("terminating connection because protocol synchronization was lost"),
        }
    }

    pub(super) fn copy_out(&mut self, text: &str) {
        put(&mut self.buffered, b'H', &[b"\0\0\0"]);
        put(&mut self.buffered, b'd', &[text.as_bytes()]);
        put(&mut self.buffered, b'd', &[b"second"]);
        put(&mut self.buffered, b'c', &[]);
    }
}
