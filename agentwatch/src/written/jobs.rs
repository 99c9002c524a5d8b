//! Jobs that sessions wrote: which line of a table of cron is whose, and which unit.
//!
//! A line belongs to the session that wrote its file when the line was first seen there. One that was there before is
//! nobody's, and stays that whoever writes the table again; so a person's lines are not an agent's because `crontab -` writes
//! them all. Of a unit, all is whose the file is.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{Table, Write, past};
use crate::event::{Event, Kind, Op};

/// Seconds for which a file is looked at each second once a session opened it: what is written comes after that.
const SECONDS: u32 = 5;
/// Files that are looked at each second.
const TOUCHED_MOST: usize = 256;

/// What is known of the jobs in files.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Jobs {
    /// Files by their paths, and their jobs by their keys, with whose they are.
    tables: BTreeMap<String, BTreeMap<u64, Option<Arc<Write>>>>,
    /// Files that sessions opened a short time ago, and how often to look there still.
    #[serde(skip)]
    touched: BTreeMap<String, u32>,
    /// Those of them that nobody looked at since.
    #[serde(skip)]
    fresh: BTreeSet<String>,
}

impl Jobs {
    /// Takes up what an event says.
    pub fn note(&mut self, event: &Event) {
        let (Kind::FileOpen | Kind::FileReceive | Kind::FileRename | Kind::FileDelete, Some(file)) =
            (event.kind, &event.file)
        else {
            return;
        };
        if event.kind == Kind::FileOpen && event.op != Some(Op::Write) || file.root.is_some() {
            return;
        }
        for (path, encoding) in
            [(Some(&file.path), file.path_encoding), (file.path_to.as_ref(), file.path_to_encoding)]
        {
            if let Some(path) = path
                && encoding.is_none()
                && Table::at(&path.0).is_some()
                && (self.touched.len() < TOUCHED_MOST || self.touched.contains_key(&path.0))
            {
                self.touched.insert(path.0.clone(), SECONDS);
                self.fresh.insert(path.0.clone());
            }
        }
    }

    /// Files that sessions opened since the last call.
    pub fn take_fresh(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.fresh)
    }

    /// Files to look at in this second; one time less is left for each.
    pub fn due(&mut self) -> Vec<String> {
        let due = self.touched.keys().cloned().collect();
        self.touched.retain(|_, times| {
            *times -= 1;
            *times > 0
        });
        due
    }

    /// Files of which anything is known.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.tables.keys().map(String::as_str)
    }

    /// Whether anything is known of a file.
    #[must_use]
    pub fn knows(&self, path: &str) -> bool {
        self.tables.contains_key(path)
    }

    /// Takes up what a file has now, and which session wrote it last; `None` where there is no such file. Says whether
    /// that is anything new.
    pub fn take(&mut self, path: &str, found: Option<(Table, BTreeSet<u64>, Option<&Write>)>) -> bool {
        let jobs = match found {
            Some((table, keys, writer)) if table.has_lines() || writer.is_some() => {
                let before = self.tables.get(path).filter(|_| table.has_lines());
                let writer = writer.map(|writer| Arc::new(writer.clone()));
                let owner = |key| {
                    before.and_then(|before| before.get(&key).cloned()).unwrap_or_else(|| writer.clone())
                };
                Some(keys.into_iter().map(|key| (key, owner(key))).collect())
            }
            _ => None,
        };
        if self.tables.get(path) == jobs.as_ref() {
            return false;
        }
        match jobs {
            Some(jobs) => self.tables.insert(path.to_owned(), jobs),
            None => self.tables.remove(path),
        };
        true
    }

    /// The jobs of sessions, and by which number the kernel knows each in this boot.
    #[must_use]
    pub fn numbers(&self, boot_id: &str) -> BTreeMap<u64, u64> {
        let number =
            |write: &Write| if *write.boot_id == *boot_id { write.number } else { past(&write.session) };
        self.of_sessions().map(|(key, write)| (key, number(write))).collect()
    }

    /// Who wrote a job, and in which file.
    #[must_use]
    pub fn by(&self, key: u64) -> Option<&Write> {
        self.of_sessions().find(|(known, _)| *known == key).map(|(_, write)| write)
    }

    fn of_sessions(&self) -> impl Iterator<Item = (u64, &Write)> {
        let all = self.tables.values().flatten();
        all.filter_map(|(key, write)| Some((*key, &**write.as_ref()?)))
    }
}
