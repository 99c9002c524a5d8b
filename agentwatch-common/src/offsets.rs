//! Where the running kernel keeps the fields that the programs read: found in its BTF by the loader and
//! handed over as one read-only global, which the verifier sees as constants.

/// Value of an offset whose field this kernel does not have.
pub const MISSING: u32 = u32::MAX;

/// Defines the structure of offsets together with the names by which the loader finds each.
macro_rules! offsets {
    ($($(#[$meta:meta])* $field:ident = $structure:literal . $path:literal,)*) => {
        /// Byte offsets of fields in the kernel's structures, or [`MISSING`].
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Offsets {
            $($(#[$meta])* pub $field: u32,)*
            /// Inode number of the initial mount namespace. Not an offset.
            pub init_mount_ns: u32,
            /// What `kernel_read_file` reads where modules or kernels are loaded: bits by the kernel's own numbers.
            /// Not an offset.
            pub module_reads: u32,
            /// The same of `kernel_load_data`.
            pub module_loads: u32,
            /// 1 where the first argument of `inode_setattr` is the mount's idmap, and not the name. Not an offset.
            pub setattr_idmap: u32,
        }
        impl Offsets {
            /// Nothing known: what the object holds until the loader overrides it.
            pub const UNKNOWN: Self = Self { $($field: MISSING,)* init_mount_ns: 0, module_reads: 0, module_loads: 0, setattr_idmap: 0 };
            /// Name here, structure and field (nested fields with dots; `|` between names it had over time).
            pub const FIELDS: &'static [(&'static str, &'static str, &'static str)] =
                &[$((stringify!($field), $structure, $path),)*];
            /// All words in the order in which they lie in memory.
            #[must_use]
            pub const fn words(&self) -> [u32; Self::FIELDS.len() + 4] {
                [$(self.$field,)* self.init_mount_ns, self.module_reads, self.module_loads, self.setattr_idmap]
            }
            /// The offsets in the order of [`Self::FIELDS`], to be filled in.
            pub fn slots(&mut self) -> impl Iterator<Item = &mut u32> {
                [$(&mut self.$field,)*].into_iter()
            }
        }
    };
}

offsets! {
    /// Process id of a task's thread group.
    task_tgid = "task_struct"."tgid",
    /// Thread id.
    task_pid = "task_struct"."pid",
    /// First thread of the group.
    task_group_leader = "task_struct"."group_leader",
    /// Parent that is waited by.
    task_real_parent = "task_struct"."real_parent",
    /// When the task began, nanoseconds since boot.
    task_start_boottime = "task_struct"."start_boottime",
    /// Memory of a task.
    task_mm = "task_struct"."mm",
    /// Root and working directory of a task.
    task_fs = "task_struct"."fs",
    /// State that a thread group shares.
    task_signal = "task_struct"."signal",
    /// Whether a task has ended.
    task_exit_state = "task_struct"."exit_state",
    /// Exit status of a task.
    task_exit_code = "task_struct"."exit_code",
    /// Credentials in force.
    task_cred = "task_struct"."cred",
    /// Control groups of a task.
    task_cgroups = "task_struct"."cgroups",
    /// Process id as its own namespace counts.
    task_thread_pid = "task_struct"."thread_pid",
    /// Depth of a pid's namespace.
    pid_level = "pid"."level",
    /// Numbers of a pid, one for each namespace.
    pid_numbers = "pid"."numbers",
    /// Living threads of the group.
    signal_live = "signal_struct"."live",
    /// Exit status of the group.
    signal_group_exit_code = "signal_struct"."group_exit_code",
    /// Flags of the group.
    signal_flags = "signal_struct"."flags",
    /// Effective user.
    cred_euid = "cred"."euid",
    /// Real user.
    cred_uid = "cred"."uid",
    /// Program that is being started, or its script.
    binprm_file = "linux_binprm"."file",
    /// Name that the caller gave.
    binprm_filename = "linux_binprm"."filename",
    /// Name of the program or interpreter that is looked at.
    binprm_interp = "linux_binprm"."interp",
    /// First byte of a new program's arguments, while they are put in place.
    binprm_p = "linux_binprm"."p",
    /// The file's name, above arguments and environment.
    binprm_exec = "linux_binprm"."exec",
    /// How many arguments a new program gets.
    binprm_argc = "linux_binprm"."argc",
    /// Beginning of the arguments.
    mm_arg_start = "mm_struct"."arg_start",
    /// End of the arguments.
    mm_arg_end = "mm_struct"."arg_end",
    /// File of the program.
    mm_exe_file = "mm_struct"."exe_file",
    /// Working directory.
    fs_pwd = "fs_struct"."pwd",
    /// Dentry of a path.
    path_dentry = "path"."dentry",
    /// Mount of a path.
    path_mnt = "path"."mnt",
    /// Path of an open file.
    file_f_path = "file"."f_path",
    /// Inode of an open file.
    file_f_inode = "file"."f_inode",
    /// Flags of an open file.
    file_f_flags = "file"."f_flags",
    /// What an open file belongs to: of a socket `struct socket`.
    file_private_data = "file"."private_data",
    /// Parent folder.
    dentry_d_parent = "dentry"."d_parent",
    /// Name.
    dentry_d_name = "dentry"."d_name|__d_name",
    /// Inode, null where the name has none.
    dentry_d_inode = "dentry"."d_inode",
    /// File system.
    dentry_d_sb = "dentry"."d_sb",
    /// Text of a name.
    qstr_name = "qstr"."name",
    /// Device of a file system.
    super_block_s_dev = "super_block"."s_dev",
    /// Kind of a file system.
    super_block_s_magic = "super_block"."s_magic",
    /// What the kernel keeps of a file system for itself (`SB_I_*`).
    super_block_s_iflags = "super_block"."s_iflags",
    /// Root of a file system.
    super_block_s_root = "super_block"."s_root",
    /// Mounts of a file system: the head of a list, or the first.
    super_block_s_mounts = "super_block"."s_mounts",
    /// A mount in the list of those of its file system, before 6.18.
    mount_mnt_instance = "mount"."mnt_instance",
    /// The next mount of the same file system, since 6.18.
    mount_mnt_next_for_sb = "mount"."mnt_next_for_sb",
    /// Namespaces of a task.
    task_nsproxy = "task_struct"."nsproxy",
    /// Mount namespace of a task.
    nsproxy_mnt_ns = "nsproxy"."mnt_ns",
    /// Which attributes are changed.
    iattr_ia_valid = "iattr"."ia_valid",
    /// Root of a mount.
    vfsmount_mnt_root = "vfsmount"."mnt_root",
    /// The part of a mount that others see.
    mount_mnt = "mount"."mnt",
    /// Mount on which it is mounted.
    mount_mnt_parent = "mount"."mnt_parent",
    /// Number of a mount, as `/proc/PID/mountinfo` has it.
    mount_mnt_id = "mount"."mnt_id",
    /// Where it is mounted.
    mount_mnt_mountpoint = "mount"."mnt_mountpoint",
    /// Namespace of a mount.
    mount_mnt_ns = "mount"."mnt_ns",
    /// Inode number of a mount namespace.
    mnt_namespace_inum = "mnt_namespace"."ns.inum",
    /// Inode number.
    inode_i_ino = "inode"."i_ino",
    /// Names that an inode has.
    inode_i_nlink = "inode"."i_nlink",
    /// Generation of an inode: differs where its number is used again.
    inode_i_generation = "inode"."i_generation",
    /// Type and permissions.
    inode_i_mode = "inode"."i_mode",
    /// Length.
    inode_i_size = "inode"."i_size",
    /// Device that a special file stands for.
    inode_i_rdev = "inode"."i_rdev",
    /// Default cgroup of a set.
    css_set_dfl_cgrp = "css_set"."dfl_cgrp",
    /// Node of a cgroup in its file system.
    cgroup_kn = "cgroup"."kn",
    /// The cgroup's own state, within it.
    cgroup_self = "cgroup"."self",
    /// State of the cgroup above.
    cgroup_self_parent = "cgroup"."self.parent",
    /// Id of a node.
    kernfs_node_id = "kernfs_node"."id",
    /// Its name.
    kernfs_node_name = "kernfs_node"."name",
    /// Type of a socket.
    socket_type = "socket"."type",
    /// Protocol side of a socket.
    socket_sk = "socket"."sk",
    /// Family.
    sock_family = "sock"."__sk_common.skc_family",
    /// Peer's IPv4 address.
    sock_daddr = "sock"."__sk_common.skc_daddr",
    /// Local IPv4 address.
    sock_rcv_saddr = "sock"."__sk_common.skc_rcv_saddr",
    /// Peer's port, network byte order.
    sock_dport = "sock"."__sk_common.skc_dport",
    /// Local port, host byte order.
    sock_num = "sock"."__sk_common.skc_num",
    /// Peer's IPv6 address.
    sock_v6_daddr = "sock"."__sk_common.skc_v6_daddr",
    /// Local IPv6 address.
    sock_v6_rcv_saddr = "sock"."__sk_common.skc_v6_rcv_saddr",
    /// Protocol.
    sock_protocol = "sock"."sk_protocol",
    /// Type of the protocol side.
    sock_type = "sock"."sk_type",
    /// Address to which a Unix socket is bound.
    unix_sock_addr = "unix_sock"."addr",
    /// File to which a Unix socket is bound.
    unix_sock_path = "unix_sock"."path",
    /// Peer of a Unix socket.
    unix_sock_peer = "unix_sock"."peer",
    /// Length of a Unix address.
    unix_address_len = "unix_address"."len",
    /// Text of a Unix address.
    unix_address_name = "unix_address"."name",
    /// Local address of a vsock.
    vsock_local_addr = "vsock_sock"."local_addr",
    /// Peer of a vsock.
    vsock_remote_addr = "vsock_sock"."remote_addr",
    /// Address given to a send.
    msghdr_msg_name = "msghdr"."msg_name",
    /// Length of the address given to a send.
    msghdr_msg_namelen = "msghdr"."msg_namelen",
}

impl Default for Offsets {
    fn default() -> Self {
        Self::UNKNOWN
    }
}
