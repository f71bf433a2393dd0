//! What of a configuration's lines is shown: an error shows lines of the file, and its output ends in terminals and logs.
//!
//! Owns where secrets may stand, also in lines that are wrong: whoever forgets a brace has written a secret all the same.
//! So on a line that speaks of secrets every value is hidden, but for those of keys that have none. Must not know TOML's
//! grammar further than that, nor what a key means.

use std::ops::Range;

/// The text with every literal secret replaced by as many asterisks, and what was replaced.
pub(super) fn masked(text: &str) -> (String, Vec<String>) {
    let mut hidden = Vec::new();
    for line in lines(text) {
        if !is_header(text.get(line.clone()).unwrap_or_default()) {
            secrets_of(text, line, &mut hidden);
        }
    }
    hidden.sort_by_key(|range: &Range<usize>| range.start);
    let (mut shown, mut pieces, mut from) = (String::with_capacity(text.len()), Vec::new(), 0);
    for range in hidden {
        // What is found twice is hidden once.
        let start = range.start.max(from);
        if start >= range.end {
            continue;
        }
        shown.push_str(text.get(from..start).unwrap_or_default());
        shown.extend(std::iter::repeat_n('*', range.end.saturating_sub(start)));
        pieces.push(text.get(start..range.end).unwrap_or_default().to_owned());
        from = range.end;
    }
    shown.push_str(text.get(from..).unwrap_or_default());
    (shown, pieces)
}

/// The ranges of lines, without their ends.
fn lines(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut from = 0_usize;
    text.split('\n').map(move |line| {
        let range = from..from.saturating_add(line.len());
        from = range.end.saturating_add(1);
        range
    })
}

/// `[cluster.main]`
fn is_header(line: &str) -> bool {
    let line = line.trim();
    line.starts_with('[') && line.ends_with(']') && !line.contains(['"', '\'', '=', ',', '$'])
}

/// Where secrets stand in a line.
fn secrets_of(text: &str, line: Range<usize>, hidden: &mut Vec<Range<usize>>) {
    let content = text.get(line.clone()).unwrap_or_default();
    let lower = content.to_ascii_lowercase();
    let speaks_of_secrets = SECRET_WORDS.iter().any(|word| lower.contains(word));
    let mut walk = Walk { line: content, at: 0, key: "" };
    while let Some(part) = walk.next() {
        let key = walk.last_key();
        let (range, hides_all) = match part {
            Part::Key => continue,
            Part::Comment(range) => (range, speaks_of_secrets),
            Part::Value(range) => {
                let may_be_shown = KEYS_WITHOUT.contains(&key) || key.ends_with("url");
                (range, speaks_of_secrets && !may_be_shown)
            }
        };
        let value = content.get(range.clone()).unwrap_or_default();
        let found = if hides_all && !matches!(value, "true" | "false") {
            std::iter::once(0..value.len()).collect()
        } else if is_url(value) || key.ends_with("url") {
            of_url(value)
        } else {
            Vec::new()
        };
        let at = |index: usize| line.start.saturating_add(range.start).saturating_add(index);
        hidden.extend(found.into_iter().map(|one| at(one.start)..at(one.end)));
    }
}

/// What a value that is a URL, or `key=value` pairs, hides: what stands between a user's colon and the last `@`, and
/// passwords among the parameters.
fn of_url(value: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    if let Some(at) = value.rfind('@') {
        let behind_scheme = value.find(":/").map_or(0, |colon| {
            let rest = value.get(colon.saturating_add(1)..).unwrap_or_default();
            let slashes = rest.len().saturating_sub(rest.trim_start_matches('/').len());
            colon.saturating_add(1).saturating_add(slashes)
        });
        let colon = value.get(behind_scheme..at).and_then(|user| user.find(':'));
        if let Some(colon) = colon {
            found.push(behind_scheme.saturating_add(colon).saturating_add(1)..at);
        }
    }
    let lower = value.to_ascii_lowercase();
    for word in SECRET_WORDS {
        for (at, _) in lower.match_indices(word) {
            let rest = value.get(at..).unwrap_or_default();
            let Some(sign) = rest.find('=') else { continue };
            let start = at.saturating_add(sign).saturating_add(1);
            let secret = value.get(start..).unwrap_or_default();
            let end = secret.find(['&', ' ', '\t']).unwrap_or(secret.len());
            found.push(start..start.saturating_add(end));
        }
    }
    found
}

fn is_url(value: &str) -> bool {
    value.contains("://") || value.starts_with("postgres")
}

/// A part of a line.
enum Part {
    Key,
    /// A string without its quotes, or a bare word.
    Value(Range<usize>),
    Comment(Range<usize>),
}

/// A walk over the keys and values of a line. It does not mind mistakes: what is no key is a value.
struct Walk<'t> {
    line: &'t str,
    at: usize,
    key: &'t str,
}

impl<'t> Walk<'t> {
    /// The last part of the key before the value, without its quotes.
    fn last_key(&self) -> &'t str {
        self.key.rsplit('.').next().unwrap_or_default()
    }

    fn next(&mut self) -> Option<Part> {
        let rest = self.line.get(self.at..)?;
        let skipped = rest.len().saturating_sub(rest.trim_start_matches(SIGNS).len());
        let start = self.at.saturating_add(skipped);
        let rest = self.line.get(start..).filter(|rest| !rest.is_empty())?;
        if rest.starts_with('#') {
            self.at = self.line.len();
            return Some(Part::Comment(start.saturating_add(1)..self.line.trim_end().len()));
        }
        let quote = QUOTES.into_iter().find(|quote| rest.starts_with(quote));
        let (range, end) = match quote {
            Some(quote) => {
                let from = start.saturating_add(quote.len());
                let inside = self.line.get(from..).unwrap_or_default();
                // An unterminated string is one up to the end of the line.
                let len = inside.find(quote).unwrap_or(inside.trim_end().len());
                let to = from.saturating_add(len);
                (from..to, to.saturating_add(quote.len()).min(self.line.len()))
            }
            None => {
                let word = rest.find([' ', '\t', ',', '}', ']', '=', '#', '\r']).unwrap_or(rest.len()).max(1);
                // `key: value` is no TOML, and meant all the same.
                let colon = rest.get(..word).and_then(|word| word.find(':')).filter(|colon| {
                    rest.get(colon.saturating_add(1)..).is_some_and(|next| next.starts_with([' ', '"', '\'']))
                });
                let end = start.saturating_add(colon.unwrap_or(word));
                (start..end, end)
            }
        };
        self.at = end;
        let behind = self.line.get(end..).unwrap_or_default().trim_start();
        let is_key = behind.starts_with(['=', ':']) && !self.is_behind_equals(start);
        if is_key {
            self.key = self.line.get(range).unwrap_or_default();
            return Some(Part::Key);
        }
        Some(Part::Value(range))
    }

    /// Whether a value stands here, whatever follows it: `password = a=b`.
    fn is_behind_equals(&self, start: usize) -> bool {
        let before = self.line.get(..start).unwrap_or_default().trim_end();
        before.ends_with(['=', ':'])
    }
}

/// A line with one of these words in it, also misspelled, may hold a secret.
const SECRET_WORDS: [&str; 10] =
    ["pass", "pasw", "pwd", "scram", "secret", "token", "verifier", "credential", "auth", "admin"];
/// Keys whose values are none, wherever they stand.
const KEYS_WITHOUT: [&str; 23] = [
    "admin_reserve",
    "env",
    "file",
    "user",
    "name",
    "role",
    "schema",
    "database",
    "cluster",
    "certificate",
    "jwt",
    "mode",
    "tier",
    "address",
    "token_as",
    "issuer",
    "audience",
    "keys",
    "scope",
    "user_claim",
    "tenant_claim",
    "max_connections",
    "workers",
];
const QUOTES: [&str; 4] = ["\"\"\"", "'''", "\"", "'"];
const SIGNS: [char; 10] = [' ', '\t', '\r', '=', ':', '{', '}', '[', ']', ','];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_secrets_are_masked_in_place() {
        for (line, shown) in [
            (
                r#"server_auth = { password = "hunter2" } # x"#,
                r#"server_auth = { password = "*******" } #**"#,
            ),
            ("passwort = 'x'", "passwort = '*'"),
            ("password='a b'\n", "password='***'\n"),
            ("password = \"\"\"one\n", "password = \"\"\"***\n"),
            (r#"password = "cut off"#, r#"password = "*******"#),
            (r#"password = { env = "NAME" }"#, r#"password = { env = "NAME" }"#),
            (r#"url = "postgres://me:pw@h:1/db""#, r#"url = "postgres://me:**@h:1/db""#),
            (r#"a.password = "x", b.password = "yy""#, r#"a.password = "*", b.password = "**""#),
            (r#"client_auth = "SCRAM$1:x""#, r#"client_auth = "*********""#),
            (r#"client_auth = { certificate = "acme" }"#, r#"client_auth = { certificate = "acme" }"#),
            (r#"server_auth = { pasword = "four" }"#, r#"server_auth = { pasword = "****" }"#),
            ("server_auth = { password = S9 }", "server_auth = { password = ** }"),
            (r#"server_auth = { password = ["S1", 'S2'] }"#, r#"server_auth = { password = ["**", '**'] }"#),
            (r#"server_auth = { password: "colon" }"#, r#"server_auth = { password: "*****" }"#),
            ("server_auth = { password:colon }", "server_auth = { ************** }"),
            ("scram = SCRAM-SHA-256$4096:c2==$a+/b=:cc=", "scram = *********************==*****=:**="),
            ("password = a=b", "password = *=*"),
            (r#"scram = { verifier = "vf" }"#, r#"scram = { verifier = "**" }"#),
            (r#"url = "postgres://h/d?password=six&a=b""#, r#"url = "postgres://h/d?password=***&a=b""#),
            (r#"url = "postgres://u:x@h?password=six""#, r#"url = "postgres://u:*@h?password=***""#),
            (r#"url = "host=h user=bob password=kv""#, r#"url = "host=h user=bob password=**""#),
            (r#"url = "postgresql:/bob:ten@h""#, r#"url = "postgresql:/bob:***@h""#),
            (r#"cluster.main.admin = "all""#, r#"cluster.main.admin = "***""#),
            (r#"token = "short""#, r#"token = "*****""#),
            ("max_connections = ten # old password x", "max_connections = ten #***************"),
            ("admin_reserve = 20", "admin_reserve = 20"),
            ("server_auth = { password = 12345678 }", "server_auth = { password = ******** }"),
            (r#"password = "postgres://x""#, r#"password = "************""#),
            (r#"issuer = "https://auth.example""#, r#"issuer = "https://auth.example""#),
            ("[cluster.main.admin]", "[cluster.main.admin]"),
            (r#"name = "acme" # the first"#, r#"name = "acme" # the first"#),
        ] {
            let (said, pieces) = masked(line);
            assert_eq!(said, shown);
            assert_eq!(said.len(), line.len());
            assert_eq!(pieces.is_empty(), line == shown, "{pieces:?}");
        }
    }
}
