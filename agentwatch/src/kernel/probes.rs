//! Every kernel program: on what it hangs, and what is lost without it.

use super::ability::LEARNING;

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hang {
    /// A tracepoint with typed arguments.
    Tracepoint,
    /// A hook of the Linux security modules.
    Lsm,
    /// The beginning of a kernel function.
    Entry,
    /// Its end.
    Exit,
    /// Packets that come in, of all cgroups.
    Packets,
}

/// One kernel program.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Name of the program in the object.
    pub program: &'static str,
    /// Hook, tracepoint or function.
    pub hook: &'static str,
    /// How it is attached.
    pub hang: Hang,
    /// What it gives, as `doctor` names it.
    pub gives: &'static str,
    /// Without it agentwatch does not start.
    pub required: bool,
}

const fn tracepoint(program: &'static str, hook: &'static str, gives: &'static str, required: bool) -> Probe {
    Probe { program, hook, hang: Hang::Tracepoint, gives, required }
}

const fn lsm(program: &'static str, hook: &'static str, gives: &'static str) -> Probe {
    Probe { program, hook, hang: Hang::Lsm, gives, required: false }
}

/// Programs that know a module by the numbers that this kernel gives to what it loads.
pub const GUARD_MODULE_FILE: &str = "guard_module_file";
/// See [`GUARD_MODULE_FILE`].
pub const GUARD_MODULE_DATA: &str = "guard_module_data";

/// All programs, in the order in which they are attached: those that end a process's membership first, so
/// that none is followed that would not be forgotten, and the one that makes members last.
pub const PROBES: &[Probe] = &[
    tracepoint("process_exit", "sched_process_exit", "process.exit", true),
    Probe { required: true, ..lsm("process_gone", "task_free", "process.exit") },
    tracepoint("process_fork", "sched_wakeup_new", "process.fork", true),
    lsm("process_room", "task_alloc", "refusal of children that cannot be followed"),
    lsm("file_open", "file_open", "file.open"),
    lsm("file_receive", "file_receive", "file.receive"),
    lsm("file_create", "path_mknod", "file.create"),
    lsm("file_mkdir", "path_mkdir", "file.mkdir"),
    lsm("file_rmdir", "path_rmdir", "file.rmdir"),
    lsm("file_delete", "path_unlink", "file.delete"),
    lsm("file_rename", "path_rename", "file.rename"),
    lsm("file_link", "path_link", "file.link"),
    lsm("file_symlink", "path_symlink", "file.symlink"),
    lsm("file_truncate_path", "path_truncate", "file.truncate"),
    lsm("file_truncate_open", "file_truncate", "file.truncate of open files"),
    lsm("file_mode", "path_chmod", "file.mode"),
    lsm("file_owner", "path_chown", "file.owner"),
    lsm("file_xattr_set", "inode_setxattr", "file.xattr"),
    lsm("file_xattr_remove", "inode_removexattr", "file.xattr removal"),
    lsm("file_acl_set", "inode_set_acl", "file.xattr of access control lists"),
    lsm("file_acl_remove", "inode_remove_acl", "file.xattr of access control lists"),
    lsm("file_times", "inode_setattr", "file.times"),
    lsm("file_flags", "inode_file_setattr", "file.flags"),
    lsm("file_flags_ioctl", "file_ioctl", "file.flags"),
    lsm("mount_old", "sb_mount", "mount"),
    lsm("mount_new", "move_mount", "mount by the newer calls"),
    lsm("unmount", "sb_umount", "unmount"),
    lsm("mount_made", "sb_kern_mount", "guard mount"),
    lsm("mount_changed", "sb_remount", "guard mount"),
    lsm("guard_ptrace", "ptrace_access_check", "guard ptrace"),
    lsm("guard_signal", "task_kill", "guard signal"),
    lsm("guard_limit", "task_setrlimit", "guard signal"),
    lsm("guard_schedule", "task_setscheduler", "guard signal"),
    lsm("guard_nice", "task_setnice", "guard signal"),
    lsm("guard_userns", "userns_create", "guard namespace"),
    lsm("guard_pivot_root", "sb_pivotroot", "guard namespace"),
    lsm("guard_chroot", "path_chroot", "guard namespace"),
    lsm(GUARD_MODULE_FILE, "kernel_read_file", "guard module"),
    lsm(GUARD_MODULE_DATA, "kernel_load_data", "guard module"),
    lsm("guard_bpf", "bpf", "guard bpf"),
    lsm("guard_raw_socket", "socket_create", "guard raw-socket"),
    lsm("guard_clock", "settime", "rules in windows"),
    lsm("guard_keys", "file_ioctl", "guard delegate"),
    lsm("guard_keys_compat", "file_ioctl_compat", "keys from 32-bit programs"),
    lsm("net_connect", "socket_connect", "net.connect"),
    lsm("net_send", "socket_sendmsg", "net.send"),
    lsm("net_bind", "socket_bind", "net.bind"),
    lsm("net_listen", "socket_listen", "net.listen"),
    lsm("net_accept", "sock_graft", "net.accept"),
    lsm("net_receive", "file_receive", "net.receive"),
    lsm("unix_connect", "unix_stream_connect", "net.connect to Unix sockets"),
    lsm("unix_send", "unix_may_send", "net.send to Unix sockets"),
    lsm("exec_check", "bprm_check_security", "rules on programs"),
    lsm("exec_map", "mmap_file", "rules on programs that others load"),
    lsm("user_change", "task_fix_setuid", "sessions by user"),
    tracepoint("cgroup_made", "cgroup_mkdir", "sessions by cgroup", false),
    tracepoint("cgroup_removed", "cgroup_rmdir", "sessions by cgroup", false),
    tracepoint("cgroup_attach", "cgroup_attach_task", "sessions by cgroup", false),
    Probe {
        program: "name_answer",
        hook: "cgroup_skb/ingress",
        hang: Hang::Packets,
        gives: LEARNING,
        required: false,
    },
    Probe {
        program: "change_cwd",
        hook: "set_fs_pwd",
        hang: Hang::Entry,
        gives: "working directories",
        required: false,
    },
    Probe {
        program: "delegate_heard",
        hook: "unix_stream_recvmsg",
        hang: Hang::Exit,
        gives: "what is asked of delegates",
        required: false,
    },
    Probe {
        program: "delegate_heard_2",
        hook: "unix_stream_recvmsg",
        hang: Hang::Exit,
        gives: "what is asked of delegates",
        required: false,
    },
    tracepoint("process_exec", "sched_process_exec", "process.exec", true),
    tracepoint("process_exec_2", "sched_process_exec", "process.exec", true),
    Probe { required: true, ..lsm("process_recognise", "bprm_committed_creds", "sessions by program") },
];

/// Probes whose hook came later than the oldest supported kernel, and what stands in for them before.
pub const LATER: &[(&str, &str)] = &[
    (
        "file_truncate_open",
        "kernels before 6.2 have no such hook: `path_truncate` sees these truncations there",
    ),
    ("file_acl_set", LISTS),
    ("file_acl_remove", LISTS),
    ("guard_keys_compat", "this kernel has no such hook: `file_ioctl` sees these there"),
];

const LISTS: &str = "kernels before 6.2 have no such hook: to the one on extended attributes lists are such";

/// Probes of which only one is attached, the first where its hook is there: before that the other does as well.
pub const EITHER: (&str, &str) = ("file_flags", "file_flags_ioctl");
