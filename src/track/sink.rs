//! What is to be written: a run of the input as it is, or a copy with differences.
//!
//! Owns the choice between the two. As long as nothing differs, nothing is copied.

/// Collects the output of one pass over `input`.
#[derive(Debug)]
pub struct Sink<'a> {
    input: &'a [u8],
    run_start: usize,
    run_end: usize,
    out: &'a mut Vec<u8>,
    diverged: bool,
}

impl<'a> Sink<'a> {
    /// A sink for one pass. What `out` already holds goes first.
    pub fn new(input: &'a [u8], out: &'a mut Vec<u8>) -> Self {
        let diverged = !out.is_empty();
        Self { input, run_start: 0, run_end: 0, out, diverged }
    }

    /// The next `len` bytes of the input go out as they are.
    pub fn keep(&mut self, len: usize) {
        self.run_end = self.run_end.saturating_add(len).min(self.input.len());
    }

    /// The next `len` bytes of the input do not go out.
    pub fn drop_input(&mut self, len: usize) {
        self.settle();
        self.run_start = self.run_end.saturating_add(len).min(self.input.len());
        self.run_end = self.run_start;
    }

    /// Where bytes that are not in the input are to be written.
    pub fn insert(&mut self) -> &mut Vec<u8> {
        self.settle();
        self.out
    }

    /// Bytes assembled so far, copies included.
    #[must_use]
    pub fn assembled(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing goes out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.run_start == self.run_end && self.out.is_empty()
    }

    /// All that goes out: a part of the input if nothing differs, else what was assembled.
    #[must_use]
    pub fn finish(mut self) -> &'a [u8] {
        if self.diverged {
            self.settle();
            return self.out;
        }
        self.input.get(self.run_start..self.run_end).unwrap_or_default()
    }

    fn settle(&mut self) {
        self.diverged = true;
        if let Some(run) = self.input.get(self.run_start..self.run_end) {
            self.out.extend_from_slice(run);
        }
        self.run_start = self.run_end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_run_is_not_copied() {
        let (input, mut out) = (b"abcdef".as_slice(), Vec::new());
        let mut sink = Sink::new(input, &mut out);
        sink.keep(2);
        sink.keep(3);
        let bytes = sink.finish();
        assert_eq!(bytes, b"abcde");
        assert_eq!(bytes.as_ptr(), input.as_ptr());
    }

    #[test]
    fn differences_keep_their_place() {
        let mut out = b"<".to_vec();
        let mut sink = Sink::new(b"abcdef", &mut out);
        sink.keep(2);
        sink.drop_input(2);
        sink.insert().extend_from_slice(b"XY");
        sink.keep(1);
        assert_eq!(sink.finish(), b"<abXYe");
    }
}
