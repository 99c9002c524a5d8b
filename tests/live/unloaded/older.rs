//! What kernels before 5.17 get, tried on newer ones: the programs with ordinary loops, which only observe.

use anyhow::{Result, ensure};
use tests::compare::{same_acts, same_processes};
use tests::daemon::{Daemon, Place, Shared};

/// Nothing is to be judged.
const POLICY: &str = "version: 1\nagents:\n  test: {owner: tests@example.com}\n";

/// The same with something to be judged.
const JUDGED: &str = "version: 1\nagents:\n  test: {owner: tests@example.com, mode: recommend}\n";

/// Cases E08, E17.
#[test]
fn a_kernel_that_runs_no_loops_observes_and_judges_nothing() -> Result<()> {
    let _machine = Shared::none()?;
    let place = Place::new()?;
    std::fs::write(place.policy(), POLICY)?;
    let mut command = place.run();
    command.env("AGENTWATCH_NO_KERNEL_LOOPS", "1");
    let mut daemon = Daemon::start_by(&place, command)?;
    for act in [&["exec-args", "100000"][..], &["rename"], &["unix-stream"]] {
        let run = daemon.act(act)?;
        same_processes(&run)?;
        same_acts(&run)?;
    }
    // Its programs go on, and who takes them over knows what they are.
    daemon.kill()?;
    std::fs::write(place.policy(), JUDGED)?;
    let output = place.run().output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(6), "{}: {said}", output.status);
    ensure!(said.contains("cannot enforce the policy: rules ("), "{said}");

    std::fs::write(place.policy(), POLICY)?;
    Daemon::start(&place)?.stop()
}
