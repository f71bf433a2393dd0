//! The startup parameter `options`: command-line switches for the server, of which settings are accepted.
//!
//! Owns PostgreSQL's rules for splitting them (`pg_split_opts`, `ParseLongOption`) and the reverse. Must not know which
//! settings exist.

use crate::error::{ClientError, ClientFacing, Fault, SqlState};

/// Why `options` is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// A switch that is neither `-c name=value` nor `--name=value`.
    #[error("unsupported switch \"{0}\" in startup parameter \"options\"")]
    Unsupported(String),
    /// A setting without a value.
    #[error("\"{0}\" in startup parameter \"options\" requires a value")]
    NoValue(String),
}

impl ClientFacing for OptionsError {
    fn to_client(&self) -> ClientError {
        ClientError::fatal(SqlState::INVALID_PARAMETER_VALUE, Fault::Client, "bad_options", self.to_string())
            .with_hint("Only settings can be given: -c name=value or --name=value.")
    }
}

/// Reads settings out of `options`: `-c name=value`, `-cname=value` and `--name=value`, in the order given.
///
/// # Errors
/// If it contains anything else.
pub fn parse_options(options: &str) -> Result<Vec<(String, String)>, OptionsError> {
    let mut settings = Vec::new();
    let mut words = split_words(options).into_iter();
    while let Some(word) = words.next() {
        let setting = if let Some(setting) = word.strip_prefix("--") {
            setting.to_owned()
        } else {
            match word.strip_prefix("-c") {
                Some("") => words.next().ok_or(OptionsError::NoValue(word))?,
                Some(setting) => setting.to_owned(),
                None => return Err(OptionsError::Unsupported(word)),
            }
        };
        match setting.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                settings.push((name.replace('-', "_"), value.to_owned()));
            }
            Some(_) | None => return Err(OptionsError::NoValue(setting)),
        }
    }
    Ok(settings)
}

/// Appends `-c name=value` to `options`, escaped so that [`parse_options`] and PostgreSQL read it back.
pub fn put_option(options: &mut String, name: &str, value: &str) {
    if !options.is_empty() {
        options.push(' ');
    }
    options.push_str("-c ");
    for (index, text) in [name, value].into_iter().enumerate() {
        if index > 0 {
            options.push('=');
        }
        for letter in text.chars() {
            if letter == '\\' || is_space(letter) {
                options.push('\\');
            }
            options.push(letter);
        }
    }
}

/// Words are separated by white space; a backslash takes the next letter as it is.
fn split_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut letters = text.chars().peekable();
    loop {
        while letters.next_if(|letter| is_space(*letter)).is_some() {}
        if letters.peek().is_none() {
            return words;
        }
        let mut word = String::new();
        while let Some(letter) = letters.next_if(|letter| !is_space(*letter)) {
            if letter == '\\' {
                word.extend(letters.next());
            } else {
                word.push(letter);
            }
        }
        words.push(word);
    }
}

/// C's `isspace` in the C locale.
const fn is_space(letter: char) -> bool {
    matches!(letter, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings(options: &str) -> Vec<(String, String)> {
        parse_options(options).unwrap()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn all_three_spellings_of_a_setting_are_read() {
        let expected = [pair("a", "1"), pair("b_c", "2"), pair("d", ""), pair("e", "x=y")];
        assert_eq!(settings(" -c a=1\t--b-c=2  -cd= --e=x=y "), expected);
        assert!(settings("  ").is_empty());
    }

    #[test]
    fn a_backslash_keeps_the_next_letter() {
        assert_eq!(settings(r"-c search_path=a,\ b\\"), [pair("search_path", r"a, b\")]);
        assert_eq!(settings("-c a=1\\"), [pair("a", "1")], "a backslash at the end is dropped");
    }

    #[test]
    fn anything_but_a_setting_is_refused() {
        for bad in ["-e", "a=1", "-d 5", "-B", "-"] {
            assert!(matches!(parse_options(bad), Err(OptionsError::Unsupported(_))), "{bad}");
        }
        for bad in ["-c", "-c a", "--a", "--", "-c =1", "--=1"] {
            assert!(matches!(parse_options(bad), Err(OptionsError::NoValue(_))), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_put_is_read_back(
            pairs in prop::collection::vec(("[a-z_.]{1,8}", "\\PC{0,12}|[ \\\\\t\n=-]{0,6}"), 0..4),
        ) {
            let mut options = String::new();
            for (name, value) in &pairs {
                put_option(&mut options, name, value);
            }
            prop_assert_eq!(parse_options(&options), Ok(pairs));
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,40}|[-c= \\\\a]{0,40}") {
            let _ = parse_options(&text);
        }
    }
}
