//! What a proxy tells its service manager: that it is ready, after its start and after each reload.
//!
//! Owns the socket of systemd's protocol (`sd_notify`), which both proxies speak. Must not know which proxy it is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

/// The manager's end.
pub(crate) struct Notices {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Notices {
    /// A socket in `dir` that any user may write to.
    pub(crate) fn listen(dir: &Path) -> Result<Self> {
        let path = dir.join("notify");
        let socket = UnixDatagram::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, path })
    }

    /// What the proxy finds in `NOTIFY_SOCKET`.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until the proxy says that it is ready.
    pub(crate) fn wait_until_ready(&self) -> Result<()> {
        let mut notice = [0; 512];
        loop {
            let length = self.socket.recv(&mut notice).context("the proxy does not say that it is ready")?;
            let text = String::from_utf8_lossy(notice.get(..length).unwrap_or_default());
            if text.lines().any(|line| line == "READY=1") {
                return Ok(());
            }
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(60);
