//! What was done to a file, in the words of the event.

use agentwatch_common::{
    kind::RecordKind,
    record::{REFUSED_COMMAND, path_flag},
};

use super::process::Text;
use crate::places::Mounts;
use crate::{
    decode::{FileAct, PathText},
    event::{File, Kind, Op},
};

/// Linux's `O_*`, as on x86-64 and arm64 alike but for those that the kernel sets itself.
const OPEN_FLAGS: &[(u32, &str)] = &[
    (0o100, "O_CREAT"),
    (0o200, "O_EXCL"),
    (0o400, "O_NOCTTY"),
    (0o1000, "O_TRUNC"),
    (0o2000, "O_APPEND"),
    (0o4000, "O_NONBLOCK"),
    (0o40000, "O_DIRECT"),
    (0o200_000, "O_DIRECTORY"),
    (0o400_000, "O_NOFOLLOW"),
    (0o2_000_000, "O_CLOEXEC"),
    (0o4_010_000, "O_SYNC"),
    (0o10_000_000, "O_PATH"),
    (0o20_000_000, "O_TMPFILE"),
];
const ACCESS: u32 = 3;
const O_CREAT: u32 = 0o100;
const O_TRUNC: u32 = 0o1000;
const RENAME_FLAGS: &[(u32, &str)] =
    &[(1, "RENAME_NOREPLACE"), (2, "RENAME_EXCHANGE"), (4, "RENAME_WHITEOUT")];

/// Kind and operation of a record on a file. `None` for those that are no event of their own.
#[must_use]
pub fn kind_of(kind: RecordKind, act: &FileAct<'_>) -> Option<(Kind, Option<Op>)> {
    Some(match kind {
        RecordKind::FileOpen => (Kind::FileOpen, Some(open_op(act.flags))),
        RecordKind::FileReceive => (Kind::FileReceive, Some(open_op(act.flags))),
        RecordKind::FileCreate => (Kind::FileCreate, Some(Op::Write)),
        RecordKind::FileDelete => (Kind::FileDelete, Some(Op::Delete)),
        RecordKind::FileRename => (Kind::FileRename, Some(Op::Delete)),
        RecordKind::FileLink => (Kind::FileLink, Some(Op::Write)),
        RecordKind::FileSymlink => (Kind::FileSymlink, Some(Op::Write)),
        RecordKind::FileTruncate => (Kind::FileTruncate, Some(Op::Write)),
        RecordKind::FileMode => (Kind::FileMode, Some(Op::Write)),
        RecordKind::FileOwner => (Kind::FileOwner, Some(Op::Write)),
        RecordKind::FileXattr => (Kind::FileXattr, Some(Op::Write)),
        RecordKind::FileTimes => (Kind::FileTimes, Some(Op::Write)),
        RecordKind::FileFlags => (Kind::FileFlags, Some(Op::Write)),
        RecordKind::FileMkdir => (Kind::FileMkdir, Some(Op::Write)),
        RecordKind::FileRmdir => (Kind::FileRmdir, Some(Op::Delete)),
        RecordKind::ExecRefused if act.flags == REFUSED_COMMAND => (Kind::ProcessExec, Some(Op::Run)),
        RecordKind::ExecRefused => (Kind::ProcessExec, Some(Op::Exec)),
        RecordKind::FileMap => (Kind::FileMap, Some(Op::Exec)),
        RecordKind::Mount => (Kind::Mount, None),
        RecordKind::Unmount => (Kind::Unmount, None),
        _ => return None,
    })
}

fn open_op(flags: u32) -> Op {
    if flags & ACCESS != 0 || flags & (O_CREAT | O_TRUNC) != 0 { Op::Write } else { Op::Read }
}

/// Where something is, as far as that can be told.
#[derive(Debug, Default)]
pub struct Located {
    /// The path.
    pub path: Vec<u8>,
    /// The root that it is relative to, where not the initial one.
    pub root: Option<String>,
    /// The path as seen in the container.
    pub container_path: Option<Vec<u8>>,
}

/// Whether it takes the mounts to find the path in the initial namespace.
#[must_use]
pub const fn needs_mounts(whole: &PathText<'_>) -> bool {
    whole.has(path_flag::WITHIN_FS) || whole.has(path_flag::OTHER_NS)
}

/// Finds the path in the initial namespace.
#[must_use]
pub fn locate(whole: &PathText<'_>, within: &PathText<'_>, mounts: &Mounts) -> Located {
    let path = whole.path();
    if whole.has(path_flag::WITHIN_FS) {
        return match mounts.path(whole.desc.dev, &path) {
            Some(path) => Located { path, ..Located::default() },
            None => {
                Located { path, root: Some(format!("dev:{}", device(whole.desc.dev))), container_path: None }
            }
        };
    }
    if !whole.has(path_flag::OTHER_NS) {
        return Located { path, ..Located::default() };
    }
    match mounts.path(within.desc.dev, &within.path()) {
        Some(known) if !within.is_cut() => {
            Located { container_path: (known != path).then_some(path), path: known, root: None }
        }
        _ => {
            let root = match whole.desc.mount_ns {
                0 => "mnt:detached".to_owned(),
                inode => format!("mnt:[{inode}]"),
            };
            Located { path, root: Some(root), container_path: None }
        }
    }
}

/// The file of an event.
#[must_use]
pub fn file_of(kind: RecordKind, act: &FileAct<'_>, mounts: &Mounts) -> File {
    let located = locate(&act.path, &act.path_fs, mounts);
    let path = Text::from_vec(located.path);
    let verbatim = act.path_to.has(path_flag::VERBATIM);
    let second = (act.path_to.desc.flags != 0 || act.path_to.desc.len != 0 || act.path_to.desc.dev != 0)
        .then(|| if verbatim { Text::of(act.path_to.text()) } else { second_path(act, mounts) });
    let (path_to, argument) = if verbatim { (None, second) } else { (second, None) };
    let container_path = located.container_path.map(Text::from_vec);
    let gives_mode = matches!(kind, RecordKind::FileCreate | RecordKind::FileMkdir | RecordKind::FileMode);
    File {
        path: path.text,
        path_encoding: path.encoding,
        path_truncated: act.path.is_cut() || act.path_to.is_cut(),
        root: located.root,
        container_path_encoding: container_path.as_ref().and_then(|path| path.encoding),
        container_path: container_path.map(|path| path.text),
        path_to_encoding: path_to.as_ref().and_then(|path| path.encoding),
        path_to: path_to.map(|path| path.text),
        argument_encoding: argument.as_ref().and_then(|text| text.encoding),
        argument: argument.map(|text| text.text),
        deleted: act.path.has(path_flag::DELETED),
        device: device(act.path.desc.dev),
        inode: (act.ino != 0).then_some(act.ino),
        flags: flags_of(kind, act.flags),
        mode: gives_mode.then(|| format!("{:04o}", act.mode & 0o7777)),
        uid: (act.uid != u32::MAX).then_some(act.uid),
        gid: (act.gid != u32::MAX).then_some(act.gid),
        size: None,
    }
}

fn second_path(act: &FileAct<'_>, mounts: &Mounts) -> Text {
    Text::from_vec(locate(&act.path_to, &act.path_to_fs, mounts).path)
}

/// `MAJOR:MINOR` of a device as the kernel encodes it.
fn device(dev: u32) -> String {
    // By hand, as every event pays for it.
    let mut text = String::with_capacity("4095:1048575".len());
    push_number(&mut text, dev >> 20);
    text.push(':');
    push_number(&mut text, dev & 0xf_ffff);
    text
}

fn push_number(text: &mut String, number: u32) {
    if number >= 10 {
        push_number(text, number / 10);
    }
    text.push(char::from(b'0' + u8::try_from(number % 10).unwrap_or(0)));
}

fn flags_of(kind: RecordKind, flags: u32) -> Option<String> {
    match kind {
        RecordKind::FileOpen | RecordKind::FileReceive => Some(open_flags(flags)),
        RecordKind::FileRename if flags != 0 => Some(names(RENAME_FLAGS, flags).join("|")),
        RecordKind::Mount | RecordKind::Unmount if flags != 0 => Some(format!("{flags:#x}")),
        _ => None,
    }
}

fn open_flags(flags: u32) -> String {
    let access = match flags & ACCESS {
        0 => "O_RDONLY",
        1 => "O_WRONLY",
        _ => "O_RDWR",
    };
    let mut text = String::with_capacity(64);
    text.push_str(access);
    for (bits, name) in OPEN_FLAGS {
        if flags & bits == *bits {
            text.push('|');
            text.push_str(name);
        }
    }
    text
}

fn names(known: &[(u32, &'static str)], flags: u32) -> Vec<&'static str> {
    known.iter().filter(|(bits, _)| flags & bits == *bits).map(|(_, name)| *name).collect()
}
