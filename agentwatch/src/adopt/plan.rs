//! Which running processes become which sessions.

use std::collections::HashMap;

use super::facts::{Index, cgroup_of, is_helper, is_relaunch, parents, program_of};
use super::{ProcId, ProcInfo, ProcSnapshot};
use crate::agents::{AgentTable, Match};
use crate::matcher::AgentIndex;

/// What is to be marked. Empty once all is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// New sessions, each after the one that it is in.
    pub adoptions: Vec<Adoption>,
    /// Processes that belong to a session that already is: forked before their parent was marked.
    pub joins: Vec<Join>,
}

impl Plan {
    /// Whether nothing is left to mark. Cgroups are only counted with processes to mark.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.joins.is_empty() && self.adoptions.iter().all(|adoption| adoption.members.is_empty())
    }
}

/// A session to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// What it begins with. A cgroup that has a session since an earlier plan keeps it: the members join it.
    pub root: Root,
    /// Whose session it is.
    pub agent: AgentIndex,
    /// What it was recognised by, as in a policy: exec `**/claude`.
    pub recognised: String,
    /// Its processes, oldest first, without those in sessions inside it. Empty only for a cgroup whose
    /// processes are all in sessions inside it.
    pub members: Vec<ProcId>,
    /// The session that it is in.
    pub parent: Option<Enclosing>,
}

/// What a session begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// The topmost process that matches by its program, its command line or its user.
    Process(ProcId),
    /// The topmost cgroup that matches.
    Cgroup(Vec<u8>),
}

/// The session that another is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enclosing {
    /// One of the plan's, by its index.
    Adoption(usize),
    /// The one that this process already is in.
    SessionOf(ProcId),
}

/// A process to add to a session that already is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Join {
    /// The process.
    pub process: ProcId,
    /// A process of that session.
    pub session_of: ProcId,
}

/// Which processes of this snapshot become sessions, and which join one.
///
/// `already` gives the agent of the session that a process is in, or `None` (`u32::MAX` for an agent that
/// the table does not have). Once everything in a plan is marked, the plan for the same snapshot is empty.
///
/// - Outside any session, a process begins one when its program or its user matches; of several agents the
///   first in the table is meant. One in a cgroup that matches belongs to that cgroup's session.
/// - What descends from a session's process belongs to the session.
/// - In a session, the program of another agent begins a session of its own, inside it.
/// - So does the session's own agent's program, but for: the first one in a session that began otherwise; a
///   fork or a relaunch by its parent (the same arguments: node that starts the native program); a tool that
///   is carried in the agent's file, started under another name.
#[must_use]
pub fn plan(
    snapshot: &ProcSnapshot,
    table: &AgentTable,
    already: &dyn Fn(ProcId) -> Option<AgentIndex>,
) -> Plan {
    let parents = parents(snapshot);
    let mut planner = Planner {
        snapshot,
        table,
        already,
        parents: &parents,
        places: vec![None; parents.len()],
        cgroups: HashMap::new(),
        plan: Plan::default(),
    };
    for index in 0..parents.len() {
        planner.place(index);
    }
    for adoption in &mut planner.plan.adoptions {
        adoption.members.sort_by_key(|member| (member.start_ticks, member.pid));
    }
    planner.plan
}

/// Where a process belongs.
#[derive(Clone, Copy)]
struct Place {
    session: Option<Session>,
    /// The agent whose program it is.
    program: Option<AgentIndex>,
    /// A process of the session, this one or above, runs the session's agent's program.
    has_run: bool,
}

#[derive(Clone, Copy)]
struct Session {
    agent: AgentIndex,
    at: Enclosing,
}

struct Planner<'a> {
    snapshot: &'a ProcSnapshot,
    table: &'a AgentTable,
    already: &'a dyn Fn(ProcId) -> Option<AgentIndex>,
    parents: &'a [Option<Index>],
    places: Vec<Option<Place>>,
    /// The adoption of each cgroup.
    cgroups: HashMap<&'a [u8], usize>,
    plan: Plan,
}

impl<'a> Planner<'a> {
    /// Places a process and, before it, all that it descends from.
    fn place(&mut self, index: Index) {
        let mut chain = vec![index];
        while let Some(parent) = chain.last().and_then(|&last| self.parent(last))
            && self.placed(parent).is_none()
            // No circle can be longer than that.
            && chain.len() <= self.places.len()
        {
            chain.push(parent);
        }
        while let Some(next) = chain.pop() {
            if self.placed(next).is_some() {
                continue;
            }
            let Some(info) = self.snapshot.processes.get(next) else { continue };
            let above = self.parent(next).and_then(|parent| Some((self.info(parent)?, self.placed(parent)?)));
            let place = self.decide(info, above);
            if let Some(slot) = self.places.get_mut(next) {
                *slot = Some(place);
            }
        }
    }

    fn parent(&self, index: Index) -> Option<Index> {
        self.parents.get(index).copied().flatten()
    }

    fn placed(&self, index: Index) -> Option<Place> {
        self.places.get(index).copied().flatten()
    }

    fn info(&self, index: Index) -> Option<&'a ProcInfo> {
        self.snapshot.processes.get(index)
    }

    fn decide(&mut self, info: &'a ProcInfo, above: Option<(&ProcInfo, Place)>) -> Place {
        let program = program_of(info, self.table);
        if let Some(agent) = (self.already)(info.id) {
            let inherited = above.is_some_and(|(_, place)| {
                place.has_run && place.session.is_some_and(|session| session.agent == agent)
            });
            let session = Some(Session { agent, at: Enclosing::SessionOf(info.id) });
            return Place { session, program, has_run: program == Some(agent) || inherited };
        }
        let enclosing = above.and_then(|(_, place)| place.session);
        match enclosing {
            Some(session) => self.inside(info, program, session, above),
            None => self.outside(info, program),
        }
    }

    /// A process that descends from a session's.
    fn inside(
        &mut self,
        info: &ProcInfo,
        program: Option<AgentIndex>,
        session: Session,
        above: Option<(&ProcInfo, Place)>,
    ) -> Place {
        let has_run = above.is_some_and(|(_, place)| place.has_run);
        if let Some(agent) = program
            && self.is_sub_agent(info, agent, session, above)
        {
            return self.begin(info, agent, Some(session.at));
        }
        self.add(info, session.at);
        let runs = program == Some(session.agent) && !is_helper(info, session.agent, self.table);
        Place { session: Some(session), program, has_run: has_run || runs }
    }

    fn is_sub_agent(
        &self,
        info: &ProcInfo,
        agent: AgentIndex,
        session: Session,
        above: Option<(&ProcInfo, Place)>,
    ) -> bool {
        if agent != session.agent {
            return true;
        }
        let Some((parent, place)) = above else { return false };
        let relaunch = place.program == Some(agent) && is_relaunch(parent, info, agent, self.table);
        place.has_run && !relaunch && !is_helper(info, agent, self.table)
    }

    /// A process that descends from no session's.
    fn outside(&mut self, info: &'a ProcInfo, program: Option<AgentIndex>) -> Place {
        if let Some((agent, path)) = cgroup_of(info, self.table) {
            let at = Enclosing::Adoption(self.cgroup(info, agent, path));
            let session = Session { agent, at };
            return match program.filter(|&program| program != agent) {
                Some(program) => self.begin(info, program, Some(at)),
                None => {
                    self.add(info, at);
                    Place { session: Some(session), program, has_run: program == Some(agent) }
                }
            };
        }
        let user = self.table.of_user(info.uid).filter(|_| !info.exe.is_empty());
        match program.into_iter().chain(user).min() {
            Some(agent) => self.begin(info, agent, None),
            None => Place { session: None, program, has_run: false },
        }
    }

    /// Begins a session with this process.
    fn begin(&mut self, info: &ProcInfo, agent: AgentIndex, parent: Option<Enclosing>) -> Place {
        let arguments = info.arguments.iter().map(Vec::as_slice);
        let program = program_of(info, self.table);
        let recognised = self
            .table
            .why_program(agent, &info.exe, arguments)
            .or_else(|| self.table.why_user(agent, info.uid))
            .map(Match::to_string)
            .unwrap_or_default();
        let at = Enclosing::Adoption(self.plan.adoptions.len());
        let members = vec![info.id];
        self.plan.adoptions.push(Adoption {
            root: Root::Process(info.id),
            agent,
            recognised,
            members,
            parent,
        });
        Place { session: Some(Session { agent, at }), program, has_run: program == Some(agent) }
    }

    /// The adoption of a cgroup.
    fn cgroup(&mut self, info: &ProcInfo, agent: AgentIndex, path: &'a [u8]) -> usize {
        if let Some(&known) = self.cgroups.get(path) {
            return known;
        }
        let recognised = self.table.why_cgroup(agent, &info.cgroup).map(Match::to_string).unwrap_or_default();
        let adoption = self.plan.adoptions.len();
        let root = Root::Cgroup(path.to_vec());
        self.plan.adoptions.push(Adoption { root, agent, recognised, members: Vec::new(), parent: None });
        self.cgroups.insert(path, adoption);
        adoption
    }

    fn add(&mut self, info: &ProcInfo, at: Enclosing) {
        match at {
            Enclosing::SessionOf(of) => self.plan.joins.push(Join { process: info.id, session_of: of }),
            Enclosing::Adoption(index) => {
                if let Some(adoption) = self.plan.adoptions.get_mut(index) {
                    adoption.members.push(info.id);
                }
            }
        }
    }
}
