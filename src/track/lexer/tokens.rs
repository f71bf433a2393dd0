//! Tokens of SQL text, by the rules of Postgres' scanner (`src/backend/parser/scan.l`, versions 13 to 18).
//!
//! Owns where words, quotes and comments begin and end. Must not know what a word means.

/// One token. Whitespace and comments are between tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A keyword or an identifier without quotes, as written.
    Word(&'a [u8]),
    /// What is between the quotes of a `".."`, as written: a quote inside is still doubled.
    Name(&'a [u8]),
    /// A string constant of any notation.
    Text,
    /// Digits, or a parameter (`$1`).
    Number,
    /// Any other byte.
    Symbol(u8),
    /// The rest cannot be read, or not in one way only. No token follows.
    Doubt,
}

/// The tokens of one text; a clone looks ahead.
#[derive(Clone, Debug)]
pub(super) struct Tokens<'a> {
    rest: &'a [u8],
    /// Whether `rest` directly follows a [`Token::Number`].
    is_after_number: bool,
    /// Whether a backslash in an ordinary string certainly escapes nothing.
    is_standard: bool,
}

impl<'a> Tokens<'a> {
    pub(super) const fn new(sql: &'a [u8]) -> Self {
        Self { rest: sql, is_after_number: false, is_standard: false }
    }

    /// The same where `standard_conforming_strings` is on.
    pub(super) const fn standard(sql: &'a [u8]) -> Self {
        Self { is_standard: true, ..Self::new(sql) }
    }

    /// How many bytes have not been read.
    pub(super) const fn left(&self) -> usize {
        self.rest.len()
    }

    /// Takes the next token if it is one of these words (given in lower case).
    pub(super) fn eat_word(&mut self, words: &[&[u8]]) -> bool {
        let mut ahead = self.clone();
        let is_one = match ahead.next() {
            Some(Token::Word(word)) => words.iter().any(|wanted| is(word, wanted)),
            Some(Token::Name(_) | Token::Text | Token::Number | Token::Symbol(_) | Token::Doubt) | None => {
                false
            }
        };
        if is_one {
            *self = ahead;
        }
        is_one
    }

    /// Takes the next token if it is this symbol.
    pub(super) fn eat_symbol(&mut self, symbol: u8) -> bool {
        let mut ahead = self.clone();
        let is_it = ahead.next() == Some(Token::Symbol(symbol));
        if is_it {
            *self = ahead;
        }
        is_it
    }

    /// The next token, which stays where it is.
    pub(super) fn peek(&self) -> Option<Token<'a>> {
        self.clone().next()
    }

    /// Takes a string constant if nothing in it is written otherwise than it is.
    pub(super) fn text(&mut self) -> Option<&'a [u8]> {
        let inside = after_blanks(self.rest)?.strip_prefix(b"'")?;
        let (text, rest) = split_at_byte(inside, b'\'')?;
        let is_plain = !text.contains(&b'\\') && !rest.starts_with(b"'");
        // One on the next line would continue it.
        let ends = is_plain && Self::new(rest).next() != Some(Token::Text);
        ends.then(|| {
            self.rest = rest;
            text
        })
    }

    /// The same for a constant of any notation: `'..'`, `E'..'`, `$$..$$`.
    pub(super) fn constant(&mut self) -> Option<&'a [u8]> {
        let start = after_blanks(self.rest)?;
        let mut ahead = self.clone();
        if let Some(text) = ahead.text() {
            *self = ahead;
            return Some(text);
        }
        let ends = ahead.next() == Some(Token::Text) && ahead.peek() != Some(Token::Text);
        let written = start.get(..start.len().checked_sub(ahead.left())?).filter(|_| ends)?;
        let text = match written {
            [b'e' | b'E', b'\'', text @ .., b'\'']
                if !text.iter().any(|byte| matches!(byte, b'\\' | b'\'')) =>
            {
                text
            }
            [b'$', tail @ ..] => {
                let tag = memchr::memchr(b'$', tail)?.checked_add(2)?;
                written.get(tag..written.len().checked_sub(tag)?)?
            }
            _ => return None,
        };
        *self = ahead;
        Some(text)
    }

    fn doubt(&mut self) -> Token<'a> {
        self.rest = &[];
        Token::Doubt
    }

    /// Goes on at `rest` with a token just read, or gives up if there is no such rest.
    fn at(&mut self, token: Token<'a>, rest: Option<&'a [u8]>) -> Token<'a> {
        match rest {
            Some(rest) => {
                self.rest = rest;
                token
            }
            None => self.doubt(),
        }
    }

    fn word(&mut self, is_after_number: bool) -> Token<'a> {
        let (word, after) = split_while(self.rest, is_word_byte);
        match (word, after) {
            (b"e" | b"E", [b'\'', inside @ ..]) => self.at(Token::Text, after_escape_text(inside)),
            (b"u" | b"U", [b'&', b'\'', inside @ ..]) => self.at(Token::Text, after_text(inside, false)),
            (b"u" | b"U", [b'&', b'"', ..]) => self.doubt(),
            _ if is_after_number && word.contains(&b'$') => self.doubt(),
            _ => {
                self.rest = after;
                Token::Word(word)
            }
        }
    }

    fn name(&mut self, inside: &'a [u8]) -> Token<'a> {
        let mut tail = inside;
        loop {
            let Some((_, after)) = split_at_byte(tail, b'"') else { return self.doubt() };
            match after {
                [b'"', rest @ ..] => tail = rest,
                rest => {
                    let len = inside.len().saturating_sub(rest.len()).saturating_sub(1);
                    self.rest = rest;
                    return Token::Name(inside.get(..len).unwrap_or(inside));
                }
            }
        }
    }

    fn number(&mut self, digits: &'a [u8]) -> Token<'a> {
        self.rest = split_while(digits, |byte| byte.is_ascii_digit()).1;
        self.is_after_number = true;
        Token::Number
    }

    fn dollar(&mut self, after: &'a [u8]) -> Token<'a> {
        if after.first().is_some_and(u8::is_ascii_digit) {
            return self.number(after);
        }
        let (tag, tail) = split_while(after, |byte| is_word_byte(byte) && byte != b'$');
        if !tail.starts_with(b"$") {
            self.rest = after;
            return Token::Symbol(b'$');
        }
        let delimiter = self.rest.get(..tag.len().saturating_add(2)).unwrap_or_default();
        let body = self.rest.get(delimiter.len()..).unwrap_or_default();
        let rest = memchr::memmem::find(body, delimiter)
            .and_then(|end| body.get(end.saturating_add(delimiter.len())..));
        self.at(Token::Text, rest)
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let was_after_number = std::mem::take(&mut self.is_after_number);
        let Some(rest) = after_blanks(self.rest) else { return Some(self.doubt()) };
        let is_after_number = was_after_number && rest.len() == self.rest.len();
        self.rest = rest;
        let (&byte, after) = rest.split_first()?;
        Some(match byte {
            b'\'' => self.at(Token::Text, after_text(after, self.is_standard)),
            b'"' => self.name(after),
            b'$' => self.dollar(after),
            b'0'..=b'9' => self.number(rest),
            VERTICAL_TAB => self.doubt(),
            _ if is_word_byte(byte) => self.word(is_after_number),
            _ => {
                self.rest = after;
                Token::Symbol(byte)
            }
        })
    }
}

/// The tokens of one text, told whether they begin a statement. As in `verdict`, a `;` always ends one.
#[derive(Clone, Debug)]
pub(super) struct Statements<'a> {
    pub(super) tokens: Tokens<'a>,
    begins: bool,
}

impl<'a> Statements<'a> {
    pub(super) const fn of(sql: &'a [u8]) -> Self {
        Self { tokens: Tokens::new(sql), begins: true }
    }

    /// The next token, and whether it is the first of its statement.
    pub(super) fn next(&mut self) -> Option<(Token<'a>, bool)> {
        let token = self.tokens.next()?;
        let is_first = std::mem::replace(&mut self.begins, token == Token::Symbol(b';'));
        Some((token, is_first))
    }
}

/// Whitespace since Postgres 16, and a syntax error before.
const VERTICAL_TAB: u8 = 0x0b;

/// Whether a word as written is this keyword (given in lower case).
pub(super) fn is(word: &[u8], keyword: &[u8]) -> bool {
    word.eq_ignore_ascii_case(keyword)
}

/// Whether the byte may stand inside an identifier. Bytes of longer UTF-8 sequences all may, whatever character it is.
pub(super) fn is_word_byte(byte: u8) -> bool {
    WORD_BYTES.get(usize::from(byte)).copied().unwrap_or(false)
}

const WORD_BYTES: [bool; 256] = {
    let mut belongs = [false; 256];
    let mut byte = 0_u8;
    loop {
        belongs[byte as usize] = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..);
        if byte == u8::MAX {
            break belongs;
        }
        byte += 1;
    }
};

/// What follows whitespace and comments; `None` if a comment does not end.
pub(super) fn after_blanks(mut sql: &[u8]) -> Option<&[u8]> {
    loop {
        sql = match sql {
            [b' ' | b'\t' | b'\n' | b'\r' | 0x0c, rest @ ..] => rest,
            // A carriage return ends the comment too: what follows it runs.
            [b'-', b'-', rest @ ..] => {
                memchr::memchr2(b'\n', b'\r', rest).and_then(|end| rest.get(end..)).unwrap_or_default()
            }
            [b'/', b'*', rest @ ..] => after_comment(rest)?,
            _ => return Some(sql),
        }
    }
}

/// What follows a block comment, which may hold others, given what follows its opening.
fn after_comment(mut inside: &[u8]) -> Option<&[u8]> {
    let mut open = 1_usize;
    while open > 0 {
        let at = memchr::memchr2(b'/', b'*', inside)?;
        inside = match inside.get(at..)? {
            [b'/', b'*', rest @ ..] => {
                open = open.saturating_add(1);
                rest
            }
            [b'*', b'/', rest @ ..] => {
                open = open.saturating_sub(1);
                rest
            }
            [_, rest @ ..] => rest,
            [] => return None,
        };
    }
    Some(inside)
}

/// What follows a string constant without escapes, given what follows its opening quote.
///
/// `None` if it does not end, or if where it ends depends on whether a backslash escapes. The parts of a constant that
/// is continued on the next line are read as constants of their own: a part of an `E'..'` comes here too, and ends at
/// the same place either way or is refused.
fn after_text(mut inside: &[u8], is_standard: bool) -> Option<&[u8]> {
    loop {
        let (text, rest) = split_at_byte(inside, b'\'')?;
        let backslashes = text.iter().rev().take_while(|&&byte| byte == b'\\').count();
        if !is_standard && !backslashes.is_multiple_of(2) {
            return None;
        }
        match rest {
            [b'\'', rest @ ..] => inside = rest,
            _ => return Some(rest),
        }
    }
}

/// What follows an `E'..'`, given what follows its opening quote; `None` if it does not end.
fn after_escape_text(mut inside: &[u8]) -> Option<&[u8]> {
    loop {
        let at = memchr::memchr2(b'\'', b'\\', inside)?;
        match inside.get(at..)? {
            [b'\\', _, rest @ ..] | [b'\'', b'\'', rest @ ..] => inside = rest,
            [b'\'', rest @ ..] => return Some(rest),
            _ => return None,
        }
    }
}

/// The bytes before the first `wanted` and those after it.
fn split_at_byte(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (before, rest) = bytes.split_at_checked(memchr::memchr(wanted, bytes)?)?;
    Some((before, rest.split_first()?.1))
}

/// The longest start of `bytes` that belongs, and the rest.
fn split_while(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    let len = bytes.iter().position(|&byte| !belongs(byte)).unwrap_or(bytes.len());
    bytes.split_at_checked(len).unwrap_or((bytes, &[]))
}
