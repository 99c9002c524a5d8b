//! Address patterns: what they cover, and what is refused.

use super::*;

fn covers(pattern: &str, target: &str) -> bool {
    let address = Address::parse(target).unwrap().canonical(crate::event::Op::Connect);
    AddressPattern::parse(pattern).unwrap().matches(&address)
}

#[test]
fn every_form_of_the_contract() {
    for (pattern, inside, outside) in [
        ("10.20.0.0/16:5432", "10.20.3.4:5432", "10.21.0.1:5432"),
        ("10.20.0.0/16:5432", "[::ffff:10.20.3.4]:5432", "10.20.3.4:5433"),
        ("[::ffff:10.20.0.0]/112:5432", "10.20.3.4:5432", "10.21.0.1:5432"),
        ("[2001:db8::]/32:443", "[2001:db8:1::1]:443", "[2001:db9::1]:443"),
        ("[2001:db8::1]:443", "[2001:db8::1]:443", "[2001:db8::2]:443"),
        ("*:22", "[::1]:22", "192.0.2.1:23"),
        ("*:22", "host.example.com:22", "unix:@22"),
        ("db.prod.example.com:5432", "DB.prod.example.com.:5432", "xdb.prod.example.com:5432"),
        ("*.prod.example.com:*", "a.b.prod.example.com:1", "prod.example.com:1"),
        ("*.prod.example.com:*", "a.prod.example.com:65535", "a-prod.example.com:1"),
        ("*:80,443,8000-8099", "192.0.2.1:8050", "192.0.2.1:8100"),
        ("/run/postgresql/.s.PGSQL.5432", "/run/postgresql/.s.PGSQL.5432", "/run/postgresql/.s.PGSQL.5433"),
        ("/run/*.sock", "/run/a.sock", "/run/a/b.sock"),
        ("**/docker.sock", "/var/run/docker.sock", "unix:@docker.sock"),
        ("unix:@name", "unix:@name", "unix:@name2"),
        ("unix:@/tmp/dbus-*", "unix:@/tmp/dbus-x/y", "/tmp/dbus-x"),
        ("unix:/run/x", "/run/x", "/run/y"),
        ("vsock:2:1024", "vsock:2:1024", "vsock:3:1024"),
        ("vsock:*:1-9,70000", "vsock:9:70000", "vsock:9:10"),
        ("udp:*:53", "udp:192.0.2.1:53", "192.0.2.1:53"),
        ("tcp:10.0.0.0/8:*", "10.1.1.1:1", "udp:10.1.1.1:1"),
        ("udp:[2001:db8::]/32:*", "udp:[2001:db8::1]:1", "[2001:db8::1]:1"),
        ("127.0.0.0/8:5432", "0.0.0.0:5432", "0.0.0.0:5433"),
        ("[::1]:5432", "[::]:5432", "127.0.0.1:5432"),
        ("127.0.0.1:5432", "[::ffff:0.0.0.0]:5432", "[::]:5432"),
        ("0.0.0.0/0:*", "192.0.2.1:1", "[2001:db8::1]:1"),
        ("[::]/0:*", "[2001:db8::1]:1", "[::ffff:192.0.2.1]:1"),
    ] {
        assert!(covers(pattern, inside), "{pattern} covers {inside}");
        assert!(!covers(pattern, outside), "{pattern} does not cover {outside}");
    }
}

#[test]
fn a_pattern_shows_itself_as_it_was_written() {
    let text = "tcp:10.20.0.0/16:443,80";
    assert_eq!(AddressPattern::parse(text).unwrap().text(), text);
}

#[test]
fn what_cannot_be_read_says_where_and_what_to_do() {
    for (pattern, offset, words) in [
        ("", 0, "is empty"),
        ("10.0.0.1", 8, "write `10.0.0.1:*`"),
        ("10.0.0.0/33:1", 9, "at most 32 bits"),
        ("10.0.0.0/:1", 9, "at most 32 bits"),
        ("10.0.0.256:1", 0, "no IPv4 address"),
        ("10.0.0:1", 0, "no IPv4 address"),
        ("10.0.0.x/8:1", 0, "no IPv4 address"),
        ("2001:db8::1", 0, "in brackets"),
        ("2001:db8::1:443", 0, "in brackets"),
        ("2001:db8::/32:443", 0, "in brackets"),
        ("[2001:db8::1:443", 0, "not closed"),
        ("[2001:zz::]:443", 1, "no IPv6 address"),
        ("[2001:db8::]/129:1", 13, "at most 128 bits"),
        ("[2001:db8::]x:1", 13, "at most 128 bits"),
        ("[2001:db8::]", 12, "says its ports"),
        ("*:65536", 2, "up to 65535"),
        ("*:80,x", 5, "up to 65535"),
        ("*:", 2, "up to 65535"),
        ("*:+1", 2, "up to 65535"),
        ("*:90-80", 2, "backwards"),
        ("db*.example.com:1", 2, "`*` stands for"),
        ("a..b:1", 0, "no host name"),
        ("exa mple:1", 0, "no host name"),
        ("unix:name", 5, "Unix socket is a path"),
        ("unix:@", 6, "empty"),
        ("vsock:2", 6, "vsock:CID:PORT"),
        ("vsock:x:1", 6, "vsock:CID:PORT"),
        ("vsock:2:x", 8, "a port is"),
        ("udp:10.0.0.0/8:x", 15, "a port is"),
        ("/run/[x", 5, "not closed"),
    ] {
        let error = AddressPattern::parse(pattern).unwrap_err();
        assert!(error.to_string().contains(words), "{pattern}: {error}");
        assert_eq!(error.offset, offset, "{pattern}: {error}");
    }
}

#[test]
fn covering() {
    for (wide, narrow, covers) in [
        ("*:22", "10.0.0.0/8:22", true),
        ("*:20-30", "example.com:22,25", true),
        ("*:22", "*:22,23", false),
        ("10.0.0.0/8:*", "10.20.0.0/16:5432", true),
        ("10.20.0.0/16:*", "10.0.0.0/8:5432", false),
        ("tcp:*:22", "*:22", false),
        ("*:22", "udp:*:22", true),
        ("*.example.com:*", "a.b.example.com:1", true),
        ("*.example.com:*", "*.a.example.com:1", true),
        ("*.a.example.com:*", "*.example.com:1", false),
        ("example.com:*", "*.example.com:1", false),
        ("/run/**", "/run/a.sock", true),
        ("*:*", "/run/a.sock", false),
        ("vsock:*:1-10", "vsock:2:5", true),
    ] {
        let parse = |text| AddressPattern::parse(text).unwrap();
        assert_eq!(parse(wide).covers(&parse(narrow)), covers, "{wide} over {narrow}");
    }
}

#[test]
fn a_target_shows_itself_as_it_is_read() {
    for text in
        ["10.0.0.1:443", "udp:[2001:db8::1]:53", "example.com:443", "/run/x.sock", "unix:@x", "vsock:2:1024"]
    {
        assert_eq!(Address::parse(text).unwrap().to_string(), text);
    }
    for text in ["10.0.0.1", "10.0.0.1:x", "10.0.0.256:1", "*:22", "unix:x", "vsock:2", "", "x:1,2"] {
        assert!(Address::parse(text).is_err(), "{text}");
    }
}
