//! Containers, told by the cgroup's path.

/// The container that a cgroup's path names: the last run of 64 hexadecimal digits in it, which is how every
/// engine (docker, containerd, podman, CRI-O) ends the name of a container's cgroup.
#[must_use]
pub fn container_of(cgroup: &[u8]) -> Option<&str> {
    const ID_BYTES: usize = 64;
    let text = std::str::from_utf8(cgroup).ok()?;
    text.rsplit(|letter: char| !letter.is_ascii_hexdigit()).find(|run| run.len() == ID_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_engines() {
        let id = "0123456789abcdef".repeat(4);
        for path in [
            format!("/system.slice/docker-{id}.scope"),
            format!("/docker/{id}"),
            format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope"),
            format!("/machine.slice/libpod-{id}.scope/container"),
        ] {
            assert_eq!(container_of(path.as_bytes()), Some(id.as_str()), "{path}");
        }
        assert_eq!(container_of(b"/user.slice/user-1000.slice"), None);
        assert_eq!(container_of(b"/\xff"), None);
    }
}
