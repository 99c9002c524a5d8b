//! What the actor says that it did, for tests to compare events with.
//!
//! Nothing here comes from agentwatch: the actor knows its process ids from `fork`, inodes from `fstat`,
//! ports from `getsockname`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Bytes that need not be UTF-8: in JSON a string where they are, else an array of numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Form", into = "Form")]
pub struct Bytes(pub Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form {
    Text(String),
    Raw(Vec<u8>),
}

impl From<Form> for Bytes {
    fn from(form: Form) -> Self {
        match form {
            Form::Text(text) => Self(text.into_bytes()),
            Form::Raw(bytes) => Self(bytes),
        }
    }
}

impl From<Bytes> for Form {
    fn from(bytes: Bytes) -> Self {
        String::from_utf8(bytes.0).map_or_else(|error| Self::Raw(error.into_bytes()), Self::Text)
    }
}

impl From<&Path> for Bytes {
    fn from(path: &Path) -> Self {
        Self(path.as_os_str().as_bytes().to_vec())
    }
}

impl From<&str> for Bytes {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<&OsStr> for Bytes {
    fn from(text: &OsStr) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

/// One thing that was done, in the words of the event that it must give.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Did {
    /// Kind of the event, such as `file.open`.
    pub kind: String,
    /// Process id in the initial namespace.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// May be missing from the log: the kernel's own part in something that is listed as well.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// Another kind that the event may have: where the kernel asks the same hook for both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub or_kind: Option<String>,
    /// Path of the file or program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Bytes>,
    /// Second path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_to: Option<Bytes>,
    /// Target of a symbolic link, name of an attribute, source of a mount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argument: Option<Bytes>,
    /// The file has no name.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// Inode number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inode: Option<u64>,
    /// Device, `MAJOR:MINOR`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Flags by name, joined by `|`, without `O_CLOEXEC`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<String>,
    /// Permission bits given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Owner given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Length given, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Arguments of an exec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<Bytes>>,
    /// Process id of a child in the initial namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub child: Option<u32>,
    /// Process id of a child in its own namespace, where that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_pid: Option<u32>,
    /// Exit status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
    /// Number of the signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<u8>,
    /// What was done to the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<DidNet>,
    /// Error number, where the kernel refused or failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
}

/// An address and how it was used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DidNet {
    /// `tcp`, `udp`, `unix`, `vsock`.
    pub transport: String,
    /// `ipv4`, `ipv6`, `unix`, `vsock`.
    pub family: String,
    /// Peer: IP address, path, `@name`, context id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<Bytes>,
    /// Port of the peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_port: Option<u32>,
    /// Local address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<Bytes>,
    /// Local port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_port: Option<u32>,
}

/// All that one run of the actor did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Truth {
    /// Process id of the actor, as it sees it.
    pub pid: u32,
    /// Folder in which it worked: the whole list below is what happened there.
    pub dir: Bytes,
    /// What it did, in order within a process.
    pub did: Vec<Did>,
    /// Whatever else the subcommand has to say, such as counts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, Value>,
}

impl Truth {
    /// A number among the facts.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn number(&self, name: &str) -> anyhow::Result<u64> {
        let value = self.facts.get(name).and_then(Value::as_u64);
        value.ok_or_else(|| anyhow::anyhow!("aw-act gave no number `{name}`: {:?}", self.facts))
    }

    /// What was done of one kind.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Did> {
        self.did.iter().filter(move |did| did.kind == kind)
    }
}
