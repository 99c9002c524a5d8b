//! What the host asks of the guest's PID 1, as one file in the initramfs.
//!
//! The file is a list of `key=value` entries, each ended by a NUL byte: values may hold anything
//! that a command line may hold. Shared by `xtask` (writes) and `vm-init` (reads).

/// Names of the virtio-serial ports between the guest and the host.
pub mod port {
    /// What the command writes to standard output.
    pub const STDOUT: &str = "agentwatch.stdout";
    /// What the command writes to standard error.
    pub const STDERR: &str = "agentwatch.stderr";
    /// A tar stream of `/out`.
    pub const OUT: &str = "agentwatch.out";
    /// One sentence a line: `ready`, `sending`, `exit N`, `failed TEXT`. Anything in the other
    /// direction asks to kill the command.
    pub const CONTROL: &str = "agentwatch.control";
}

/// Serial number of the disk that holds the root file system.
pub const ROOT_DISK: &str = "root";
/// Serial number of the disk that holds the kernel's modules.
pub const MODULES_DISK: &str = "modules";
/// Serial number of the disk that holds the programs under test.
pub const PROGRAMS_DISK: &str = "programs";

/// The work of one guest.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Job {
    /// The kernel's release, which names the folder under `/lib/modules`.
    pub release: String,
    /// Whether `/out` is to be sent back.
    pub wants_out: bool,
    /// Whether there is a disk of programs to put on PATH.
    pub has_programs: bool,
    /// Disk serial number and folder name of each share.
    pub shares: Vec<(String, String)>,
    /// The command and its arguments.
    pub command: Vec<String>,
}

impl Job {
    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut text =
            format!("release={}\0out={}\0programs={}\0", self.release, self.wants_out, self.has_programs);
        for (disk, name) in &self.shares {
            text.push_str(&format!("share={disk}/{name}\0"));
        }
        for argument in &self.command {
            text.push_str(&format!("arg={argument}\0"));
        }
        text.into_bytes()
    }

    /// Reads what [`Job::encode`] wrote.
    ///
    /// # Errors
    /// A sentence that names the entry nobody knows.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut job = Self::default();
        for entry in bytes.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()) {
            let text = String::from_utf8_lossy(entry);
            let (key, value) = text.split_once('=').ok_or_else(|| unknown(&text))?;
            job.set(key, value).ok_or_else(|| unknown(&text))?;
        }
        Ok(job)
    }

    fn set(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "release" => self.release = value.to_owned(),
            "out" => self.wants_out = value.parse().ok()?,
            "programs" => self.has_programs = value.parse().ok()?,
            "share" => {
                let (disk, name) = value.split_once('/')?;
                self.shares.push((disk.to_owned(), name.to_owned()));
            }
            "arg" => self.command.push(value.to_owned()),
            _ => return None,
        }
        Some(())
    }
}

fn unknown(entry: &str) -> String {
    format!(
        "the job file holds `{entry}`, which this vm-init does not know; rebuild xtask and vm-init together"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let job = Job {
            release: "6.1.0-1-cloud-amd64".into(),
            wants_out: true,
            has_programs: false,
            shares: vec![("share0".into(), "src".into())],
            command: vec!["sh".into(), "-c".into(), "echo a=b\n; exit 7".into(), String::new()],
        };
        assert_eq!(Job::decode(&job.encode()), Ok(job));
    }

    #[test]
    fn an_unknown_entry_is_named() {
        assert!(Job::decode(b"colour=red\0").unwrap_err().contains("`colour=red`"));
    }
}
