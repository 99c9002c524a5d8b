//! Proving that what is in force is enforced: at the start, when another policy came into force, every minute, and on
//! request.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
};

use rustix::event::EventfdFlags;

use super::{Daemon, boot_ns, rules, start::StartError};
use crate::{
    control::{
        Reply,
        policy::{PolicyView, Standing},
        selftest::SelfTestView,
    },
    event::{Event, Kind},
    kernel::{Kernel, KernelError, maps::Maps},
    paths::Paths,
    policy::{Guard, Policy},
    selftest::{self, Report, Subject},
};

/// Nanoseconds between two self-tests, where nothing else asks for one.
const PERIOD_NS: u64 = 60_000_000_000;

/// What a self-test is to prove for a policy.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// Whether any agent is judged: without there is no canary.
    judged: bool,
    /// What the enforcement rests on.
    needed: Vec<Subject>,
    /// For each rule what it is about.
    rules: Vec<Vec<Subject>>,
}

impl Needs {
    /// Those of a policy, with the guards that are on for an agent whose rules are enforced.
    #[must_use]
    pub fn of(policy: &Policy, guards: &[Guard]) -> Self {
        let about = |rule: &crate::policy::Rule| {
            let ops = crate::event::Op::ALL.iter().copied().filter(|op| rule.scope.has(*op));
            ops.map(Subject::Op).collect()
        };
        Self {
            judged: policy.agents.iter().any(|agent| agent.spec.mode != crate::policy::Mode::Observe),
            needed: selftest::needed_by(policy, guards),
            rules: policy.rules.iter().map(|rule| about(rule)).collect(),
        }
    }
}

/// A self-test that is under way on a thread of its own.
#[derive(Debug)]
struct Running {
    result: Receiver<Report>,
    /// The policy in force when it began.
    version: u32,
}

/// All that the daemon knows of self-tests.
#[derive(Debug)]
pub struct SelfTests {
    bell: Arc<OwnedFd>,
    needs: Needs,
    running: Option<Running>,
    waiting: Vec<Reply<SelfTestView>>,
    /// The last one, with the version of the policy that it was made under.
    last: Option<(u32, Report)>,
    began_ns: u64,
}

impl SelfTests {
    /// Makes the first one, where any agent is judged, and waits for it.
    ///
    /// # Errors
    /// The process has no descriptors left, or the kernel's table is gone.
    pub fn begin(maps: &Maps, paths: &Paths, needs: Needs, version: u32) -> Result<Self, StartError> {
        let bell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let bell = Arc::new(bell.map_err(io::Error::from)?);
        let mut last = None;
        if needs.judged {
            let report = selftest::perform(&mut maps.processes_again()?, paths);
            tell_operator(&report);
            last = Some((version, report));
        }
        Ok(Self { bell, needs, running: None, waiting: Vec::new(), last, began_ns: boot_ns() })
    }

    /// What is not proved of what the policy in force rests on: its end where that is asked for.
    ///
    /// # Errors
    /// Something is not.
    pub fn strictly(&self) -> Result<(), StartError> {
        let unproved =
            self.last.iter().flat_map(|(_, report)| report.unproved_of(self.needs.needed.iter().copied()));
        let list: Vec<String> = unproved.map(|(subject, why)| format!("{}: {why}", subject.name())).collect();
        if list.is_empty() { Ok(()) } else { Err(StartError::NotProved(list.join(". "))) }
    }

    /// The event of the last one.
    pub fn event(&self, host_event: impl FnOnce(Kind, Option<String>) -> Event) -> Option<Event> {
        let (_, report) = self.last.as_ref()?;
        Some(host_event(Kind::SelfTest, Some(report.sentence())))
    }

    /// The last one; before the first has ended one that proved nothing.
    fn latest(&self) -> Report {
        match &self.last {
            Some((_, report)) => report.clone(),
            None => Report::without_outcomes(Some("the first one has not ended yet".to_owned())),
        }
    }

    /// As the control API gives the last one.
    #[must_use]
    pub fn view(&self) -> SelfTestView {
        if self.needs.judged {
            return self.latest().view();
        }
        let why = "no agent is judged by the policy in force: there is nothing to prove";
        SelfTestView { skipped: Some(why.to_owned()), ..SelfTestView::default() }
    }

    /// Corrects what a policy's rules and guards are said to be: what is not proved is not enforced.
    pub fn correct(&self, view: &mut PolicyView) {
        view.self_test = self.view();
        let report = self.latest();
        let is_claimed = |status: Standing| matches!(status, Standing::Enforced | Standing::Partly);
        for (rule, about) in view.rules.iter_mut().zip(&self.needs.rules) {
            for (subject, why) in report.unproved_of(about.iter().copied()) {
                if is_claimed(rule.status) || rule.status == Standing::NotEnforced {
                    rule.status = Standing::NotEnforced;
                    rule.reasons.push(format!("{}: {why}", subject.name()));
                }
            }
        }
        for guard in view.agents.iter_mut().flat_map(|agent| &mut agent.guards) {
            let named = Guard::ALL.into_iter().find(|one| one.as_str() == guard.guard);
            let about = named.map(selftest::subjects_of).unwrap_or_default();
            if is_claimed(guard.status)
                && let Some((_, why)) = report.unproved_of(about).into_iter().next()
            {
                guard.status = Standing::NotEnforced;
                guard.reason = Some(why);
            }
        }
    }
}

impl AsFd for SelfTests {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl Daemon {
    /// Another policy is in force: what was proved for the one before holds until the next self-test, which comes soon.
    pub(super) fn note_needs(&mut self, needs: Needs) {
        self.self_tests.needs = needs;
    }

    /// Makes a self-test for a caller, who joins one that is under way.
    pub(super) fn self_test(&mut self, reply: Reply<SelfTestView>) {
        if !self.self_tests.needs.judged {
            // Sending fails where the caller is gone, which is no error.
            drop(reply.send(Ok(self.self_tests.view())));
            return;
        }
        self.self_tests.waiting.push(reply);
        self.begin_self_test();
    }

    /// Begins one where one is due.
    pub(super) fn tend_self_tests(&mut self, now: u64) {
        let tests = &self.self_tests;
        let is_new = tests.last.as_ref().is_none_or(|(version, _)| *version != self.in_force.version);
        if tests.needs.judged && (is_new || now.saturating_sub(tests.began_ns) >= PERIOD_NS) {
            self.begin_self_test();
        }
    }

    fn begin_self_test(&mut self) {
        if self.self_tests.running.is_some() {
            return;
        }
        self.self_tests.began_ns = boot_ns();
        let begun = self.maps.processes_again().map_err(io::Error::other).and_then(|mut processes| {
            let (tell, result) = mpsc::channel();
            let (paths, bell) = (self.paths.clone(), Arc::clone(&self.self_tests.bell));
            std::thread::Builder::new().name("self-test".into()).spawn(move || {
                // Nobody hears it where the daemon has ended.
                let _ = tell.send(selftest::perform(&mut processes, &paths));
                let _ = rustix::io::write(&*bell, &1_u64.to_ne_bytes());
            })?;
            Ok(Running { result, version: self.in_force.version })
        });
        match begun {
            Ok(running) => self.self_tests.running = Some(running),
            Err(error) => {
                let trouble = Some(format!("it cannot be made: {error}"));
                self.take_report(self.in_force.version, Report::without_outcomes(trouble));
            }
        }
    }

    /// Takes what came of the one that was under way.
    pub(super) fn take_self_test(&mut self) {
        let _ = rustix::io::read(&*self.self_tests.bell, &mut [0_u8; 8]);
        let Some(running) = &self.self_tests.running else { return };
        let report = match running.result.try_recv() {
            Ok(report) => report,
            Err(mpsc::TryRecvError::Empty) => return,
            Err(mpsc::TryRecvError::Disconnected) => {
                Report::without_outcomes(Some("the thread that made it ended".to_owned()))
            }
        };
        let version = running.version;
        self.self_tests.running = None;
        let all_refused = report.unproved_of(Subject::all()).is_empty();
        if version != self.in_force.version && !all_refused {
            // The policy changed meanwhile, and perhaps had no canary.
            if self.self_tests.needs.judged {
                self.begin_self_test();
                return;
            }
        }
        self.take_report(version, report);
    }

    fn take_report(&mut self, version: u32, report: Report) {
        let news = self.self_tests.last.as_ref().is_none_or(|(_, before)| !before.says_the_same(&report));
        if news {
            tell_operator(&report);
            let mut event = self.state.host_event(Kind::SelfTest, boot_ns(), Some(report.sentence()));
            self.log.append(&mut event);
        }
        self.self_tests.last = Some((version, report));
        for reply in std::mem::take(&mut self.self_tests.waiting) {
            drop(reply.send(Ok(self.self_tests.view())));
        }
    }
}

/// Says on the daemon's own output what is not enforced.
fn tell_operator(report: &Report) {
    let sentence = report.sentence();
    if report.unproved_of(Subject::all()).is_empty() {
        tracing::info!("{sentence}");
    } else {
        tracing::error!("{sentence}");
    }
}

/// A self-test without a daemon, with programs that were attached for it: nothing else is in force.
///
/// # Errors
/// The kernel does not take the rules.
pub fn alone(kernel: &mut Kernel, paths: &Paths) -> Result<Report, StartError> {
    let mut policy = Policy { own: super::own::own(paths, None)?, ..Policy::default() };
    policy.force_canary();
    let compiled = rules::Compiled::new(&policy, &super::surroundings::look(&policy)?)?;
    super::start::name_daemon(&mut kernel.maps)?;
    let mut rule_maps = kernel.maps.rules()?;
    rules::put_in_force(&mut kernel.maps, &mut rule_maps, &compiled, 0)?;
    std::fs::create_dir_all(&paths.state)?;
    let processes = kernel.maps.processes_again();
    processes
        .map(|mut processes| selftest::perform(&mut processes, paths))
        .map_err(|error: KernelError| error.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is said of a policy with a rule and a guard that are claimed, with nothing proved yet.
    fn corrected(judged: bool) -> PolicyView {
        let status = if judged { "enforced" } else { "observed" };
        let mut view: PolicyView = serde_json::from_value(json!({
            "version": 2, "hash": "h", "since": "", "origin": "applied", "files": [],
            "self_test": {"results": []},
            "agents": [{"name": "a", "mode": "enforce", "guards": [{"guard": "mount", "status": status}]}],
            "rules": [{"name": "r", "says": "deny", "file": "f", "line": 1, "status": status, "reasons": []}],
        }))
        .unwrap();
        let tests = SelfTests {
            bell: Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC).unwrap()),
            needs: Needs {
                judged,
                needed: Vec::new(),
                rules: vec![vec![Subject::Op(crate::event::Op::Read)]],
            },
            running: None,
            waiting: Vec::new(),
            last: None,
            began_ns: 0,
        };
        tests.correct(&mut view);
        view
    }

    #[test]
    fn before_the_first_one_has_ended_nothing_is_claimed() {
        let view = corrected(true);
        assert!(
            view.rules.iter().all(|rule| rule.status == Standing::NotEnforced && rule.reasons.len() == 1)
        );
        let guards = || view.agents.iter().flat_map(|agent| &agent.guards);
        assert!(guards().all(|guard| guard.status == Standing::NotEnforced && guard.reason.is_some()));
        assert!(view.self_test.skipped.is_none() && view.self_test.results.iter().all(|one| !one.proved));
        let observed = corrected(false);
        assert!(
            observed.rules.iter().all(|rule| rule.status == Standing::Observed && rule.reasons.is_empty())
        );
        assert!(observed.self_test.skipped.is_some());
    }
}
