//! Who wrote a file, and what came of it.

use std::{collections::HashMap, path::Path, sync::Arc};

use serde::Serialize;

use super::{Latest, LookedThrough, Writer, in_json, look_through};
use crate::{
    event::{Cause, Encoding, Event, Kind, ObservedText, Op, Verdict, bytes},
    log::LogError,
    written::Write,
};

/// Names that a file had before, as far as they are followed back.
const NAMES_MAX: usize = 8;

/// Who caused a file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FileBlame {
    /// The file.
    pub path: ObservedText,
    /// Whether the path is encoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_encoding: Option<Encoding>,
    /// Who wrote it last.
    pub writer: Option<Writer>,
    /// Set where the file that is there now is another one than was written.
    pub replaced: bool,
    /// What sessions did to it, the youngest first.
    pub acts: Vec<Event>,
    /// How much more they did.
    pub more_acts: u64,
    /// Sessions that the use of it made, the youngest first.
    pub caused: Vec<Event>,
    /// How many more.
    pub more_caused: u64,
    /// What this rests on.
    pub looked_through: LookedThrough,
}

impl FileBlame {
    /// Whether nothing is known of the file.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.writer.is_none() && self.acts.is_empty() && self.caused.is_empty()
    }
}

/// What is looked for under one name.
struct Search {
    name: ObservedText,
    encoding: Option<Encoding>,
    /// Events from this one on are of another file of that name.
    before: u64,
}

impl Search {
    fn is(&self, path: &ObservedText, encoding: Option<Encoding>) -> bool {
        *path == self.name && encoding == self.encoding
    }
}

/// Who caused a file at an absolute path. `inode` is the number of the one that is there now, `kept` what is kept of files
/// that sessions wrote.
///
/// # Errors
/// The log cannot be read.
pub fn of_file(
    state: &Path,
    path: &[u8],
    inode: Option<u64>,
    kept: &[Write],
    most: usize,
) -> Result<FileBlame, LogError> {
    let (path, encoded) = bytes::encode(path);
    let path_encoding = encoded.then_some(Encoding::Percent);
    let (mut acts, mut caused) = (Latest::new(most), Latest::new(most));
    let mut search = Search { name: path.clone(), encoding: path_encoding, before: u64::MAX };
    let mut looked_through = None;
    let (mut last, mut causes) = (None, HashMap::new());
    for _ in 0..NAMES_MAX {
        let mut found =
            Found { acts: Latest::new(most), caused: Latest::new(most), last: None, renamed: None };
        let needle = in_json(&search.name);
        let start = r#""kind":"session.start""#;
        let may_hold =
            |line: &str| line.contains(&needle) || line.contains(start) && line.contains(r#""cause":"#);
        let looked = look_through(state, may_hold, |event| found.take(&search, event, &mut causes))?;
        looked_through.get_or_insert(looked);
        append(&mut acts, found.acts);
        append(&mut caused, found.caused);
        last = last.or(found.last);
        let Some((seq, name, encoding)) = found.renamed else { break };
        search = Search { name, encoding, before: seq };
    }
    let of_log = last
        .as_ref()
        .map(|event| Writer { cause: causes.get(&event.session).cloned(), ..Writer::of_event(event) });
    let known = |write: &&Write| Some(write.inode) == inode && write.root.is_none() && write.path == path;
    let of_kept = kept.iter().filter(known).map(Writer::of_kept).max_by_key(|writer| writer.seq);
    // Whichever is younger: the log may have lost the one, and what is kept may not be on disk yet.
    let writer = [of_log, of_kept].into_iter().flatten().max_by_key(|writer| writer.seq);
    let written = writer.as_ref().and_then(|writer| writer.inode);
    let replaced = inode.is_some() && written.is_some() && inode != written;
    let ((acts, more_acts), (caused, more_caused)) = (acts.newest_first(), caused.newest_first());
    let looked_through = looked_through.unwrap_or_default();
    Ok(FileBlame {
        path,
        path_encoding,
        writer,
        replaced,
        acts,
        more_acts,
        caused,
        more_caused,
        looked_through,
    })
}

/// What is found under one name.
struct Found {
    acts: Latest,
    caused: Latest,
    last: Option<Event>,
    /// Number of the event by which it got this name, and its name before.
    renamed: Option<(u64, ObservedText, Option<Encoding>)>,
}

impl Found {
    fn take(&mut self, search: &Search, event: Event, causes: &mut HashMap<Arc<str>, Arc<Cause>>) {
        if let Some(cause) = &event.cause {
            if search.is(&cause.path, cause.path_encoding) {
                self.caused.push(event.clone());
            }
            causes.insert(Arc::clone(&event.session), Arc::clone(cause));
            return;
        }
        let Some(file) = event.file.as_ref().filter(|_| event.seq < search.before && changes(&event)) else {
            return;
        };
        let to = file.path_to.as_ref().is_some_and(|to| search.is(to, file.path_to_encoding));
        if !to && !search.is(&file.path, file.path_encoding) {
            return;
        }
        let happened = matches!(event.verdict, Verdict::Allowed | Verdict::Logged | Verdict::WouldDeny);
        if happened && to && event.kind == Kind::FileRename {
            self.renamed = Some((event.seq, file.path.clone(), file.path_encoding));
            self.last = None;
        } else if happened && writes(event.kind) {
            self.renamed = self.renamed.take().filter(|_| event.kind != Kind::FileCreate);
            self.last = Some(event.clone());
        }
        self.acts.push(event);
    }
}

/// Adds what happened under an earlier name behind what is younger.
fn append(all: &mut Latest, older: Latest) {
    all.count += older.count;
    for event in older.kept.into_iter().rev() {
        if all.kept.len() < all.most {
            all.kept.push_front(event);
        }
    }
}

/// Whether an event tells of a change of a file or its name.
fn changes(event: &Event) -> bool {
    match event.kind {
        Kind::FileOpen | Kind::FileReceive => event.op == Some(Op::Write),
        Kind::FileDelete
        | Kind::FileRename
        | Kind::FileSymlink
        | Kind::FileMode
        | Kind::FileOwner
        | Kind::FileXattr
        | Kind::FileMkdir
        | Kind::FileRmdir => true,
        kind => writes(kind),
    }
}

/// Whether what is in a file, or which file has a name, may be another after this.
const fn writes(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::FileOpen
            | Kind::FileReceive
            | Kind::FileCreate
            | Kind::FileLink
            | Kind::FileTruncate
            | Kind::FileSymlink
    )
}
