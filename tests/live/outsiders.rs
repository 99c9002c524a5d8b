//! Processes outside any session, other daemons among them: they make no event.

use anyhow::{Context as _, Result, ensure};
use tests::compare::all_attributed;
use tests::daemon::Shared;
use tests::session::act_outside;

#[test]
fn what_others_do_is_not_in_the_log() -> Result<()> {
    Shared::with(|daemon| {
        let acts: [&[&str]; 16] = [
            &["open"],
            &["rename"],
            &["link"],
            &["truncate"],
            &["chmod"],
            &["xattr"],
            &["times"],
            &["mount-tmpfs"],
            &["fork-exec", "3"],
            &["fork-storm", "50"],
            &["double-fork"],
            &["threads", "4"],
            &["tcp4", "--port", "47201"],
            &["udp-send", "--port", "47202"],
            &["unix-dgram"],
            &["io-uring", "--port", "47203"],
        ];
        for args in acts {
            act_outside(args)?;
        }
        // All that was done before has been told when this session's end is: each event must be its own.
        let sentinel = daemon.sentinel()?;
        ensure!(sentinel.status.success(), "the sentinel ended with {}", sentinel.status);
        all_attributed(&sentinel)
    })
}

/// Case D06.
#[test]
fn who_gets_the_pid_of_an_ended_session_is_an_outsider() -> Result<()> {
    Shared::with(|daemon| {
        let run = daemon.act(&["pid-reuse", "1"])?;
        let pid = run.truth.number("pid")?.to_string();
        act_outside(&["pid-take", &pid])?;
        all_attributed(&daemon.sentinel()?)
    })
}

#[test]
fn a_session_amid_others_has_only_its_own() -> Result<()> {
    Shared::with(|daemon| {
        let noise = std::thread::spawn(|| -> Result<()> {
            (0..5).try_for_each(|_| act_outside(&["fork-storm", "30"]).map(drop))
        });
        let run = daemon.act(&["fork-storm", "100"])?;
        let noise = noise.join().map_err(|_| anyhow::anyhow!("the noise panicked"))?;
        noise?;
        tests::compare::same_processes(&run)?;
        tests::compare::same_acts(&run)?;
        all_attributed(&daemon.sentinel()?)
    })
}

#[test]
fn a_second_daemon_is_refused_and_the_first_goes_on() -> Result<()> {
    Shared::with(|daemon| {
        let output = daemon.place().run().output().context("cannot start agentwatch")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1), "it ended with {}: {said}", output.status);
        ensure!(said.contains(&daemon.pid().to_string()), "it does not name the first one's process: {said}");
        ensure!(daemon.sentinel()?.status.success(), "the first daemon does not answer");
        Ok(())
    })
}
