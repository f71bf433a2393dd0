//! `promtool check metrics`, and a parser of our own for what it does not check.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};

/// Fails with the tool's words if it finds anything to say about the text.
pub(crate) fn check(text: &str) {
    let mut tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool must be in the PATH: apt-get install prometheus (tests/setup.sh does)");
    let mut stdin = tool.stdin.take().unwrap();
    let input = text.to_owned();
    let writing = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = tool.wait_with_output().unwrap();
    writing.join().unwrap().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.trim().is_empty(), "promtool: {said}");
}

/// A family of the text format: its type and its samples.
#[derive(Debug, Default)]
pub(crate) struct Family {
    /// `counter`, `gauge`, `histogram`.
    pub(crate) kind: String,
    /// Name, labels and value of each sample, in order.
    pub(crate) samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

impl Family {
    /// The value of the sample with these labels.
    pub(crate) fn value(&self, labels: &[(&str, &str)]) -> f64 {
        let wanted: BTreeMap<_, _> =
            labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let mut found = self.samples.iter().filter(|(_, labels, _)| *labels == wanted);
        let value = found.next().unwrap_or_else(|| panic!("no sample {labels:?}")).2;
        assert!(found.next().is_none(), "two samples {labels:?}");
        value
    }

    /// Label names of all samples, `le` apart.
    pub(crate) fn labels(&self) -> BTreeSet<&str> {
        self.samples
            .iter()
            .flat_map(|(_, labels, _)| labels.keys())
            .map(String::as_str)
            .filter(|l| *l != "le")
            .collect()
    }
}

/// Families by name. Fails if a family comes twice or a sample stands under another's header.
pub(crate) fn parse(text: &str) -> BTreeMap<String, Family> {
    let mut families = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            name.clone_into(&mut current);
            let family = Family { kind: kind.to_owned(), ..Family::default() };
            assert!(families.insert(current.clone(), family).is_none(), "{current} comes twice");
        } else if !line.starts_with('#') {
            let sample = parse_sample(line);
            assert!(sample.0.starts_with(&current), "{} under {current}", sample.0);
            families.get_mut(&current).unwrap().samples.push(sample);
        }
    }
    families
}

fn parse_sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let end = line.find(['{', ' ']).unwrap();
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    while let Some(label) = rest.strip_prefix(['{', ',']) {
        let (key, after) = label.split_once("=\"").unwrap();
        let (value, after) = unescape(after);
        assert!(labels.insert(key.to_owned(), value).is_none());
        rest = after;
    }
    let value = rest.trim_start_matches('}').strip_prefix(' ').unwrap();
    (name.to_owned(), labels, value.parse().unwrap())
}

/// A label's value up to its closing quote, and what follows.
fn unescape(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return (value, &text[index + 1..]),
            '\\' => value.push(match characters.next().unwrap().1 {
                'n' => '\n',
                escaped @ ('\\' | '"') => escaped,
                other => panic!("\\{other} is no escape"),
            }),
            plain => value.push(plain),
        }
    }
    panic!("a label without end: {text}")
}
