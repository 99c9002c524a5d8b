//! Agents for which the same rules and defaults hold share what is compiled for them.

use std::collections::HashMap;

use crate::event::Op;
use crate::matcher::PathGlob;
use crate::policy::{Action, Agent, Guard, Mode, Policy, Rule};

/// Views of one policy: the tables have a row for each in each set of patterns.
pub const VIEWS_MAX: usize = 1024;

/// Why agents cannot be told apart in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ViewsError {
    /// Too many combinations.
    #[error(
        "the rules and defaults tell more than {VIEWS_MAX} groups of agents apart: name fewer different groups in \
         `agents:`"
    )]
    TooMany,
}

/// All views. View 0 is that of agents that the policy does not declare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Views {
    of_agents: Vec<u16>,
    /// For each view one of its agents; none in view 0.
    examples: Vec<Option<usize>>,
    /// That of the self-test, where it is one of the agents.
    canary: Option<usize>,
}

/// What tells agents apart: rules that are not for all, defaults, where they may write if they only plan, and what is protected from
/// them, where anything is.
type Traits<'p> = (Vec<usize>, Vec<(Op, Action)>, Option<&'p [Vec<PathGlob>]>, Option<Vec<String>>);

impl Views {
    /// Groups the agents of a policy.
    ///
    /// # Errors
    /// When there are too many groups.
    pub fn new(policy: &Policy) -> Result<Self, ViewsError> {
        let mut known: HashMap<Traits<'_>, u16> = HashMap::from([((Vec::new(), Vec::new(), None, None), 0)]);
        let mut views = Self { of_agents: Vec::new(), examples: vec![None], canary: None };
        let chosen: Vec<(usize, &Vec<usize>)> = (policy.rules.iter().enumerate())
            .filter_map(|(index, rule)| Some((index, rule.agents.as_ref()?)))
            .collect();
        for (index, agent) in policy.agents.iter().enumerate() {
            let rules =
                chosen.iter().filter(|(_, agents)| agents.contains(&index)).map(|(rule, _)| *rule).collect();
            let mut defaults: Vec<_> = agent.defaults.iter().map(|&(op, action, _)| (op, action)).collect();
            defaults.sort_unstable();
            let plan = (agent.spec.mode == Mode::Plan).then_some(agent.scratch.as_slice());
            let traits = (rules, defaults, plan, protection(agent));
            let next = views.examples.len();
            let view = match known.get(&traits) {
                Some(&view) => view,
                None if next >= VIEWS_MAX => return Err(ViewsError::TooMany),
                None => {
                    let view = u16::try_from(next).map_err(|_| ViewsError::TooMany)?;
                    known.insert(traits, view);
                    views.examples.push(Some(index));
                    if agent.is_canary() {
                        views.canary = Some(next);
                    }
                    view
                }
            };
            views.of_agents.push(view);
        }
        Ok(views)
    }

    /// How many there are, view 0 included.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there is always view 0")]
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// The view of an agent of the policy by its index; of any other agent without.
    #[must_use]
    pub fn of_agent(&self, agent: Option<usize>) -> u16 {
        agent.and_then(|index| self.of_agents.get(index)).copied().unwrap_or(0)
    }

    /// Whether a rule is for the agents of a view.
    #[must_use]
    pub fn has_rule(&self, view: usize, rule: &Rule) -> bool {
        match (&rule.agents, self.examples.get(view)) {
            (None, _) => self.canary != Some(view),
            (Some(agents), Some(Some(agent))) => agents.contains(agent),
            (Some(_), _) => false,
        }
    }

    /// An agent of a view: of view 0 there may be none.
    #[must_use]
    pub fn example<'p>(&self, policy: &'p Policy, view: u16) -> Option<&'p Agent> {
        policy.agents.get((*self.examples.get(usize::from(view))?)?)
    }

    /// What is decided for the agents of a view where no rule matches, for operations whose default the mode
    /// `plan` makes stricter in every case: connections.
    #[must_use]
    pub fn default_for(&self, policy: &Policy, view: usize, op: Op) -> Option<Action> {
        let agent = policy.agents.get((*self.examples.get(view)?)?)?;
        let default = agent.default_for(op);
        if agent.spec.mode == Mode::Plan && op == Op::Connect {
            return Some(default.map_or(Action::Deny, |action| action.max(Action::Deny)));
        }
        default
    }
}

/// What tells agents apart in what is protected from them: `None` where nothing is, else the delegates, if their guard
/// is on.
fn protection(agent: &Agent) -> Option<Vec<String>> {
    if agent.spec.mode == Mode::Observe {
        return None;
    }
    if !agent.guards(Guard::Delegate) {
        return Some(Vec::new());
    }
    // Of those that agentwatch knows itself the empty pattern tells.
    let own = agent.delegates.iter().map(|pattern| pattern.text().to_owned());
    Some(std::iter::once(String::new()).chain(own).collect())
}
