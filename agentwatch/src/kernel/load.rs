//! Loading the programs and pinning them, so that they go on when the daemon ends.
//!
//! Everything of one build lies in one folder of the BPF file system. A daemon of the same build that finds it
//! whole takes over what runs there: no process is missed in between, and what happened meanwhile waits in the
//! ring.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::LazyLock,
    time::Instant,
};

use agentwatch_common::{limits::SCRATCH_PER_CPU, maps::control, offsets::Offsets};
use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, MapData},
    programs::{
        CgroupAttachMode, CgroupSkbAttachType, Program, ProgramError, ProgramType,
        links::{FdLink, PinnedLink},
    },
    sys::{BpfHelper, is_helper_supported},
};

use super::{
    Abilities, KernelError,
    ability::RULES,
    maps::{self, Maps, Shared},
    offsets,
    probes::{EITHER, GUARD_MODULE_DATA, GUARD_MODULE_FILE, Hang, LATER, PROBES, Probe},
};

/// Where objects of all builds are kept.
pub const PIN_ROOT: &str = "/sys/fs/bpf/agentwatch";
/// Marks a folder in which everything was attached: `Abilities` as JSON cannot be kept in the BPF file system,
/// so each ability that is absent has left no link there.
const COMPLETE: &str = "complete";

/// The object that the build script made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/agentwatch-ebpf"));

/// The attached programs and their tables.
pub struct Kernel {
    /// The tables.
    pub maps: Maps,
    /// What works here.
    pub abilities: Abilities,
    /// True where programs of an earlier daemon went on and were taken over.
    pub taken_over: bool,
    /// Held as long as this process reads the ring.
    pub lock: HostLock,
}

/// The kernel objects are this process's until this is dropped or the process ends, however it ends: two daemons
/// would each get a part of what the ring holds, and a third nothing of what either was told.
#[derive(Debug)]
pub struct HostLock {
    _folder: File,
}

impl HostLock {
    fn take() -> Result<Self, KernelError> {
        let failed = |source| KernelError::NoBpfFs { path: PIN_ROOT.into(), source };
        fs::create_dir_all(PIN_ROOT).map_err(failed)?;
        let folder = File::open(PIN_ROOT).map_err(failed)?;
        match folder.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(KernelError::AnotherRuns),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // A daemon that ended in between removed the folder: the lock is then on nothing.
        let locked = folder.metadata().map_err(failed)?.ino();
        if fs::metadata(PIN_ROOT).is_ok_and(|found| found.ino() == locked) {
            Ok(Self { _folder: folder })
        } else {
            Err(KernelError::AnotherRuns)
        }
    }
}

/// Identifies this build's object: two with the same can use each other's pins.
#[must_use]
pub fn build_id() -> &'static str {
    // The object is large, and whenever sessions are saved this is asked for.
    static ID: LazyLock<String> = LazyLock::new(|| {
        // FNV-1a: tells builds apart, and guards against nothing.
        let hash = OBJECT.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{hash:016x}")
    });
    &ID
}

/// Takes over what an earlier daemon of this build left, or loads and attaches everything.
///
/// # Errors
/// What this kernel or the privileges do not allow.
pub fn attach() -> Result<Kernel, KernelError> {
    check_host()?;
    let lock = HostLock::take()?;
    let dir = Path::new(PIN_ROOT).join(build_id());
    if dir.join(COMPLETE).exists() {
        let maps = Maps::open(&dir)?;
        let abilities = abilities_of_pins(&dir, maps.word(control::JUDGES)? != 0);
        return Ok(Kernel { maps, abilities, taken_over: true, lock });
    }
    // What a daemon that was killed in the middle of this left.
    remove_folder(&dir);
    let loaded = load(&dir);
    if loaded.is_err() {
        remove_folder(&dir);
        let _ = fs::remove_dir(PIN_ROOT);
    }
    let (mut maps, abilities) = loaded?;
    let taken_over = inherit(&dir, &mut maps);
    fs::create_dir(dir.join(COMPLETE)).map_err(|source| KernelError::NoBpfFs { path: dir, source })?;
    Ok(Kernel { maps, abilities, taken_over, lock })
}

/// Detaches all programs of all builds and removes their tables. What is not there is no error.
pub fn detach() {
    for build in builds() {
        remove_folder(&build);
    }
    let _ = fs::remove_dir(PIN_ROOT);
}

/// What must be so before anything is loaded.
///
/// # Errors
/// Not root, no programs in this build, or the BPF security module is off.
pub fn check_host() -> Result<(), KernelError> {
    if !rustix::process::geteuid().is_root() {
        return Err(KernelError::NotRoot);
    }
    if OBJECT.is_empty() {
        return Err(KernelError::NoObject);
    }
    // Programs attach without an error where the module is off, and never run.
    let active = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    if !active.trim().split(',').any(|name| name == "bpf") {
        return Err(KernelError::NoBpfLsm { active: active.trim().to_owned() });
    }
    Ok(())
}

/// Loads the object and attaches and pins each program.
fn load(dir: &Path) -> Result<(Maps, Abilities), KernelError> {
    let links = dir.join("links");
    fs::create_dir_all(&links).map_err(|source| KernelError::NoBpfFs { path: links.clone(), source })?;
    let found = offsets::find()?;
    let words = found.offsets.words();
    let cpus = aya::util::nr_cpus().map_or(1, |cpus| cpus as u32);
    let slots = cpus * SCRATCH_PER_CPU + SCRATCH_PER_CPU;
    let btf = Btf::from_sys_fs().map_err(aya::EbpfError::from)?;
    let loops = runs_loops();
    let mut ebpf = EbpfLoader::new()
        .btf(Some(&btf))
        .default_map_pin_directory(dir)
        .override_global("OFFSETS", &words, true)
        .override_global("SCRATCH_SLOTS", &slots, true)
        .override_global("KERNEL_LOOPS", &u32::from(loops), true)
        .map_max_entries("SCRATCH", slots)
        .load(OBJECT)?;
    set_words(dir, [(control::NEXT_SESSION, first_session()), (control::JUDGES, u64::from(loops))])?;
    let mut abilities = Abilities::default();
    for probe in PROBES {
        if is_blind(probe, &found.offsets) {
            note_absence(
                &mut abilities,
                probe,
                "this kernel's type information does not say what a module is",
            );
            continue;
        }
        if probe.program == EITHER.1 && links.join(EITHER.0).exists() {
            continue;
        }
        match hang(&mut ebpf, probe, &btf, &links) {
            Ok(()) => abilities.full(probe.gives),
            Err(reason) if probe.required => {
                return Err(KernelError::Program { gives: probe.gives, hook: probe.hook, reason });
            }
            Err(_) if probe.program == EITHER.0 => {}
            Err(reason) => note_absence(&mut abilities, probe, &reason),
        }
    }
    // Before the ring is mapped, whose pages count as the daemon's.
    drop((ebpf, btf));
    crate::memory::release();
    note_rules(&mut abilities, loops);
    for name in found.missing {
        abilities.degraded("vsock", format!("the vsock module was not loaded at start: `{name}` is unknown, so the addresses of vsock listeners and accepted peers are missing"));
    }
    Ok((Maps::open(dir)?, abilities))
}

/// Sets what programs read from their beginning on.
fn set_words(dir: &Path, words: [(u32, u64); 2]) -> Result<(), KernelError> {
    let mut control: Array<MapData, u64> = maps::array(dir, "CONTROL")?;
    for (index, value) in words {
        control.set(index, value, 0).map_err(|source| KernelError::Map { name: "CONTROL", source })?;
    }
    Ok(())
}

/// Whether a program would run and see nothing.
fn is_blind(probe: &Probe, offsets: &Offsets) -> bool {
    (probe.program == GUARD_MODULE_FILE && offsets.module_reads == 0)
        || (probe.program == GUARD_MODULE_DATA && offsets.module_loads == 0)
}

/// Loads, attaches and pins one program. The reason of a failure is in words.
fn hang(ebpf: &mut Ebpf, probe: &Probe, btf: &Btf, links: &Path) -> Result<(), String> {
    let program = ebpf.program_mut(probe.program).ok_or("the object does not have it")?;
    let began = Instant::now();
    let link = attached(program, probe, btf).map_err(|error| describe(&error))?;
    // What the verifier had to look at says what a start costs, on every machine.
    let verified = program.info().ok().and_then(|info| info.verified_instruction_count());
    tracing::debug!(program = probe.program, verified, took = ?began.elapsed(), "a program was loaded");
    link.pin(links.join(probe.program)).map_err(|error| error.to_string())?;
    Ok(())
}

fn attached(program: &mut Program, probe: &Probe, btf: &Btf) -> Result<FdLink, ProgramError> {
    Ok(match (program, probe.hang) {
        (Program::Lsm(program), Hang::Lsm) => {
            program.load(probe.hook, btf)?;
            let id = program.attach()?;
            program.take_link(id)?.into()
        }
        (Program::BtfTracePoint(program), Hang::Tracepoint) => {
            program.load(probe.hook, btf)?;
            let id = program.attach()?;
            program.take_link(id)?.into()
        }
        (Program::CgroupSkb(program), Hang::Packets) => {
            program.load()?;
            let cgroup = root_cgroup().map_err(ProgramError::IOError)?;
            // Links stand beside other programs in any case, and the kernel takes no flag for them.
            let id = program.attach(cgroup, CgroupSkbAttachType::Ingress, CgroupAttachMode::Single)?;
            program
                .take_link(id)?
                .try_into()
                .map_err(|error| ProgramError::IOError(io::Error::other(error)))?
        }
        (Program::FEntry(program), Hang::Entry) => {
            program.load(probe.hook, btf)?;
            let id = program.attach()?;
            program.take_link(id)?.into()
        }
        (Program::FExit(program), Hang::Exit) => {
            program.load(probe.hook, btf)?;
            let id = program.attach()?;
            program.take_link(id)?.into()
        }
        _ => return Err(ProgramError::UnexpectedProgramType),
    })
}

/// The cgroup that all others are below: within a container's own namespace there is none to be seen.
fn root_cgroup() -> io::Result<File> {
    /// Inode number of the first folder of such a file system.
    const ROOT: u64 = 1;
    let mut missing = io::Error::other("the root of the unified hierarchy of cgroups is not mounted");
    for path in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        let found = File::open(path).and_then(|folder| Ok((rustix::fs::fstatfs(&folder)?, folder)));
        match found {
            Ok((system, folder)) if system.f_type == CGROUP2_MAGIC && folder.metadata()?.ino() == ROOT => {
                return Ok(folder);
            }
            Ok(_) => {}
            Err(error) => missing = error,
        }
    }
    Err(missing)
}

/// What `statfs` says of the unified hierarchy of cgroups (`CGROUP2_SUPER_MAGIC`).
const CGROUP2_MAGIC: rustix::fs::FsWord = 0x6367_7270;

/// The kernel's words, with the end of the verifier's log, where the reason is.
fn describe(error: &ProgramError) -> String {
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        let log = verifier_log.to_string();
        let lines: Vec<&str> = log.lines().rev().take(verifier_lines()).collect();
        return format!("{io_error}: {}", lines.into_iter().rev().collect::<Vec<_>>().join("\n"));
    }
    error.to_string()
}

/// Lines of the verifier's log that are shown; `AGENTWATCH_VERIFIER_LINES` gives developers more.
fn verifier_lines() -> usize {
    std::env::var("AGENTWATCH_VERIFIER_LINES").ok().and_then(|lines| lines.parse().ok()).unwrap_or(6)
}

/// Whether this kernel runs loops for programs (`bpf_loop`, since 5.17).
///
/// With `AGENTWATCH_NO_KERNEL_LOOPS` in the environment it counts as one that does not: so what older kernels get is
/// tried on newer ones.
fn runs_loops() -> bool {
    std::env::var_os("AGENTWATCH_NO_KERNEL_LOOPS").is_none()
        && is_helper_supported(ProgramType::TracePoint, BpfHelper::BPF_FUNC_loop).unwrap_or(true)
}

/// What judges, beside the programs that ask it.
fn note_rules(abilities: &mut Abilities, judges: bool) {
    if judges {
        abilities.full(RULES);
    } else {
        abilities.absent(RULES, "kernels before 5.17 have no `bpf_loop`, without which the verifier does not get through the programs that judge: agents are observed here, and nothing is refused");
    }
}

fn note_absence(abilities: &mut Abilities, probe: &Probe, reason: &str) {
    match LATER.iter().find(|(program, _)| *program == probe.program) {
        Some((_, instead)) => abilities.degraded(probe.gives, *instead),
        None => abilities.absent(probe.gives, format!("`{}` cannot be used: {reason}", probe.hook)),
    }
}

/// What works, as the links tell that an earlier daemon pinned.
fn abilities_of_pins(dir: &Path, judges: bool) -> Abilities {
    let mut abilities = Abilities::default();
    for probe in PROBES {
        let is_pinned = |program: &str| PinnedLink::from_pin(dir.join("links").join(program)).is_ok();
        let other = probe.program == EITHER.0 || probe.program == EITHER.1;
        if is_pinned(probe.program) || other && (is_pinned(EITHER.0) || is_pinned(EITHER.1)) {
            abilities.full(probe.gives);
        } else {
            note_absence(&mut abilities, probe, "its link is not there");
        }
    }
    note_rules(&mut abilities, judges);
    abilities
}

/// Number of the first session: beyond all that an earlier set of tables in this boot can have given.
fn first_session() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    (now.tv_sec as u64) * 1_000_000 + (now.tv_nsec as u64) / 1_000
}

/// Takes processes and sessions over from another build's tables and removes them. True where there were any.
fn inherit(own: &Path, maps: &mut Maps) -> bool {
    let mut inherited = false;
    for build in builds().into_iter().filter(|build| build != own) {
        if let Ok(old) = Maps::open(&build) {
            for (pid, entry) in old.processes.iter().flatten() {
                let Shared(entry) = entry;
                inherited |= maps.processes.insert(pid, entry).is_ok();
            }
            for (number, entry) in old.sessions.iter().flatten() {
                let _ = maps.sessions.insert(number, entry, 0);
            }
            for (file, entry) in old.written.iter().flatten() {
                let _ = maps.written.insert(file, entry, 0);
                let _ = maps.set_word(control::ANY_WRITTEN, 1);
            }
        }
        remove_folder(&build);
    }
    inherited
}

/// Folders of builds.
fn builds() -> Vec<PathBuf> {
    fs::read_dir(PIN_ROOT).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Removes a folder of pins: the links first, as their removal detaches the programs.
fn remove_folder(dir: &Path) {
    for folder in [dir.join("links"), dir.to_owned()] {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let _ = fs::remove_file(entry.path());
        }
    }
    let _ = fs::remove_dir(dir.join("links"));
    let _ = fs::remove_dir(dir.join(COMPLETE));
    if let Err(error) = fs::remove_dir(dir)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(dir = %dir.display(), %error, "cannot remove kernel objects of an earlier agentwatch");
    }
}
