//! The last writers of files.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use agentwatch_common::{
    limits::WRITTEN,
    maps::{FileKey, SESSION_BY_DAEMON, SESSION_OF_PAST},
};
use serde::{Deserialize, Serialize};

use crate::event::{
    Cause, Encoding, Event, File, Kind, ObservedText, Op, PolicyVersion, ToolCallRef, UsedBy, Verdict,
};

/// Files past which those that are gone are looked for.
const SWEEP_AT: usize = WRITTEN as usize / 4 * 3;
/// Files that may stay after that. Past it the oldest of whoever has most are given up.
const STAY_MOST: usize = WRITTEN as usize / 8 * 7;
/// Files of which the kernel is asked at once. Past it, of one second, a further one is given up and counted.
const FRESH_MAX: usize = WRITTEN as usize / 2;
/// Causes of causes that are kept: the first and the last matter most.
const CHAIN_MAX: usize = 4;

/// That a session wrote a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// The file system, as the kernel encodes it.
    pub device: u32,
    /// Inode number.
    pub inode: u64,
    /// Generation of the inode, as the kernel's table has it.
    pub generation: u32,
    /// Path of the file when it was written, or renamed by a session.
    pub path: ObservedText,
    /// Whether the path is encoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_encoding: Option<Encoding>,
    /// Set where the path is not one of the initial namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// Number of the session in its boot.
    pub number: u64,
    /// That boot.
    pub boot_id: Arc<str>,
    /// The session.
    pub session: Arc<str>,
    /// Its agent.
    pub agent: Arc<str>,
    /// The agent's owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Arc<str>>,
    /// The tool call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call: Option<ToolCallRef>,
    /// The prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_id: Option<Arc<str>>,
    /// The intent that it was held against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<Arc<str>>,
    /// The policy in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyVersion>,
    /// The rule that let it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Arc<str>>,
    /// Whether it may have been for others, where a delegate wrote it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub others: bool,
    /// When: as the event has it.
    pub time: String,
    /// Number of the event.
    pub seq: u64,
    /// What had made the session, where it was a caused one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Arc<Cause>>,
}

impl Write {
    /// The file.
    #[must_use]
    pub const fn key(&self) -> FileKey {
        FileKey { ino: self.inode, dev: self.device, pad: 0 }
    }

    /// What an event says of a write, where it is one. Which generation the inode has it does not say.
    fn of(event: &Event, number: u64, cause: Option<Arc<Cause>>) -> Option<Self> {
        let file = event.file.as_ref()?;
        Some(Self {
            device: device(&file.device)?,
            inode: file.inode?,
            path: file.path.clone(),
            path_encoding: file.path_encoding,
            root: file.root.clone(),
            ..Self::of_event(event, number, cause)
        })
    }

    /// What an event says but for the file.
    pub(super) fn of_event(event: &Event, number: u64, cause: Option<Arc<Cause>>) -> Self {
        Self {
            device: 0,
            inode: 0,
            generation: 0,
            path: ObservedText::default(),
            path_encoding: None,
            root: None,
            number,
            boot_id: Arc::clone(&event.boot_id),
            session: Arc::clone(&event.session),
            agent: Arc::clone(&event.agent),
            owner: event.owner.clone(),
            tool_call: event.tool_call.clone(),
            prompt_id: event.prompt_id.clone(),
            intent: event.intent.as_ref().and_then(|intent| intent.id.clone()),
            policy: event.policy.clone(),
            rule: event.rule.clone(),
            others: false,
            time: event.time.clone(),
            seq: event.seq,
            cause: cause.map(shortened),
        }
    }

    /// The use of the file, at a path.
    #[must_use]
    pub fn cause(&self, path: ObservedText, path_encoding: Option<Encoding>, by: UsedBy) -> Cause {
        Cause {
            path,
            path_encoding,
            by,
            others: self.others,
            session: Arc::clone(&self.session),
            agent: Arc::clone(&self.agent),
            owner: self.owner.clone(),
            tool_call: self.tool_call.clone(),
            prompt_id: self.prompt_id.clone(),
            intent: self.intent.clone(),
            policy: self.policy.clone(),
            rule: self.rule.clone(),
            time: Some(self.time.clone()),
            seq: Some(self.seq),
            cause: self.cause.clone(),
        }
    }

    /// Whether the kernel means this one's session by a number.
    fn is_by(&self, writer: u64) -> bool {
        writer == self.number || writer == past(&self.session)
    }
}

/// The number by which the kernel knows a session of an earlier boot: made of its id, and so the same for each daemon.
#[must_use]
pub fn past(session: &str) -> u64 {
    // FNV-1a.
    let hash = session.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash & !SESSION_BY_DAEMON | SESSION_OF_PAST
}

/// A chain of causes without one of its middle where it is too long.
fn shortened(cause: Arc<Cause>) -> Arc<Cause> {
    let mut links = std::iter::successors(Some(&cause), |one| one.cause.as_ref());
    if links.nth(CHAIN_MAX - 1).is_none() {
        return cause;
    }
    let after = cause.cause.as_ref().and_then(|second| second.cause.clone());
    Arc::new(Cause { cause: after, ..(*cause).clone() })
}

/// `MAJOR:MINOR` as the kernel encodes it.
fn device(text: &str) -> Option<u32> {
    let (major, minor) = text.split_once(':')?;
    Some(major.parse::<u32>().ok()? << 20 | minor.parse::<u32>().ok()?)
}

/// The last writers of files.
#[derive(Debug, Default)]
pub struct Written {
    files: HashMap<FileKey, Write>,
    /// Whether the kernel remembers these is still to be asked.
    fresh: HashMap<FileKey, Write>,
    /// Files that were given up before they were kept, by session.
    given_up: BTreeMap<u64, u64>,
    /// What a restart must know and is not kept yet.
    changed: BTreeSet<FileKey>,
    /// Files after the last look for those that are gone.
    swept: usize,
}

impl Written {
    /// Takes up what an event says.
    pub fn note(&mut self, event: &Event, session: u64, cause: impl FnOnce() -> Option<Arc<Cause>>) {
        match event.kind {
            Kind::FileOpen | Kind::FileReceive if event.op == Some(Op::Write) => {}
            Kind::FileRename => return self.renamed(event),
            _ => return,
        }
        if matches!(event.verdict, Verdict::Held | Verdict::Denied | Verdict::Killed) {
            return;
        }
        let Some(file) = &event.file else { return };
        let (Some(ino), Some(dev)) = (file.inode, device(&file.device)) else { return };
        let key = FileKey { ino, dev, pad: 0 };
        if self.of(key).is_some_and(|known| is_same(known, event)) {
            return;
        }
        if self.fresh.len() >= FRESH_MAX && !self.fresh.contains_key(&key) {
            *self.given_up.entry(session).or_default() += 1;
        } else if let Some(write) = Write::of(event, session, cause()) {
            self.fresh.insert(key, write);
        }
    }

    fn renamed(&mut self, event: &Event) {
        let Some(file) = event.file.as_ref().filter(|_| event.verdict == Verdict::Allowed) else { return };
        let (Some(ino), Some(dev), Some(to)) = (file.inode, device(&file.device), &file.path_to) else {
            return;
        };
        let key = FileKey { ino, dev, pad: 0 };
        let known = match self.fresh.get_mut(&key) {
            Some(known) => known,
            None => match self.files.get_mut(&key) {
                Some(known) => {
                    self.changed.insert(key);
                    known
                }
                None => return,
            },
        };
        known.path = to.clone();
        known.path_encoding = file.path_to_encoding;
    }

    /// Who wrote a file last.
    #[must_use]
    pub fn of(&self, key: FileKey) -> Option<&Write> {
        self.fresh.get(&key).or_else(|| self.files.get(&key))
    }

    /// Who wrote a file last, where that is the session that the kernel has by this number.
    #[must_use]
    pub fn by(&self, key: FileKey, writer: u64) -> Option<&Write> {
        let here = [self.fresh.get(&key), self.files.get(&key)];
        here.into_iter().flatten().find(|write| write.is_by(writer))
    }

    /// All that are kept.
    pub fn all(&self) -> impl Iterator<Item = &Write> {
        self.files.values()
    }

    /// Asks of what is new whether the kernel remembers it, and which generation it has: what it does not is forgotten.
    pub fn confirm(&mut self, generation: impl Fn(&Write) -> Option<u32>) {
        for (key, mut write) in self.fresh.drain() {
            if let Some(generation) = generation(&write) {
                write.generation = generation;
                self.files.insert(key, write);
                self.changed.insert(key);
            }
        }
    }

    /// Takes up what an earlier daemon kept.
    pub fn restore(&mut self, write: Write) {
        self.files.insert(write.key(), write);
    }

    /// What changed since the last call: what is there now, or that it is not there any more.
    pub fn take_changes(&mut self) -> Vec<(FileKey, Option<&Write>)> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|key| (key, self.files.get(&key))).collect()
    }

    /// Says that a change was not kept after all.
    pub fn not_kept(&mut self, keys: impl Iterator<Item = FileKey>) {
        self.changed.extend(keys);
    }

    /// Makes room where that becomes scarce: forgets what `is_gone`, and where that is not enough, the oldest of the
    /// sessions that have most. Gives what the kernel is to forget, and of these how many are given up for each session
    /// though they are there.
    pub fn make_room(&mut self, is_gone: impl Fn(&Write) -> bool) -> (Vec<FileKey>, BTreeMap<u64, u64>) {
        // Not again before there are some more, for each look asks the host about all of them.
        let mut told = std::mem::take(&mut self.given_up);
        if self.files.len() < SWEEP_AT.max(self.swept + WRITTEN as usize / 16) {
            return (Vec::new(), told);
        }
        let mut forgotten: Vec<FileKey> =
            self.files.iter().filter(|(_, write)| is_gone(write)).map(|(key, _)| *key).collect();
        for key in &forgotten {
            self.files.remove(key);
        }
        let (given_up, counts) = self.give_up(self.files.len().saturating_sub(STAY_MOST));
        forgotten.extend(given_up);
        self.changed.extend(&forgotten);
        self.swept = self.files.len();
        for (session, count) in counts {
            *told.entry(session).or_default() += count;
        }
        (forgotten, told)
    }

    /// Forgets so many, the oldest of the sessions that have most.
    fn give_up(&mut self, count: usize) -> (Vec<FileKey>, BTreeMap<u64, u64>) {
        let mut of_sessions: BTreeMap<u64, BTreeSet<(u64, FileKey)>> = BTreeMap::new();
        if count > 0 {
            for write in self.files.values() {
                of_sessions.entry(write.number).or_default().insert((write.seq, write.key()));
            }
        }
        let (mut keys, mut counts) = (Vec::new(), BTreeMap::new());
        while keys.len() < count {
            let Some((session, files)) = of_sessions.iter_mut().max_by_key(|(_, files)| files.len()) else {
                break;
            };
            let Some((_, key)) = files.pop_first() else { break };
            *counts.entry(*session).or_default() += 1;
            self.files.remove(&key);
            keys.push(key);
        }
        (keys, counts)
    }
}

/// Whether an event says nothing new of a file: the same session wrote it for the same call, and it is called so still.
fn is_same(known: &Write, event: &Event) -> bool {
    let call = |call: &Option<ToolCallRef>| call.as_ref().map(|call| Arc::clone(&call.id));
    known.session == event.session
        && known.boot_id == event.boot_id
        && call(&known.tool_call) == call(&event.tool_call)
        && known.prompt_id == event.prompt_id
        && event.file.as_ref().is_some_and(|file| file.path == known.path && !may_be_new(file))
}

/// Whether a file may have been made by this open: then its inode may be another one of the same number.
fn may_be_new(file: &File) -> bool {
    file.flags.as_ref().is_some_and(|flags| flags.contains("O_CREAT"))
}
