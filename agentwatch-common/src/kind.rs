//! What a record tells of: decoded from integers, with the unknown kept.

/// Defines a closed list of names for the values of an integer, with `Unknown` for all others.
macro_rules! numbered {
    ($(#[$meta:meta])* $name:ident: $int:ty { $($(#[$vmeta:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vmeta])* $variant,)* /// A value that this version does not know.
            Unknown($int) }
        impl $name {
            /// Every value with a name.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// The integer that stands for this in a record.
            #[inline(always)]
            pub const fn raw(self) -> $int { match self { $(Self::$variant => $value,)* Self::Unknown(n) => n } }
            /// What the integer of a record stands for.
            #[inline(always)]
            pub const fn from_raw(raw: $int) -> Self { match raw { $($value => Self::$variant,)* n => Self::Unknown(n) } }
        }
    };
}

pub(crate) use numbered;

numbered! {
    /// What happened: decides the fixed part that follows the header of a record.
    RecordKind: u16 {
        /// A process made another: [`crate::record::ForkBody`]. The header names the maker.
        Fork = 1,
        /// A process started a program: [`crate::record::ExecBody`].
        Exec = 2,
        /// More arguments of the exec before: [`crate::record::ArgsBody`].
        ExecArgs = 3,
        /// The last thread of a process ended: [`crate::record::ExitBody`].
        Exit = 4,
        /// A process changed its working directory: [`crate::record::FileBody`] with the new one.
        Cwd = 5,
        /// A program was not started, by a rule: [`crate::record::FileBody`].
        ExecRefused = 7,
        /// A process was not made, for want of room in the table of processes: [`crate::record::ForkBody`], all zero.
        ForkRefused = 8,
        /// A process joined a session without an exec (cgroup, user): [`crate::record::JoinBody`].
        Join = 6,
        /// Opened for reading, writing or both: [`crate::record::FileBody`].
        FileOpen = 16,
        /// A regular file or a special one was created.
        FileCreate = 17,
        /// A name was removed.
        FileDelete = 18,
        /// Renamed, perhaps over another or in exchange with it.
        FileRename = 19,
        /// A hard link was made.
        FileLink = 20,
        /// A symbolic link was made; the second text is its target as given.
        FileSymlink = 21,
        /// The length was set.
        FileTruncate = 22,
        /// The mode was changed.
        FileMode = 23,
        /// The owner was changed.
        FileOwner = 24,
        /// An extended attribute was set or removed; the second text is its name.
        FileXattr = 25,
        /// A folder was created.
        FileMkdir = 26,
        /// A folder was removed.
        FileRmdir = 27,
        /// A file system was mounted; the second text is its source as given.
        Mount = 28,
        /// A file system was unmounted.
        Unmount = 29,
        /// Code of a file was not mapped, by a rule.
        FileMap = 30,
        /// Times were set.
        FileTimes = 31,
        /// Flags such as `immutable` were set.
        FileFlags = 32,
        /// A descriptor of an open file came from another process.
        FileReceive = 33,
        /// Connected, or named a default peer: [`crate::record::NetBody`].
        NetConnect = 48,
        /// Sent to an address without a connection.
        NetSend = 49,
        /// Took a local address.
        NetBind = 50,
        /// Began to listen.
        NetListen = 51,
        /// Accepted a connection.
        NetAccept = 52,
        /// A connected socket came from another process.
        NetReceive = 53,
        /// Something that a guard is about: [`crate::record::GuardBody`].
        Guard = 64,
        /// A process outside every session uses what one left behind, and is a session from here on:
        /// [`crate::record::CauseBody`].
        Cause = 65,
    }
}

numbered! {
    /// What a record on a guard tells of: decides what its detail is.
    GuardAct: u16 {
        /// Looked into another process, or took hold of it; the detail is the mode asked for (`PTRACE_MODE_*`).
        Attach = 1,
        /// Sent a signal; the detail is its number.
        Signal = 2,
        /// Set a limit of another process; the detail is its number (`RLIMIT_*`).
        Limit = 3,
        /// Changed how another process is scheduled.
        Schedule = 4,
        /// Made a user namespace.
        UserNamespace = 5,
        /// Put another root in the place of the mount namespace's.
        PivotRoot = 6,
        /// Changed its own root.
        Chroot = 7,
        /// Loaded a kernel module, or another kernel, from a file or from memory.
        Load = 8,
        /// Called `bpf`; the detail is the command.
        Bpf = 9,
        /// Made a socket for raw packets; the detail is the family, and its type from bit 16 on.
        RawSocket = 10,
        /// Put keys into a terminal, as if somebody had typed them; the detail is the command of `ioctl`.
        Keys = 11,
        /// Set the host's clock.
        Clock = 12,
    }
}

numbered! {
    /// How a process outside every session comes to act for one: it uses a file that it left behind, or is started by a
    /// delegate, or as a job.
    CauseBy: u8 {
        /// Starts it, or is started by it as its interpreter.
        Exec = 1,
        /// Reads it, and is an interpreter of such files.
        Read = 2,
        /// Maps it as code.
        Load = 3,
        /// Is started by a delegate that the session asked.
        Asked = 4,
        /// Is started by cron or systemd, which a line or unit of the session's told to.
        Job = 5,
    }
}

numbered! {
    /// How a process came to its session.
    Attribution: u8 {
        /// Started by `agentwatch exec`.
        Launched = 1,
        /// Program or command line matched at exec.
        MatchedExec = 2,
        /// In a cgroup or unit that matches.
        MatchedCgroup = 3,
        /// Runs as a user that matches.
        MatchedUser = 4,
        /// Ran already when the daemon started.
        Adopted = 5,
        /// Used what another session left behind.
        Caused = 6,
    }
}

numbered! {
    /// Why a record or a process was lost. Each is counted with its session and the record's kind.
    LossReason: u16 {
        /// The ring was full: the daemon did not keep up.
        RingFull = 1,
        /// No scratch buffer was free: too many programs preempted each other on one CPU.
        ScratchBusy = 2,
        /// The table of processes was full: the child is not followed.
        ProcessTableFull = 3,
        /// The table of cgroups was full: the cgroup is not followed.
        CgroupTableFull = 4,
        /// The kernel skipped the program that makes the record, as it does where one was preempted.
        Skipped = 5,
        /// The table of the addresses that sessions were given for names was full: this one is not learned.
        LearnedTableFull = 6,
        /// An answer about a name of rules was cut, too long or broken: what it says besides is not learned.
        AnswerUnread = 7,
        /// The table of the files that sessions wrote was full: who uses this one later is not known.
        WrittenTableFull = 8,
    }
}
