//! PID 1 of the test guests: makes a sane machine out of a bare kernel, runs one command, tells
//! the host how it ended. Built static; lives in the initramfs.

mod machine;
mod pump;
mod supervise;

#[path = "../job.rs"]
#[allow(dead_code, reason = "the other half is the host's")]
mod job;

use std::fs;
use std::io::Write as _;

use job::{Job, port};
use machine::Ports;

fn main() {
    if let Err(sentence) = machine::early_mounts() {
        machine::last_words(&sentence);
    }
    if let Err(sentence) = guest() {
        machine::last_words(&sentence);
    }
    machine::power_off();
}

/// Everything up to the command's end. What fails here is the machine's fault, not the command's.
fn guest() -> Result<(), String> {
    let bytes = fs::read("/job").map_err(|error| format!("cannot read the job file: {error}"))?;
    let job = Job::decode(&bytes)?;
    machine::load_modules()?;
    let ports = Ports::find()?;
    let mut control = ports.open(port::CONTROL)?;
    let result = work(&job, &ports, &mut control);
    if let Err(sentence) = &result {
        // The host may be gone: then the console has the sentence, from `main`.
        let _ = writeln!(control, "failed {}", sentence.replace('\n', " "));
    }
    result
}

fn work(job: &Job, ports: &Ports, control: &mut fs::File) -> Result<(), String> {
    let (stdout, stderr) = (ports.open(port::STDOUT)?, ports.open(port::STDERR)?);
    let out = if job.wants_out { Some(ports.open(port::OUT)?) } else { None };
    machine::assemble(job)?;
    tell(control, "ready")?;
    let requests =
        control.try_clone().map_err(|error| format!("cannot duplicate the control port: {error}"))?;
    let code = supervise::run(&job.command, stdout, stderr, requests)?;
    if let Some(out) = out {
        tell(control, "sending")?;
        supervise::send_out(out)?;
    }
    tell(control, &format!("exit {code}"))
}

fn tell(control: &mut fs::File, line: &str) -> Result<(), String> {
    writeln!(control, "{line}").map_err(|error| format!("cannot tell the host `{line}`: {error}"))
}
