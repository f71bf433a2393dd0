//! Which operating system account runs the throwaway server: Postgres refuses to run as root.
//!
//! Owns reading the account file and giving files away. Must not know what is run.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Accounts tried when we are root, best first.
const CANDIDATES: [&str; 3] = ["postgres", "_postgres", "nobody"];

/// The account that runs `initdb` and `postgres`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Account {
    /// Ourselves: we are not root.
    Own,
    /// Somebody with fewer rights, because we are root.
    Other {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
}

impl Account {
    /// Looks up who we are and, for root, whom to become.
    pub(super) fn choose() -> io::Result<Self> {
        // The owner of /proc/self is the effective user; without /proc, the shell's `id` knows.
        let uid = match std::fs::metadata("/proc/self") {
            Ok(meta) => meta.uid(),
            Err(_) => own_uid_by_command()?,
        };
        if uid != 0 {
            return Ok(Self::Own);
        }
        let accounts = std::fs::read_to_string("/etc/passwd")?;
        CANDIDATES
            .iter()
            .find_map(|name| lookup(&accounts, name))
            .map(|(uid, gid)| Self::Other { uid, gid })
            .ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, "no account `postgres` or `nobody` in /etc/passwd")
            })
    }

    /// Lets `command` run under this account.
    pub(super) fn apply(self, command: &mut Command) {
        if let Self::Other { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
    }

    /// Gives a file or directory to this account.
    pub(super) fn give(self, path: &Path) -> io::Result<()> {
        match self {
            Self::Own => Ok(()),
            Self::Other { uid, gid } => std::os::unix::fs::chown(path, Some(uid), Some(gid)),
        }
    }

    /// Whether this account may walk through `path` and everything above it.
    pub(super) fn may_enter(self, path: &Path) -> bool {
        match self {
            Self::Own => true,
            Self::Other { .. } => {
                path.ancestors().all(|dir| std::fs::metadata(dir).is_ok_and(|meta| meta.mode() & 0o001 != 0))
            }
        }
    }
}

fn own_uid_by_command() -> io::Result<u32> {
    let output = Command::new("id").arg("-u").output()?;
    String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .map_err(|_| io::Error::other("`id -u` did not print a number"))
}

fn lookup(accounts: &str, name: &str) -> Option<(u32, u32)> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (found, _password, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        (found == name).then_some((uid.parse().ok()?, gid.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let accounts =
            "root:x:0:0::/root:/bin/sh\npostgres2:x:7:8::/:/x\nbroken\npostgres:x:101:104:,,,:/v:/bin/bash\n";
        assert_eq!(lookup(accounts, "postgres"), Some((101, 104)));
        assert_eq!(lookup(accounts, "nobody"), None);
    }
}
