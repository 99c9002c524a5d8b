//! Names in mounted file systems, and what is known of the files behind them.

use core::marker::PhantomData;

use agentwatch_common::{maps::FileKey, record::path_flag};

use crate::{
    kernel::{Access, Address, Loaded, Probed, offset, pointer, read_field, two_pointers},
    session::Task,
};

/// A name in a mounted file system (`struct path`).
#[derive(Clone, Copy)]
pub struct Place<A = Probed> {
    /// The mount (`struct vfsmount`), or null where only the name is known.
    pub mnt: Address,
    /// The name (`struct dentry`).
    pub dentry: Address,
    /// How both are read.
    access: PhantomData<A>,
}

impl Place {
    /// A name, and its mount or null.
    #[inline(always)]
    pub fn new(mnt: Address, dentry: Address) -> Self {
        Self { mnt, dentry, access: PhantomData }
    }

    /// Reads a `struct path`.
    #[inline(always)]
    pub fn read(path: Address) -> Self {
        let [mnt, dentry] = two_pointers::<0>(path, offset!(path_mnt), offset!(path_dentry));
        Self::new(mnt, dentry)
    }
}

impl Place<Loaded> {
    /// Reads the `struct path` of a `struct file` that the verifier knows.
    #[inline(always)]
    pub fn of_file(file: Task) -> Self {
        let path = file.wrapping_add(offset!(file_f_path));
        let (mnt, dentry) = (offset!(path_mnt), offset!(path_dentry));
        Self { mnt: Loaded::pointer(path, mnt), dentry: Loaded::pointer(path, dentry), access: PhantomData }
    }
}

impl Place {
    /// Where the program of a process is.
    #[inline(always)]
    pub fn of_program(task: Task) -> Self {
        let exe = pointer(pointer(task, offset!(task_mm)), offset!(mm_exe_file));
        Self::read(exe.wrapping_add(offset!(file_f_path)))
    }
}

impl<A: Access> Place<A> {
    /// The name without its mount.
    #[inline(always)]
    pub fn within(self) -> Self {
        Self { mnt: core::ptr::null(), ..self }
    }

    /// A field of the file system.
    #[inline(always)]
    fn file_system<T: Copy>(self, offset: usize) -> T {
        A::field(A::pointer(self.dentry, offset!(dentry_d_sb)), offset)
    }

    /// A field of the file behind the name; 0 where there is none.
    #[inline(always)]
    fn inode<T: Copy + Default>(self, offset: usize) -> T {
        let inode = A::pointer(self.dentry, offset!(dentry_d_inode));
        // The verifier of current kernels asks for it.
        if inode.is_null() { T::default() } else { A::field(inode, offset) }
    }

    /// Kind of the file system (`s_magic`).
    #[inline(always)]
    pub fn magic(self) -> u64 {
        self.file_system(offset!(super_block_s_magic))
    }

    /// Whether the mount is the kernel's own, which nobody can reach: that of pipes, sockets, files in memory.
    #[inline(always)]
    pub fn is_internal(self) -> bool {
        /// `MNT_NS_INTERNAL`, which is `ERR_PTR(-EINVAL)`.
        const INTERNAL: isize = -22;
        let mount = self.mnt.wrapping_sub(offset!(mount_mnt));
        pointer(mount, offset!(mount_mnt_ns)) as isize == INTERNAL
    }

    /// Whether the name is that of a folder.
    #[inline(always)]
    pub fn is_folder(self) -> bool {
        const S_IFMT: u16 = 0o170_000;
        const S_IFDIR: u16 = 0o040_000;
        self.inode::<u16>(offset!(inode_i_mode)) & S_IFMT == S_IFDIR
    }

    /// Whether the file has more names than this one. Folders have none, whatever they count.
    #[inline(always)]
    pub fn has_other_names(self) -> bool {
        self.inode::<u32>(offset!(inode_i_nlink)) > 1 && !self.is_folder()
    }

    /// The file system, as the kernel encodes it.
    #[inline(always)]
    pub fn dev(self) -> u32 {
        self.file_system(offset!(super_block_s_dev))
    }

    /// Id of the mount; 0 where that is not known.
    #[inline(always)]
    pub fn mount_id(self) -> u32 {
        if self.mnt.is_null() {
            return 0;
        }
        read_field(self.mnt.wrapping_sub(offset!(mount_mnt)), offset!(mount_mnt_id))
    }

    /// Whether the file has content: what has none loses nothing when it is truncated.
    #[inline(always)]
    pub fn has_content(self) -> bool {
        self.inode::<u64>(offset!(inode_i_size)) != 0
    }

    /// Whether the name is that of a file that somebody may run or read as a program: a regular one, of a file system that
    /// keeps what is written (`/proc`, `/sys` and their like do not).
    #[inline(always)]
    pub fn keeps_programs(self) -> bool {
        const S_IFMT: u16 = 0o170_000;
        const S_IFREG: u16 = 0o100_000;
        /// `SB_I_NOEXEC`
        const NO_PROGRAMS: usize = 2;
        self.inode::<u16>(offset!(inode_i_mode)) & S_IFMT == S_IFREG
            && self.file_system::<usize>(offset!(super_block_s_iflags)) & NO_PROGRAMS == 0
    }

    /// The file behind the name.
    #[inline(always)]
    pub fn key(self) -> FileKey {
        FileKey { ino: self.ino(), dev: self.dev(), pad: 0 }
    }

    /// Generation of the file behind the name.
    #[inline(always)]
    pub fn generation(self) -> u32 {
        self.inode(offset!(inode_i_generation))
    }

    /// Inode number of the name, or 0 where it has none.
    #[inline(always)]
    pub fn ino(self) -> u64 {
        self.inode(offset!(inode_i_ino))
    }

    /// Whether the file behind the name has none any more: the flag that says so.
    #[inline(always)]
    pub fn deleted(self) -> u64 {
        let inode = A::pointer(self.dentry, offset!(dentry_d_inode));
        if inode.is_null() || A::field::<u32>(inode, offset!(inode_i_nlink)) != 0 {
            return 0;
        }
        u64::from(path_flag::DELETED)
    }
}
