//! A policy that came by `agentwatch policy apply`, over a restart of the daemon: `STATE/applied.json`.
//!
//! What the operator did last counts: it holds until the files of `agentwatch run --policy` change or are to be read
//! again.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    control::policy::PolicyFile,
    policy::{self, Source},
};

/// The file.
const NAME: &str = "applied.json";

/// A policy that was applied.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Applied {
    /// What `--policy` named then; absent without.
    over: Option<PathBuf>,
    /// Hash of those files then; absent where they could not be read.
    over_hash: Option<String>,
    /// The policy.
    files: Vec<PolicyFile>,
}

impl Applied {
    /// A policy that takes the place of what `over` names.
    pub fn new(over: Option<&Path>, sources: &[Source]) -> Self {
        let file = |source: &Source| PolicyFile { name: source.name.to_string(), text: source.text.clone() };
        Self {
            over: over.map(Path::to_owned),
            over_hash: over.and_then(hash_of),
            files: sources.iter().map(file).collect(),
        }
    }

    /// Whether it still takes the place of what `--policy` names: the same, unchanged.
    pub fn holds_over(&self, path: Option<&Path>) -> bool {
        self.over.as_deref() == path && self.over_hash == path.and_then(hash_of)
    }

    /// The policy.
    pub fn sources(self) -> Vec<Source> {
        sources_of(self.files)
    }

    /// Writes it beside the one that is kept, for [`keep`].
    ///
    /// # Errors
    /// The state folder cannot be written.
    pub fn prepare(&self, state: &Path) -> io::Result<()> {
        let mut file = File::create(partial(state))?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()
    }
}

/// Files that came over the control API, as a policy is read from.
pub fn sources_of(files: Vec<PolicyFile>) -> Vec<Source> {
    files.into_iter().map(|file| Source { name: file.name.into(), text: file.text }).collect()
}

/// Keeps what was prepared, in the place of what was kept, whole or not at all.
///
/// # Errors
/// The state folder cannot be written.
pub fn keep(state: &Path) -> io::Result<()> {
    fs::rename(partial(state), path(state))?;
    File::open(state)?.sync_all()
}

/// Forgets what is kept. That nothing is kept is no error.
pub fn forget(state: &Path) {
    if let Err(error) = fs::remove_file(path(state))
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path(state).display(), %error, "cannot remove a policy that holds no longer");
    }
}

/// What is kept, if anything is.
///
/// # Errors
/// It cannot be read: then nobody knows what should be in force.
pub fn read(state: &Path) -> io::Result<Option<Applied>> {
    match fs::read(path(state)) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where it is kept.
#[must_use]
pub fn path(state: &Path) -> PathBuf {
    state.join(NAME)
}

fn partial(state: &Path) -> PathBuf {
    state.join(format!("{NAME}.partial"))
}

fn hash_of(path: &Path) -> Option<String> {
    policy::read(path).ok().map(|(sources, _)| policy::hash(&sources))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(text: &str) -> Vec<Source> {
        vec![Source { name: "new.yaml".into(), text: text.to_owned() }]
    }

    #[test]
    fn it_is_kept_whole_and_forgotten() {
        let state = tempfile::tempdir().unwrap();
        assert!(read(state.path()).unwrap().is_none());
        let applied = Applied::new(None, &sources("version: 1\n# ü"));
        applied.prepare(state.path()).unwrap();
        assert!(read(state.path()).unwrap().is_none(), "only prepared");
        keep(state.path()).unwrap();
        let kept = read(state.path()).unwrap().unwrap();
        assert!(kept.holds_over(None));
        assert_eq!(kept.sources(), sources("version: 1\n# ü"));
        forget(state.path());
        forget(state.path());
        assert!(read(state.path()).unwrap().is_none());
        fs::write(path(state.path()), "{").unwrap();
        assert!(read(state.path()).is_err(), "nobody knows what should be in force");
    }

    #[test]
    fn it_holds_until_what_it_stands_over_changes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.yaml");
        fs::write(&file, "version: 1\n").unwrap();
        let applied = Applied::new(Some(&file), &sources("version: 1"));
        assert!(applied.holds_over(Some(&file)));
        assert!(!applied.holds_over(None) && !applied.holds_over(Some(folder.path())));
        fs::write(&file, "version: 1\n# more\n").unwrap();
        assert!(!applied.holds_over(Some(&file)));
        fs::remove_file(&file).unwrap();
        assert!(!applied.holds_over(Some(&file)));
        assert!(Applied::new(Some(&file), &sources("")).holds_over(Some(&file)), "missing then and now");
    }
}
