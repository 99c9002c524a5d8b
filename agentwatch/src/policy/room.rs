//! Whether a policy has room in the kernel's tables.

use agentwatch_common::rules::{NET_RANGES, NET_ROWS, PREFIXES};

use super::compile::{Views, net::NetRules, texts};
use super::{Code, Diagnostic, Policy};
use crate::agents::AgentTable;
use crate::places::Places;

/// What of a policy has no room in the kernel's tables, so that every daemon refuses it. What depends on the host comes on
/// top there: other names of things, and the addresses of names.
#[must_use]
pub fn lacks_room(policy: &Policy) -> Option<Diagnostic> {
    let problem = fits(policy).err()?;
    let file = policy.sources.first().map_or("policy", |source| &source.name);
    Some(Diagnostic::of_file(Code::NoRoom, file, problem))
}

fn fits(policy: &Policy) -> Result<(), String> {
    AgentTable::new(policy.agent_specs()).map_err(|error| error.to_string())?;
    let views = Views::new(policy).map_err(|error| error.to_string())?;
    texts::compile(policy, &views, &Places::default()).map_err(|error| error.to_string())?;
    let net = NetRules::new(policy, &views).map_err(|error| error.to_string())?;
    let tables = net.tables();
    for (what, used, most) in [
        ("networks", tables.v4.len() + tables.v6.len(), PREFIXES),
        ("lists of ports, of different networks for different groups of agents", tables.rows.len(), NET_ROWS),
        ("ranges of ports", tables.ranges.len(), NET_RANGES),
    ] {
        if used > most as usize {
            return Err(format!(
                "the addresses of the policy come to {used} {what}, and the kernel's table has room for {most}: give \
                 networks the same rules, or name fewer different groups in `agents:`"
            ));
        }
    }
    Ok(())
}
