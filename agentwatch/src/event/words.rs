//! The words of events that come from a closed list.

use serde::{Deserialize, Serialize};

/// How a process came to its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// Started by `agentwatch exec`.
    Launched,
    /// A pattern, cgroup, unit or user matched.
    Matched,
    /// Ran already when the daemon started.
    Adopted,
    /// Runs what a session left behind.
    Caused,
}

/// Defines an enum whose variants have a name each, so that a name is written in one place.
macro_rules! named {
    ($(#[$meta:meta])* $type:ident { $($(#[$variant_meta:meta])* $variant:ident = $name:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $type {
            $($(#[$variant_meta])* #[serde(rename = $name)] $variant,)+
        }

        impl $type {
            /// All of them, in the order of the contract.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name as events and commands spell it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// The one that has this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

named! {
    /// Operations of the contract.
    #[expect(missing_docs, reason = "the contract's own words")]
    Op {
        Exec = "exec",
        Run = "run",
        Read = "read",
        Write = "write",
        Delete = "delete",
        Connect = "connect",
        Listen = "listen",
    }
}

named! {
    /// What was decided.
    #[expect(missing_docs, reason = "the contract's own words")]
    #[derive(Default)]
    Verdict {
        #[default]
        Allowed = "allowed",
        Logged = "logged",
        WouldDeny = "would-deny",
        Held = "held",
        Denied = "denied",
        Killed = "killed",
    }
}

named! {
    /// How something done relates to the intents in force.
    Alignment {
        /// Inside one of them.
        Aligned = "aligned",
        /// There are some, and none covers it.
        Outside = "outside",
        /// There is none.
        Undeclared = "undeclared",
        /// One that is over would have covered it.
        Expired = "expired",
    }
}

named! {
    /// How a file was used that a session left behind.
    UsedBy {
        /// Started, or a script's interpreter was.
        Exec = "exec",
        /// Read by an interpreter of such files.
        Read = "read",
        /// Mapped as code.
        Load = "load",
        /// No file, but a delegate: it was asked by a Unix socket.
        Asked = "asked",
        /// A table of cron or a unit of systemd, which these ran it by.
        Job = "job",
    }
}

named! {
    /// How it is known which tool call something belongs to.
    CallBy {
        /// The process was started by the call: its command line holds what the tool was told, or an ancestor's does.
        Process = "process",
        /// The harness's own process used the file that the tool was told while the call was on its way.
        Target = "target",
        /// The harness started the process while no other call was on its way.
        Only = "only",
        /// It was done in the time that a span tells, and is of no other call: the least sure.
        Time = "time",
    }
}

named! {
    /// Whether what was done is what it should be.
    Check {
        /// It is.
        Passed = "passed",
        /// It is not.
        Failed = "failed",
    }
}

named! {
    /// What happened.
    #[expect(missing_docs, reason = "each name says what happened")]
    Kind {
        ProcessFork = "process.fork",
        ProcessExec = "process.exec",
        ProcessExit = "process.exit",
        FileOpen = "file.open",
        FileCreate = "file.create",
        FileDelete = "file.delete",
        FileRename = "file.rename",
        FileLink = "file.link",
        FileSymlink = "file.symlink",
        FileTruncate = "file.truncate",
        FileMode = "file.mode",
        FileOwner = "file.owner",
        FileXattr = "file.xattr",
        FileTimes = "file.times",
        FileFlags = "file.flags",
        FileMkdir = "file.mkdir",
        FileRmdir = "file.rmdir",
        FileMap = "file.map",
        FileReceive = "file.receive",
        Mount = "mount",
        Unmount = "unmount",
        NetConnect = "net.connect",
        NetSend = "net.send",
        NetBind = "net.bind",
        NetListen = "net.listen",
        NetAccept = "net.accept",
        NetReceive = "net.receive",
        GuardPtrace = "guard.ptrace",
        GuardSignal = "guard.signal",
        GuardNamespace = "guard.namespace",
        GuardModule = "guard.module",
        GuardBpf = "guard.bpf",
        GuardRawSocket = "guard.raw-socket",
        GuardDelegate = "guard.delegate",
        GuardAgentwatch = "guard.agentwatch",
        SessionStart = "session.start",
        SessionEnd = "session.end",
        DaemonStart = "daemon.start",
        DaemonStop = "daemon.stop",
        PolicyApplied = "policy.applied",
        PolicyRefused = "policy.refused",
        IntentDeclared = "intent.declared",
        IntentRefused = "intent.refused",
        IntentClosed = "intent.closed",
        IntentChecked = "intent.checked",
        PromptSubmitted = "prompt.submitted",
        PromptEnded = "prompt.ended",
        ToolStarted = "tool.started",
        ToolEnded = "tool.ended",
        ToolReported = "tool.reported",
        ToolRefused = "tool.refused",
        ContextRetrieved = "context.retrieved",
        SloSpike = "slo.spike",
        SelfTest = "selftest",
        LogRecovered = "log.recovered",
        LogRemoved = "log.removed",
        Loss = "loss",
    }
}
