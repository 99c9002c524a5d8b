//! Answers to the control API.

use std::sync::Arc;

use super::{Daemon, mark};
use crate::{
    adopt::ProcId,
    attribution::Session,
    control::{
        Launch, Refusal, Request,
        policy::PolicyView,
        resolve,
        state::{AbilityState, AbilityView, DaemonView, LaunchView, LogView, SessionView, TreeView},
    },
    event::time::format_time,
    kernel::State,
    log,
    policy::Mode,
};

impl Daemon {
    /// Answers all requests that wait. Sending fails where the caller is gone, which is no error.
    pub(super) fn answer(&mut self, now: u64) {
        let requests: Vec<Request> = self.inbox.take().collect();
        for request in requests {
            match request {
                Request::Sessions { all, reply } => drop(reply.send(Ok(self.sessions_view(all)))),
                Request::Tree { session, reply } => drop(reply.send(self.tree_view(&session))),
                Request::Status { reply } => drop(reply.send(Ok(self.status_view()))),
                Request::Policy { reply } => drop(reply.send(Ok(self.policy_view()))),
                Request::SelfTest { reply } => self.self_test(reply),
                Request::Apply { apply, reply } => self.apply(apply, reply),
                Request::Declare { body, caller, reply } => {
                    drop(reply.send(self.declare(*body, &caller, now)));
                }
                Request::Intents { all, reply } => drop(reply.send(Ok(self.intents_view(all, now)))),
                Request::Intent { id, reply } => drop(reply.send(self.intent_view(&id, now))),
                Request::CloseIntent { id, caller, reply } => {
                    drop(reply.send(self.close_intent(&id, &caller, now)));
                }
                Request::CheckIntent { id, body, caller, reply } => {
                    drop(reply.send(self.check_intent(&id, body, &caller, now)));
                }
                Request::Tool { body, caller, reply } => {
                    drop(reply.send(self.tool(*body, &caller, now)));
                }
                Request::Unheard { caller, word, why, reply } => {
                    self.tell_unheard(&caller, word, why, now);
                    drop(reply.send(Ok(())));
                }
                Request::Members { reply } => drop(reply.send(Ok(self.members()))),
                Request::Spans { export, caller, reply } => {
                    drop(reply.send(self.spans(*export, &caller, now)));
                }
                Request::Launch { launch, reply } => {
                    let answer = self.launch(&launch, now);
                    drop(reply.send(answer));
                }
                Request::Stop { reply } => {
                    drop(reply.send(Err(Refusal::Unable("send SIGTERM instead".into()))))
                }
            }
        }
    }

    /// What is in force, with what is known of names now, corrected by what the self-test did not prove.
    fn policy_view(&self) -> Box<PolicyView> {
        let mut view = Box::new(self.in_force.clone());
        self.names.describe(&mut view.rules);
        self.self_tests.correct(&mut view);
        view
    }

    fn sessions_view(&self, all: bool) -> Vec<SessionView> {
        self.state
            .sessions
            .all()
            .filter(|one| all || one.living > 0)
            .map(|one| self.session_view(one))
            .collect()
    }

    /// A session with the mode that it is held to: inside another that can be stricter than its own agent's.
    fn session_view(&self, session: &Session) -> SessionView {
        let mut view = session.view();
        if let Some(mode) = self.held_to(session) {
            view.mode = Arc::from(mode.as_str());
        }
        view
    }

    /// The mode by which the kernel judges the processes of a session; nothing where none lives.
    fn held_to(&self, session: &Session) -> Option<Mode> {
        let entry = |pid: u32| {
            let entry = self.maps.processes.get(pid)?;
            (entry.session == session.number).then_some(entry)
        };
        let entry = entry(session.began.root_pid).or_else(|| {
            let mut living = self.state.processes.all_living();
            living.find(|(_, process)| process.session == session.number).and_then(|(pid, _)| entry(pid))
        })?;
        Some(self.modes.get(&entry.agent).copied().unwrap_or(Mode::Observe))
    }

    fn tree_view(&self, wanted: &str) -> Result<TreeView, Refusal> {
        let ids: Vec<Arc<str>> = self.state.sessions.all().map(|one| Arc::clone(&one.id)).collect();
        let id = resolve(&ids, wanted)?;
        let session = self.state.sessions.all().find(|one| one.id == *id);
        let session = session.ok_or_else(|| Refusal::NoSuchSession(wanted.to_owned()))?;
        let time = |boot_ns| format_time(self.state.host.unix_ns(boot_ns));
        let (processes, processes_omitted) = self.state.processes.view(session.number, time);
        Ok(TreeView { session: self.session_view(session), processes, processes_omitted })
    }

    fn status_view(&self) -> DaemonView {
        let abilities = self.abilities.0.iter().map(|ability| AbilityView {
            name: Arc::from(ability.name.as_str()),
            state: match ability.state {
                State::Full => AbilityState::Full,
                State::Degraded => AbilityState::Degraded,
                State::Absent => AbilityState::Absent,
            },
            reason: ability.reason.clone(),
        });
        DaemonView {
            version: Arc::from(env!("CARGO_PKG_VERSION")),
            pid: std::process::id(),
            since: self.since.clone(),
            boot_id: Arc::clone(&self.state.host.boot_id),
            kernel: Arc::clone(&self.kernel_release),
            log: LogView {
                last_seq: self.log.next_seq().checked_sub(1).filter(|seq| *seq > 0),
                segment: last_segment(&self.paths.state),
            },
            losses: self.losses.total + self.pipeline.unkept,
            abilities: abilities
                .chain([self.program_ability()])
                .chain(self.log_ability())
                .chain(self.span_ability())
                .collect(),
        }
    }

    /// Whether the kernel ran the programs whenever it should.
    fn program_ability(&self) -> AbilityView {
        let skipped: Vec<String> =
            self.programs.skipped().map(|(program, count)| format!("`{program}` {count} times")).collect();
        let (state, reason) = if self.programs.count() == 0 {
            let reason = "the kernel does not show them: whether it skipped any is not known";
            (AbilityState::Degraded, Some(reason.to_owned()))
        } else if skipped.is_empty() {
            (AbilityState::Full, None)
        } else {
            let reason = "the kernel skipped programs that were running already";
            (AbilityState::Degraded, Some(format!("{reason}: {}", skipped.join(", "))))
        };
        AbilityView { name: Arc::from("programs never skipped"), state, reason }
    }

    /// The log, where it cannot be written: then nobody should rely on it.
    fn log_ability(&self) -> Option<AbilityView> {
        let reason = self.log.trouble()?;
        let reason = format!("{reason}; events wait in memory, and {} found no room", self.pipeline.unkept);
        Some(AbilityView { name: Arc::from("log"), state: AbilityState::Absent, reason: Some(reason) })
    }

    fn launch(&mut self, launch: &Launch, now: u64) -> Result<LaunchView, Refusal> {
        let Some(agent) = self.state.table.index_of(&launch.agent) else {
            let known =
                self.state.table.agents().iter().map(|agent| Arc::from(agent.name.as_str())).collect();
            return Err(Refusal::UnknownAgent { agent: launch.agent.clone(), known });
        };
        let id = ProcId { pid: launch.pid, start_ticks: launch.start_ticks };
        let mut out = Vec::new();
        let number =
            mark::launch(&mut self.maps, &mut self.state, &mut self.numbers, id, agent, now, &mut out);
        for mut event in out {
            self.log.append(&mut event);
        }
        let session = number.and_then(|number| self.state.sessions.get(number));
        let session = session.ok_or(Refusal::ProcessGone(launch.pid))?;
        Ok(LaunchView { session: Arc::clone(&session.id) })
    }
}

/// Name of the segment that is written to: the last one.
fn last_segment(state: &std::path::Path) -> String {
    let names = std::fs::read_dir(log::folder(state)).into_iter().flatten().flatten();
    names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.ends_with(".jsonl"))
        .max()
        .unwrap_or_default()
}
