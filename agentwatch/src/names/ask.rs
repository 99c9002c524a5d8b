//! Questions to name servers: many at a time by UDP, by TCP what does not fit.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, TYPE};

use super::answer::{self, Outcome};
use super::config::Resolv;

/// Questions that wait for an answer at the same time.
const TOGETHER: usize = 64;
/// Bytes of an answer by UDP.
const UDP_BYTES: usize = 4096;

/// A question: a name in lower case, and what is asked of it.
pub type Wanted = (String, TYPE);

/// Asks all, and gives for each what came of it.
pub fn ask(resolv: &Resolv, wanted: &[Wanted]) -> Vec<Outcome> {
    wanted.chunks(TOGETHER).flat_map(|part| ask_part(resolv, part)).collect()
}

fn ask_part(resolv: &Resolv, wanted: &[Wanted]) -> Vec<Outcome> {
    let mut outcomes = vec![Outcome::Failed("no server answered".to_owned()); wanted.len()];
    for server in &resolv.servers {
        let open: Vec<usize> = (0..wanted.len())
            .filter(|index| matches!(outcomes.get(*index), Some(Outcome::Failed(_))))
            .collect();
        if open.is_empty() {
            break;
        }
        let result = ask_server(*server, resolv.timeout, wanted, &open, &mut outcomes);
        if let Err(error) = result {
            let failed = |outcome: &&mut Outcome| matches!(outcome, Outcome::Failed(_));
            outcomes
                .iter_mut()
                .filter(failed)
                .for_each(|outcome| *outcome = Outcome::Failed(format!("{server}: {error}")));
        }
    }
    outcomes
}

/// Asks one server for those of the questions that are open.
fn ask_server(
    server: SocketAddr,
    timeout: Duration,
    wanted: &[Wanted],
    open: &[usize],
    outcomes: &mut [Outcome],
) -> io::Result<()> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    let mut waiting: HashMap<u16, usize> = HashMap::new();
    for &index in open {
        let Some((name, kind)) = wanted.get(index) else { continue };
        let id = fresh_id(&waiting);
        let Some(question) = question(id, name, *kind) else { continue };
        socket.send(&question)?;
        waiting.insert(id, index);
    }
    let deadline = Instant::now() + timeout;
    let mut buffer = [0; UDP_BYTES];
    while !waiting.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        socket.set_read_timeout(Some(left))?;
        let received = match socket.recv(&mut buffer) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let message = buffer.get(..received).unwrap_or_default();
        let Some((id, index)) = answer::id_of(message).and_then(|id| Some((id, *waiting.get(&id)?))) else {
            continue;
        };
        let Some((name, kind)) = wanted.get(index) else { continue };
        let Some(mut outcome) = answer::read(message, name, *kind) else { continue };
        if outcome == Outcome::Truncated {
            outcome = by_tcp(server, timeout, id, name, *kind).unwrap_or_else(|error| {
                Outcome::Failed(format!("{server} by TCP, since its answer does not fit otherwise: {error}"))
            });
        }
        waiting.remove(&id);
        if let Some(place) = outcomes.get_mut(index) {
            *place = outcome;
        }
    }
    Ok(())
}

fn by_tcp(server: SocketAddr, timeout: Duration, id: u16, name: &str, kind: TYPE) -> io::Result<Outcome> {
    let mut stream = TcpStream::connect_timeout(&server, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let question =
        question(id, name, kind).ok_or_else(|| io::Error::other("the name cannot be asked for"))?;
    let len = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes(), question.as_slice()].concat())?;
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    let mut message = vec![0; u16::from_be_bytes(len).into()];
    stream.read_exact(&mut message)?;
    let read = answer::read(&message, name, kind).filter(|outcome| *outcome != Outcome::Truncated);
    read.ok_or_else(|| io::Error::other("what came is no answer"))
}

fn question(id: u16, name: &str, kind: TYPE) -> Option<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(Name::new(name).ok()?, kind.into(), CLASS::IN.into(), false));
    packet.build_bytes_vec().ok()
}

/// A number that nobody can guess and no other question has. The keys of a hasher are random.
fn fresh_id(taken: &HashMap<u16, usize>) -> u16 {
    let keys = RandomState::new();
    let ids = (0_u32..).map(|counter| keys.hash_one((counter, Instant::now())) as u16);
    ids.take(1 << 10).find(|id| !taken.contains_key(id)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers each question with one address, whose last byte is that of the name's first.
    fn serve(truncates: bool) -> SocketAddr {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = udp.local_addr().unwrap();
        let tcp = std::net::TcpListener::bind(address).unwrap();
        let reply = |question: &[u8], truncated: bool| {
            let packet = Packet::parse(question).unwrap();
            let mut reply = Packet::new_reply(packet.id());
            reply.questions = packet.questions.clone();
            let name = packet.questions[0].qname.clone();
            if truncated {
                reply.set_flags(PacketFlag::TRUNCATION);
            } else if name.to_string().starts_with("bad") {
                *reply.rcode_mut() = simple_dns::RCODE::ServerFailure;
            } else {
                let last = name.to_string().as_bytes()[0];
                let a = simple_dns::rdata::A { address: u32::from_be_bytes([10, 0, 0, last]) };
                let rdata = simple_dns::rdata::RData::A(a);
                reply.answers.push(simple_dns::ResourceRecord::new(name, CLASS::IN, 5, rdata));
            }
            reply.build_bytes_vec().unwrap()
        };
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((len, from)) = udp.recv_from(&mut buffer) {
                // What nobody asked for is passed over.
                udp.send_to(b"\0\0nonsense", from).unwrap();
                udp.send_to(&reply(&buffer[..len], truncates), from).unwrap();
            }
        });
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = tcp.accept() {
                let mut len = [0; 2];
                stream.read_exact(&mut len).unwrap();
                let mut question = vec![0; u16::from_be_bytes(len).into()];
                stream.read_exact(&mut question).unwrap();
                let reply = reply(&question, false);
                let len = u16::try_from(reply.len()).unwrap().to_be_bytes();
                stream.write_all(&[&len, reply.as_slice()].concat()).unwrap();
            }
        });
        address
    }

    fn resolv(servers: Vec<SocketAddr>) -> Resolv {
        Resolv { servers, ..Resolv::parse("options timeout:2") }
    }

    #[test]
    fn many_questions_are_answered_each_by_its_own() {
        let wanted: Vec<Wanted> =
            (0..200_u8).map(|n| (format!("{}{n}.test", char::from(b'a' + n % 26)), TYPE::A)).collect();
        for truncates in [false, true] {
            let wanted = if truncates { &wanted[..3] } else { &wanted[..] };
            for ((name, _), outcome) in wanted.iter().zip(ask(&resolv(vec![serve(truncates)]), wanted)) {
                let Outcome::Answer(answer) = outcome else { panic!("{name}: {outcome:?}") };
                assert_eq!(answer.addresses, [IpAddr::from([10, 0, 0, name.as_bytes()[0]])], "{name}");
            }
        }
    }

    #[test]
    fn who_does_not_answer_is_passed_over_and_what_fails_is_told() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut both = resolv(vec![silent.local_addr().unwrap(), serve(false)]);
        both.timeout = Duration::from_millis(500);
        let outcomes = ask(&both, &[("ok.test".to_owned(), TYPE::A), ("bad.test".to_owned(), TYPE::A)]);
        assert!(
            matches!(&outcomes[0], Outcome::Answer(answer) if answer.addresses.len() == 1),
            "{outcomes:?}"
        );
        assert!(
            matches!(&outcomes[1], Outcome::Failed(why) if why.contains("ServerFailure")),
            "{outcomes:?}"
        );
        both.servers.truncate(1);
        let outcomes = ask(&both, &[("ok.test".to_owned(), TYPE::A)]);
        assert!(matches!(&outcomes[0], Outcome::Failed(_)), "{outcomes:?}");
    }
}
