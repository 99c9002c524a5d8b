//! What this kernel can do for agentwatch, as a type: `doctor` and every claim come from it.

use serde::Serialize;

/// How well something works here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As documented.
    Full,
    /// Works, but for what the reason names.
    Degraded,
    /// Does not work.
    Absent,
}

/// One thing that agentwatch does, and how well it works here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ability {
    /// What it is, such as `file.open`.
    pub name: String,
    /// How well it works.
    pub state: State,
    /// Why not fully, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// All that agentwatch does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Abilities(pub Vec<Ability>);

impl Abilities {
    /// Notes that something works.
    pub fn full(&mut self, name: impl Into<String>) {
        self.note(name, State::Full, None);
    }

    /// Notes that something works in part, and why.
    pub fn degraded(&mut self, name: impl Into<String>, reason: impl Into<String>) {
        self.note(name, State::Degraded, Some(reason.into()));
    }

    /// Notes that something does not work, and why.
    pub fn absent(&mut self, name: impl Into<String>, reason: impl Into<String>) {
        self.note(name, State::Absent, Some(reason.into()));
    }

    /// The worse of two notes on the same thing stays.
    fn note(&mut self, name: impl Into<String>, state: State, reason: Option<String>) {
        let name = name.into();
        match self.0.iter_mut().find(|known| known.name == name) {
            Some(known) if known.state == State::Full => {
                known.state = state;
                known.reason = reason;
            }
            Some(_) => {}
            None => self.0.push(Ability { name, state, reason }),
        }
    }

    /// What rules need and does not work here, with the reasons; nothing where rules can be enforced.
    #[must_use]
    pub fn lacking_for_rules(&self) -> Option<String> {
        let needed = |ability: &&Ability| {
            ability.state == State::Absent
                && !ability.name.starts_with("sessions by")
                && ability.name != "vsock"
        };
        let named = |ability: &Ability| match &ability.reason {
            Some(reason) => format!("{} ({reason})", ability.name),
            None => ability.name.clone(),
        };
        let lacking: Vec<String> = self.0.iter().filter(needed).map(named).collect();
        (!lacking.is_empty()).then(|| lacking.join("; "))
    }

    /// True where everything works fully.
    #[must_use]
    pub fn all_full(&self) -> bool {
        self.0.iter().all(|ability| ability.state == State::Full)
    }
}
