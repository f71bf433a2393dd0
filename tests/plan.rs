//! Goal: `tenantry plan` says what changes and what would have come of it, to the letter and the same each time.
//!
//! `tests/plan/*.txt` is what an operator sees. After a wanted change, `TENANTRY_BLESS=1 cargo test --test plan` writes it
//! anew.
#![expect(clippy::unwrap_used, reason = "a test expects by failing")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use tenantry::ids::TenantId;
use tenantry::trace::{Asked, Encoder, Mark, Record};

#[path = "support/certs.rs"]
#[expect(clippy::allow_attributes, reason = "which part is unused differs between the test binaries")]
#[allow(dead_code, reason = "each test binary uses its part")]
mod certs;

/// The two configurations beside a certificate, and a trace.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new(trace: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let identity = certs::Authority::new("plan").issue(&["localhost"]);
        fs::write(dir.path().join("listen.crt"), &identity.cert).unwrap();
        fs::write(dir.path().join("listen.key"), &identity.key).unwrap();
        for name in ["old.toml", "new.toml"] {
            fs::copy(Path::new("tests/plan").join(name), dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("requests.trace"), trace).unwrap();
        Self { dir }
    }

    fn plan(&self, new: &str, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
        command.current_dir(self.dir.path()).env_remove("TENANTRY_CONFIG");
        command.args(["plan", new, "--config", "old.toml"]).args(args).output().unwrap()
    }

    /// What is printed of a plan that succeeds.
    fn text(&self, args: &[&str]) -> String {
        let output = self.plan("new.toml", args);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Changes a configuration.
    fn edit(&self, name: &str, from: &str, to: &str) {
        let path = self.dir.path().join(name);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from} in {text}");
        fs::write(path, text.replace(from, to)).unwrap();
    }
}

/// Ten seconds of three tenants: `acme` comes six at a time, `bolt` now and then, `cobalt` rarely and for long.
fn trace() -> Vec<u8> {
    let mut records = Vec::new();
    for tenth in 0..100_u32 {
        let now = tenth * 100_000;
        let hold = |number: u32| 20_000 + number * 1_000;
        records.extend((0..6).map(|number| (0, now + hold(number), hold(number), Asked::at_once(false))));
        if tenth % 3 == 0 {
            records.push((1, now + 9_000, 5_000, Asked::waited(2_000)));
        }
        if tenth % 25 == 0 {
            records.push((2, now + 90_000, 80_000, Asked::at_once(false).with(Mark::Pinned)));
        }
        if tenth == 50 {
            records.push((0, now + 700, 0, Asked::at_once(false).with(Mark::Unserved)));
            records.push((3, now + 800, 100, Asked::at_once(true)));
            records.push((0, now + 900, 8_000, Asked::default().with(Mark::Login)));
        }
    }
    records.sort_by_key(|(tenant, end_us, ..)| (*end_us, *tenant));
    let (mut out, mut names) = (Vec::new(), Vec::<(TenantId, Arc<str>)>::new());
    for (number, name) in (0..).zip(["acme", "bolt", "cobalt", "gone"]) {
        names.push((TenantId(number), name.into()));
    }
    let mut encoder = Encoder::begin(1_770_000_000_000, &mut out);
    encoder.names(&names, &mut out);
    let record =
        |(tenant, end_us, hold_us, asked)| Record { tenant: TenantId(tenant), end_us, hold_us, asked };
    encoder.batch(0, &records.into_iter().map(record).collect::<Vec<_>>(), &mut out);
    encoder.end(&mut out);
    out
}

fn compare(name: &str, shown: &str) {
    let path = Path::new("tests/plan").join(name);
    if std::env::var_os("TENANTRY_BLESS").is_some() {
        fs::write(&path, shown).unwrap();
    }
    let wanted = fs::read_to_string(&path).unwrap_or_default();
    assert!(shown == wanted, "{} now says:\n{shown}\nwanted:\n{wanted}", path.display());
}

#[test]
fn the_difference_is_shown_in_words_and_sums() {
    compare("difference.txt", &Place::new(b"").text(&[]));
}

#[test]
fn a_trace_is_tried_out_on_both_configurations() {
    let place = Place::new(&trace());
    let args = ["--trace", "requests.trace", "--budget", "second=10"];
    let shown = place.text(&args);
    compare("forecast.txt", &shown);
    assert_eq!(place.text(&args), shown, "the same trace says the same");
    // The ceiling is what makes them wait: without the new one nobody does.
    place.edit("new.toml", "share = 2\nceiling = 2", "ceiling = 8");
    let without = place.text(&args);
    let of_acme = |text: &str| text.lines().find(|line| line.starts_with(" acme")).unwrap().to_owned();
    assert!(of_acme(&shown).contains(" 0.2 -> 21.1 "), "{shown}");
    assert!(of_acme(&without).contains(" 0.2 -> 0.1 "), "{without}");
}

#[test]
fn the_output_is_bounded() {
    let place = Place::new(&trace());
    let (mut old, mut new) = (String::new(), String::new());
    for number in 0..3_000 {
        let tenant = |ceiling| {
            format!(
                "\n[[tenant]]\nname = \"t{number}\"\ncluster = \"main\"\nrole = \"rt{number}\"\n\
                 schema = \"st{number}\"\ntier = \"cold\"\nclient_auth = {{ certificate = \"t{number}\" }}\n\
                 limits = {{ ceiling = {ceiling}, max_clients = {} }}\n",
                number + ceiling
            )
        };
        old += &tenant(3);
        new += &tenant(2);
    }
    for (name, more) in [("old.toml", old), ("new.toml", new)] {
        let path = place.dir.path().join(name);
        fs::write(&path, fs::read_to_string(&path).unwrap() + &more).unwrap();
    }
    let shown = place.text(&["--trace", "requests.trace", "--budget", "second=10", "--top", "3"]);
    assert!(shown.lines().count() < 60 && shown.len() < 6_000, "{shown}");
    assert!(shown.contains("limits.ceiling  3 -> 2: t0, t1, t10 and 2997 more"), "{shown}");
    assert!(shown.contains("more kinds of changes"), "{shown}");
}

#[test]
fn what_cannot_be_planned_is_said_by_the_exit_code() {
    let place = Place::new(&trace());
    let said = |output: &Output| {
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = said(&place.plan("new.toml", &["--trace", "requests.trace"]));
    assert!(code == 2 && text.contains("say how many that is with --budget second=N"), "{code}: {text}");
    let (code, text) = said(&place.plan("new.toml", &["--budget", "third=1"]));
    assert!(code == 2 && text.contains("there is no cluster `third`"), "{code}: {text}");
    let (code, text) = said(&place.plan("new.toml", &["--budget", "main=7"]));
    assert!(code == 2 && text.contains("`main` has `max_connections = "), "{code}: {text}");
    let (code, text) = said(&place.plan("new.toml", &["--trace", "new.toml"]));
    assert!(code == 1 && text.contains("this is not a trace"), "{code}: {text}");
    let (code, text) = said(&place.plan("new.toml", &["--trace", "nowhere"]));
    assert!(code == 1 && text.contains("cannot read `nowhere`"), "{code}: {text}");
    // A budget that is only known here: the sums are those of `check --live`.
    let output = place.plan("new.toml", &["--budget", "second=1"]);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.code() == Some(1) && shown.contains("2 workers x 2 = 4 are needed"), "{shown}");
    // A mistake is shown with its line, and so is what a reload cannot do.
    place.edit("new.toml", "share = 2", "shares = 2");
    let (code, text) = said(&place.plan("new.toml", &[]));
    assert!(code == 78 && text.contains("unknown key `shares`") && text.contains("new.toml:"), "{text}");
    place.edit("new.toml", "shares = 2", "share = 2");
    place.edit("new.toml", "cluster.main", "cluster.other");
    place.edit("new.toml", "\"main\"", "\"other\"");
    let (code, text) = said(&place.plan("new.toml", &[]));
    assert!(code == 78 && text.contains("a reload cannot remove a cluster"), "{text}");
    let (code, _) = said(&place.plan("nowhere.toml", &[]));
    assert_eq!(code, 78);
}

#[test]
fn the_same_configuration_changes_nothing_and_no_secret_is_shown() {
    let place = Place::new(&trace());
    let output = place.plan("old.toml", &[]);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.starts_with("nothing changes\n"), "{shown}");
    let shown = place.text(&[]);
    for secret in ["0123456789abcdef", "hunter"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn a_trace_that_was_cut_off_is_read_up_to_there() {
    let whole = trace();
    let place = Place::new(&whole[..whole.len() - 9]);
    let args = ["--trace", "requests.trace", "--budget", "second=10", "--login", "1ms"];
    let shown = place.text(&args);
    assert!(
        shown.contains("note: the trace has no end") && shown.contains("a login takes 1.0 ms"),
        "{shown}"
    );
}
