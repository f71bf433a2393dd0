//! What one session says, step by step, as bytes and as text, and how far its answers go.
//!
//! Owns the encoding of steps and the count of answers each of them brings. Must not know what is said, or to whom.
//!
//! A step stands for itself: it begins behind a ReadyForQuery and ends with one, so that any of them may be left out.

use std::fmt::Write;

use crate::support::Batch;

/// A session from login to end.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// Startup parameters beside user and database.
    pub(crate) startup: Vec<(String, String)>,
    pub(crate) steps: Vec<Step>,
    /// Said at the end without waiting for an answer; mostly Terminate.
    pub(crate) goodbye: Vec<u8>,
}

/// What is sent in one go, or in parts with the answers awaited in between.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Name of the feature in the table.
    pub(crate) feature: &'static str,
    pub(crate) text: String,
    pub(crate) parts: Vec<Part>,
    /// How many statements it has the server run.
    pub(crate) statements: u64,
    /// The next step is sent without waiting for the answers to this one.
    pub(crate) is_joined: bool,
    /// The first part is sent in two pieces.
    pub(crate) cut: Option<usize>,
}

#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) bytes: Vec<u8>,
    pub(crate) wait: Wait,
}

/// When the answers to a part are complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// With so many ReadyForQuery.
    Ready(usize),
    /// With so many answers to extended-protocol messages before a Flush, or with an error.
    Answers(usize),
    /// As `Ready`, after cancel requests for what runs.
    Cancel(usize),
}

/// Writes a step.
#[derive(Default)]
pub(crate) struct Talk {
    parts: Vec<Part>,
    batch: Batch,
    text: String,
    ready: usize,
    answers: usize,
    statements: u64,
}

/// A parameter or result as it goes over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Binary,
}

/// A value for a parameter, in both formats.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    pub(crate) text: String,
    pub(crate) binary: Vec<u8>,
}

impl Value {
    pub(crate) fn int(number: i32) -> Self {
        Self { text: number.to_string(), binary: number.to_be_bytes().to_vec() }
    }

    pub(crate) fn text(text: &str) -> Self {
        Self { text: text.to_owned(), binary: text.as_bytes().to_vec() }
    }
}

impl Script {
    pub(crate) fn statements(&self) -> u64 {
        self.steps.iter().map(|step| step.statements).sum()
    }
}

impl Talk {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn say(mut self, text: &str, add: impl FnOnce(Batch) -> Batch) -> Self {
        if !self.text.is_empty() {
            self.text.push_str(" | ");
        }
        let shown = text.chars().take(TEXT_MAX);
        self.text.extend(shown);
        self.batch = add(std::mem::take(&mut self.batch));
        self
    }

    pub(crate) fn query(mut self, sql: &str) -> Self {
        self.ready += 1;
        self.statements += sql.split(';').filter(|part| !part.trim().is_empty()).count() as u64;
        self.say(&format!("Q {sql}"), |batch| batch.query(sql))
    }

    pub(crate) fn parse(mut self, name: &str, sql: &str) -> Self {
        self.answers += 1;
        self.say(&format!("P({name}) {sql}"), |batch| batch.parse(name, sql))
    }

    /// All parameters and results as text.
    pub(crate) fn bind(self, portal: &str, statement: &str, values: &[Value]) -> Self {
        self.bind_as((portal, statement), values, Format::Text, Format::Text)
    }

    pub(crate) fn bind_as(
        mut self,
        (portal, statement): (&str, &str),
        values: &[Value],
        format: Format,
        results: Format,
    ) -> Self {
        self.answers += 1;
        let mut body = [portal.as_bytes(), b"\0", statement.as_bytes(), b"\0"].concat();
        let codes = |format| if format == Format::Binary { [0, 1, 0, 1].as_slice() } else { &[0, 0] };
        body.extend_from_slice(codes(format));
        body.extend_from_slice(&u16::try_from(values.len()).unwrap().to_be_bytes());
        let mut shown = String::new();
        for value in values {
            let bytes = if format == Format::Binary { &value.binary } else { value.text.as_bytes() };
            body.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_be_bytes());
            body.extend_from_slice(bytes);
            let _ = write!(shown, " '{:.20}'", value.text);
        }
        body.extend_from_slice(codes(results));
        let mark = if format == Format::Binary || results == Format::Binary { " binary" } else { "" };
        self.say(&format!("B({portal}<{statement}){shown}{mark}"), |batch| batch.message(b'B', &body))
    }

    /// Parse with the types of parameters.
    pub(crate) fn parse_typed(mut self, name: &str, sql: &str, types: &[u32]) -> Self {
        self.answers += 1;
        let mut body = [name.as_bytes(), b"\0", sql.as_bytes(), b"\0"].concat();
        body.extend_from_slice(&u16::try_from(types.len()).unwrap().to_be_bytes());
        types.iter().for_each(|number| body.extend_from_slice(&number.to_be_bytes()));
        self.say(&format!("P({name}) {types:?} {sql}"), |batch| batch.message(b'P', &body))
    }

    /// Each parameter in a format of its own, `None` is NULL; so the results.
    pub(crate) fn bind_each(mut self, values: &[(Option<Value>, Format)], results: &[Format]) -> Self {
        self.answers += 1;
        let count = |length: usize| u16::try_from(length).unwrap().to_be_bytes();
        let code = |format: Format| u16::from(format == Format::Binary).to_be_bytes();
        let mut body = b"\0\0".to_vec();
        body.extend_from_slice(&count(values.len()));
        values.iter().for_each(|(_, format)| body.extend_from_slice(&code(*format)));
        body.extend_from_slice(&count(values.len()));
        for (value, format) in values {
            let Some(value) = value else {
                body.extend_from_slice(&(-1_i32).to_be_bytes());
                continue;
            };
            let bytes = if *format == Format::Binary { &value.binary } else { value.text.as_bytes() };
            body.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_be_bytes());
            body.extend_from_slice(bytes);
        }
        body.extend_from_slice(&count(results.len()));
        results.iter().for_each(|format| body.extend_from_slice(&code(*format)));
        self.say(&format!("B(<) {} values, results {results:?}", values.len()), |batch| {
            batch.message(b'B', &body)
        })
    }

    pub(crate) fn describe_statement(mut self, name: &str) -> Self {
        self.answers += 1;
        self.say(&format!("DS({name})"), |batch| batch.describe_statement(name))
    }

    pub(crate) fn describe_portal(mut self, name: &str) -> Self {
        self.answers += 1;
        self.say(&format!("DP({name})"), |batch| batch.describe_portal(name))
    }

    pub(crate) fn execute(self, portal: &str) -> Self {
        self.execute_rows(portal, 0)
    }

    pub(crate) fn execute_rows(mut self, portal: &str, rows: u32) -> Self {
        self.answers += 1;
        self.statements += 1;
        let limit = if rows == 0 { String::new() } else { format!(" rows {rows}") };
        self.say(&format!("E({portal}){limit}"), |batch| batch.execute_rows(portal, rows))
    }

    pub(crate) fn close_statement(mut self, name: &str) -> Self {
        self.answers += 1;
        self.say(&format!("CS({name})"), |batch| batch.close_statement(name))
    }

    pub(crate) fn close_portal(mut self, name: &str) -> Self {
        self.answers += 1;
        self.say(&format!("CP({name})"), |batch| {
            batch.message(b'C', &[b"P", name.as_bytes(), b"\0"].concat())
        })
    }

    pub(crate) fn sync(mut self) -> Self {
        self.ready += 1;
        self.say("S", Batch::sync)
    }

    /// A Sync that brings no answer, because COPY data is read.
    pub(crate) fn sync_in_copy(self) -> Self {
        self.say("S (ignored)", Batch::sync)
    }

    /// A function call: the function's number, its arguments and its result in one format.
    pub(crate) fn call(mut self, function: u32, arguments: &[Value], format: Format) -> Self {
        self.ready += 1;
        self.statements += 1;
        let code: u16 = if format == Format::Binary { 1 } else { 0 };
        let mut body = function.to_be_bytes().to_vec();
        body.extend_from_slice(&1_u16.to_be_bytes());
        body.extend_from_slice(&code.to_be_bytes());
        body.extend_from_slice(&u16::try_from(arguments.len()).unwrap().to_be_bytes());
        let mut shown = String::new();
        for argument in arguments {
            let bytes = if format == Format::Binary { &argument.binary } else { argument.text.as_bytes() };
            body.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_be_bytes());
            body.extend_from_slice(bytes);
            let _ = write!(shown, " '{:.20}'", argument.text);
        }
        body.extend_from_slice(&code.to_be_bytes());
        self.say(&format!("F {function}{shown} {format:?}"), |batch| batch.message(b'F', &body))
    }

    pub(crate) fn copy_data(self, data: &[u8]) -> Self {
        let text = format!("d {} bytes {:.30?}", data.len(), String::from_utf8_lossy(data));
        self.say(&text, |batch| batch.copy_data(data))
    }

    pub(crate) fn copy_done(self) -> Self {
        self.say("c", Batch::copy_done)
    }

    pub(crate) fn copy_fail(self, why: &str) -> Self {
        self.say(&format!("f {why}"), |batch| batch.copy_fail(why))
    }

    /// Flush, and wait for the answers so far.
    pub(crate) fn flush(self) -> Self {
        assert!(self.ready == 0, "a part that ends with Flush has no other end");
        let wait = Wait::Answers(self.answers);
        self.say("H", Batch::flush).part(wait)
    }

    /// Waits for the answers so far.
    pub(crate) fn wait(self) -> Self {
        let wait = Wait::Ready(self.ready);
        self.part(wait)
    }

    /// Cancels what was sent so far while it runs, and waits for the answers.
    pub(crate) fn cancel(mut self) -> Self {
        self.text.push_str(" | cancel");
        let wait = Wait::Cancel(self.ready);
        self.part(wait)
    }

    fn part(mut self, wait: Wait) -> Self {
        let Batch(bytes) = std::mem::take(&mut self.batch);
        if !bytes.is_empty() {
            self.parts.push(Part { bytes, wait });
            self.text.push_str(" ;;");
        }
        (self.ready, self.answers) = (0, 0);
        self
    }

    /// The step.
    pub(crate) fn step(self, feature: &'static str) -> Step {
        let Self { parts, text, statements, .. } = self.wait();
        assert!(
            parts.last().is_some_and(|part| !matches!(part.wait, Wait::Ready(0) | Wait::Answers(_))),
            "a step ends with ReadyForQuery: {text}"
        );
        Step { feature, text, parts, statements, is_joined: false, cut: None }
    }
}

/// Letters of each message that the report shows.
const TEXT_MAX: usize = 200;
