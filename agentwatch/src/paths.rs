//! Where the daemon keeps its state and where its sockets are.

use std::path::PathBuf;

/// The two folders that the daemon and its clients must agree on.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Paths {
    /// Folder of the attribution log and of what outlives a restart
    #[arg(
        long = "state",
        value_name = "DIR",
        env = "AGENTWATCH_STATE",
        default_value = "/var/lib/agentwatch",
        global = true,
        hide_env_values = true
    )]
    pub state: PathBuf,
    /// Folder of the daemon's sockets
    #[arg(
        long = "run-dir",
        value_name = "DIR",
        env = "AGENTWATCH_RUN",
        default_value = "/run/agentwatch",
        global = true,
        hide_env_values = true
    )]
    pub run: PathBuf,
}

impl Paths {
    /// Socket of the control API, for root only.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.run.join("control.sock")
    }

    /// Socket on which everybody may declare things.
    #[must_use]
    pub fn declare_socket(&self) -> PathBuf {
        self.run.join("declare.sock")
    }

    /// File whose lock says that a daemon runs; holds its process id.
    #[must_use]
    pub fn daemon_lock(&self) -> PathBuf {
        self.run.join("daemon.lock")
    }
}

impl Default for Paths {
    fn default() -> Self {
        Self { state: "/var/lib/agentwatch".into(), run: "/run/agentwatch".into() }
    }
}
