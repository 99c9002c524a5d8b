use super::*;
use crate::policy::{Code, Source};

mod known;
mod policy;

fn users() -> Users {
    Users::parse("root:x:0:0::/root:/bin/sh\nci-bot:x:1001:1001::/:/bin/false\nbroken\nci-bot:x:9:9::/:\n")
}

fn source(text: &str) -> Source {
    Source { name: "policy.yaml".into(), text: text.to_owned() }
}
