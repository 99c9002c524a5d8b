//! Sessions by user.

use agentwatch_common::{kind::Attribution, maps::control};
use aya_ebpf::{macros::lsm, programs::LsmContext};

use crate::{
    kernel::{Address, field, offset, read_field},
    maps::USERS,
    process::announce,
    session::{self, Beginning, Member, Task, control_word, current_task, process_start},
};

/// The agent to which the user of a task belongs, where users are matched at all.
#[inline(always)]
pub fn agent_of(task: Task) -> Option<u32> {
    if control_word(control::MATCH_USERS) == 0 {
        return None;
    }
    // SAFETY: a typed chain (see `field!`).
    let uid = unsafe {
        let cred = field!(task, task_cred, Task);
        field!(cred, cred_uid, u32)
    };
    // SAFETY: a copy of plain data.
    unsafe { USERS.get(uid) }.copied()
}

/// `security/security.c`, `security_task_fix_setuid()`, since 2.6.29:
/// `int task_fix_setuid(struct cred *new, const struct cred *old, int flags)`.
///
/// A process that becomes a user that matches (a login, `su`, a service) is a session from here on.
#[lsm(hook = "task_fix_setuid")]
pub fn user_change(ctx: LsmContext) -> i32 {
    let before = Member::current();
    // What only uses what a session left behind becomes a session of its own as an outsider does. Hidden from the compiler,
    // which looks at the flags of nobody first, and only then whether there is somebody: the verifier refuses that.
    let is_inside = before.as_ref().is_some_and(|member| !core::hint::black_box(member.is_caused()));
    if control_word(control::MATCH_USERS) == 0 || is_inside {
        return 0;
    }
    let new: Address = ctx.arg(0);
    let uid: u32 = read_field(new, offset!(cred_uid));
    // SAFETY: a copy of plain data.
    let Some(agent) = unsafe { USERS.get(uid) }.copied() else { return 0 };
    let task = current_task();
    // SAFETY: a typed read of the current task (see `field!`).
    let pid = unsafe { field!(task, task_tgid, u32) };
    let attribution = Attribution::MatchedUser;
    let parent = before.map_or(0, |member| member.session);
    let beginning = Beginning { outer: 0, parent, matched: agent + 1, attribution, told_by_exec: 0 };
    if let Some(session) = session::begin(pid, process_start(task), &beginning) {
        let agent = session::agent_number(agent);
        let found = agentwatch_common::maps::CgroupEntry { session, agent, pad: 0 };
        announce(task, pid, session, &found, 0);
    }
    0
}
