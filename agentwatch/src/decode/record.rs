//! Records, kind by kind.

use agentwatch_common::{
    ABI,
    kind::{CauseBy, GuardAct, RecordKind},
    record::{ADDRESS_BYTES, ExitBody, ForkBody, JoinBody, RecordHeader},
};

use super::{
    bytes::{Cursor, DecodeError},
    path::{self, PathText},
};

/// A record of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Who, when, in which session.
    pub header: RecordHeader,
    /// Its kind.
    pub kind: RecordKind,
    /// What happened.
    pub body: Body<'a>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// A process made another.
    Fork(ForkBody),
    /// A process started a program.
    Exec(Exec<'a>),
    /// More arguments of the exec before.
    Args(Args<'a>),
    /// The last thread of a process ended.
    Exit(ExitBody),
    /// A process joined a session without an exec.
    Join(JoinBody),
    /// Something done to a file, or a new working directory.
    File(FileAct<'a>),
    /// Something done to the network.
    Net(NetAct<'a>),
    /// Something that a guard is about.
    Guard(GuardRecord<'a>),
    /// What a session left behind is used.
    Cause(CauseRecord<'a>),
}

/// A program started: see [`agentwatch_common::record::ExecBody`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in the shared type")]
pub struct Exec<'a> {
    pub ino: u64,
    pub parent_session: u64,
    pub args_total: u32,
    pub attribution: u8,
    pub agent: u32,
    pub program: PathText<'a>,
    pub program_fs: PathText<'a>,
    pub cwd: PathText<'a>,
    pub cgroup: u64,
    pub args: Args<'a>,
}

/// Arguments, each ended by a NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Args<'a> {
    /// Offset in the whole list.
    pub offset: u32,
    /// [`agentwatch_common::record::args_flag`].
    pub flags: u16,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// Something done to a file: see [`agentwatch_common::record::FileBody`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in the shared type")]
pub struct FileAct<'a> {
    pub ino: u64,
    pub ino_to: u64,
    pub flags: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub path: PathText<'a>,
    pub path_fs: PathText<'a>,
    pub path_to: PathText<'a>,
    pub path_to_fs: PathText<'a>,
}

/// Something done to the network: see [`agentwatch_common::record::NetBody`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in the shared type")]
pub struct NetAct<'a> {
    pub family: u16,
    pub socket_type: u16,
    pub protocol: u16,
    pub local_port: u16,
    pub local_addr: [u8; 16],
    /// The bytes of the address that count.
    pub address: &'a [u8],
    /// Set where the address was longer than a record holds.
    pub address_cut: bool,
    pub ino: u64,
    pub path: PathText<'a>,
    pub path_fs: PathText<'a>,
}

/// Something that a guard is about: see [`agentwatch_common::record::GuardBody`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in the shared type")]
pub struct GuardRecord<'a> {
    pub target_start_ns: u64,
    pub target_pid: u32,
    pub detail: u32,
    pub act: GuardAct,
    pub guard: u8,
    pub path: PathText<'a>,
    pub path_fs: PathText<'a>,
}

/// What a session left behind is used: see [`agentwatch_common::record::CauseBody`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in the shared type")]
pub struct CauseRecord<'a> {
    pub ino: u64,
    pub writer: u64,
    pub generation: u32,
    pub agent: u32,
    pub by: CauseBy,
    pub others: bool,
    pub asker: u32,
    pub path: PathText<'a>,
    pub path_fs: PathText<'a>,
}

/// Reads one record.
///
/// # Errors
/// Bytes that are not what a program of this build writes.
pub fn decode(bytes: &[u8]) -> Result<Record<'_>, DecodeError> {
    let mut cursor = Cursor::new(bytes);
    let (header, kind) = header(&mut cursor, bytes.len())?;
    let body = match kind {
        RecordKind::Fork | RecordKind::ForkRefused => Body::Fork(fork(&mut cursor)?),
        RecordKind::Exec => Body::Exec(exec(&mut cursor)?),
        RecordKind::ExecArgs => Body::Args(more_args(&mut cursor)?),
        RecordKind::Exit => Body::Exit(ExitBody { code: cursor.u32()?, pad: 0 }),
        RecordKind::Join => Body::Join(join(&mut cursor)?),
        RecordKind::Cwd
        | RecordKind::FileOpen
        | RecordKind::FileCreate
        | RecordKind::FileDelete
        | RecordKind::FileRename
        | RecordKind::FileLink
        | RecordKind::FileSymlink
        | RecordKind::FileTruncate
        | RecordKind::FileMode
        | RecordKind::FileOwner
        | RecordKind::FileXattr
        | RecordKind::FileTimes
        | RecordKind::FileFlags
        | RecordKind::FileMkdir
        | RecordKind::FileRmdir
        | RecordKind::FileMap
        | RecordKind::FileReceive
        | RecordKind::ExecRefused
        | RecordKind::Mount
        | RecordKind::Unmount => Body::File(file(&mut cursor)?),
        RecordKind::NetConnect
        | RecordKind::NetSend
        | RecordKind::NetBind
        | RecordKind::NetListen
        | RecordKind::NetAccept
        | RecordKind::NetReceive => Body::Net(net(&mut cursor)?),
        RecordKind::Guard => Body::Guard(guard(&mut cursor)?),
        RecordKind::Cause => Body::Cause(cause(&mut cursor)?),
        RecordKind::Unknown(kind) => return Err(DecodeError::Kind(kind)),
    };
    Ok(Record { header, kind, body })
}

fn header(cursor: &mut Cursor<'_>, have: usize) -> Result<(RecordHeader, RecordKind), DecodeError> {
    let header = RecordHeader {
        len: cursor.u32()?,
        kind: cursor.u16()?,
        abi: cursor.u16()?,
        time_ns: cursor.u64()?,
        session: cursor.u64()?,
        start_ns: cursor.u64()?,
        pid: cursor.u32()?,
        tid: cursor.u32()?,
        ppid: cursor.u32()?,
        uid: cursor.u32()?,
        policy: cursor.u32()?,
        rule: cursor.u16()?,
        verdict: cursor.u8()?,
        pad: cursor.u8()?,
    };
    if header.abi != ABI {
        return Err(DecodeError::Abi(header.abi));
    }
    if header.len as usize != have {
        return Err(DecodeError::Length { said: header.len as usize, have });
    }
    if header.session == 0 {
        return Err(DecodeError::NoSession);
    }
    Ok((header, RecordKind::from_raw(header.kind)))
}

fn fork(cursor: &mut Cursor<'_>) -> Result<ForkBody, DecodeError> {
    Ok(ForkBody { child_start_ns: cursor.u64()?, child_pid: cursor.u32()?, child_ns_pid: cursor.u32()? })
}

fn exec<'a>(cursor: &mut Cursor<'a>) -> Result<Exec<'a>, DecodeError> {
    let (ino, parent_session) = (cursor.u64()?, cursor.u64()?);
    let (args_total, args_len) = (cursor.u32()?, cursor.u32()?);
    let (args_flags, attribution, _pad) = (cursor.u16()?, cursor.u8()?, cursor.u8()?);
    let agent = cursor.u32()?;
    let descs = [path::desc(cursor)?, path::desc(cursor)?, path::desc(cursor)?];
    let cgroup = cursor.u64()?;
    let [program, program_fs, cwd] = descs;
    Ok(Exec {
        ino,
        parent_session,
        args_total,
        attribution,
        agent,
        program: path::text(cursor, program)?,
        program_fs: path::text(cursor, program_fs)?,
        cwd: path::text(cursor, cwd)?,
        cgroup,
        args: Args { offset: 0, flags: args_flags, bytes: cursor.take(args_len as usize)? },
    })
}

fn more_args<'a>(cursor: &mut Cursor<'a>) -> Result<Args<'a>, DecodeError> {
    let (offset, args_len, flags) = (cursor.u32()?, cursor.u32()?, cursor.u16()?);
    cursor.take(6)?;
    Ok(Args { offset, flags, bytes: cursor.take(args_len as usize)? })
}

fn join(cursor: &mut Cursor<'_>) -> Result<JoinBody, DecodeError> {
    let (cgroup, agent, attribution) = (cursor.u64()?, cursor.u32()?, cursor.u8()?);
    Ok(JoinBody { cgroup, agent, attribution, pad: [0; 3] })
}

fn file<'a>(cursor: &mut Cursor<'a>) -> Result<FileAct<'a>, DecodeError> {
    let (ino, ino_to) = (cursor.u64()?, cursor.u64()?);
    let (flags, mode, uid, gid) = (cursor.u32()?, cursor.u32()?, cursor.u32()?, cursor.u32()?);
    let descs = [path::desc(cursor)?, path::desc(cursor)?, path::desc(cursor)?, path::desc(cursor)?];
    let [path, path_fs, path_to, path_to_fs] = descs;
    Ok(FileAct {
        ino,
        ino_to,
        flags,
        mode,
        uid,
        gid,
        path: path::text(cursor, path)?,
        path_fs: path::text(cursor, path_fs)?,
        path_to: path::text(cursor, path_to)?,
        path_to_fs: path::text(cursor, path_to_fs)?,
    })
}

fn net<'a>(cursor: &mut Cursor<'a>) -> Result<NetAct<'a>, DecodeError> {
    let (family, socket_type, protocol) = (cursor.u16()?, cursor.u16()?, cursor.u16()?);
    let local_port = cursor.u16()?;
    let local_addr = cursor.array()?;
    let address_len = usize::from(cursor.u16()?);
    cursor.take(6)?;
    let ino = cursor.u64()?;
    let address = cursor.take(ADDRESS_BYTES)?;
    let (path, path_fs) = (path::desc(cursor)?, path::desc(cursor)?);
    Ok(NetAct {
        family,
        socket_type,
        protocol,
        local_port,
        local_addr,
        address: address.get(..address_len).unwrap_or(address),
        address_cut: address_len > ADDRESS_BYTES,
        ino,
        path: path::text(cursor, path)?,
        path_fs: path::text(cursor, path_fs)?,
    })
}

fn guard<'a>(cursor: &mut Cursor<'a>) -> Result<GuardRecord<'a>, DecodeError> {
    let target_start_ns = cursor.u64()?;
    let (target_pid, detail) = (cursor.u32()?, cursor.u32()?);
    let (act, guard) = (GuardAct::from_raw(cursor.u16()?), cursor.u8()?);
    cursor.take(5)?;
    let (path, path_fs) = (path::desc(cursor)?, path::desc(cursor)?);
    Ok(GuardRecord {
        target_start_ns,
        target_pid,
        detail,
        act,
        guard,
        path: path::text(cursor, path)?,
        path_fs: path::text(cursor, path_fs)?,
    })
}

fn cause<'a>(cursor: &mut Cursor<'a>) -> Result<CauseRecord<'a>, DecodeError> {
    let (ino, writer) = (cursor.u64()?, cursor.u64()?);
    let (generation, agent) = (cursor.u32()?, cursor.u32()?);
    let (by, others) = (CauseBy::from_raw(cursor.u8()?), cursor.u8()? != 0);
    cursor.take(2)?;
    let asker = cursor.u32()?;
    let (path, path_fs) = (path::desc(cursor)?, path::desc(cursor)?);
    Ok(CauseRecord {
        ino,
        writer,
        generation,
        agent,
        by,
        others,
        asker,
        path: path::text(cursor, path)?,
        path_fs: path::text(cursor, path_fs)?,
    })
}
