//! Which node of a cluster holds which name: pure.

use std::fmt;
use std::ops::RangeInclusive;

use smallvec::SmallVec;

use super::commands::refusal;
use crate::trip::Reply;
use crate::wire::redis::Value;

/// How many slots the names of a cluster fall into.
pub(super) const COUNT: u16 = 16_384;

/// Slots of one operation: that of its name, or many for a clear.
pub(super) type Slots = SmallVec<[u16; 4]>;

/// Primaries, each with some of its slots.
pub(super) type Shards = Vec<(Address, RangeInclusive<u16>)>;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The slot of a name: CRC16 of the part in its first braces, or of all of it.
pub(super) fn slot(name: &[u8]) -> u16 {
    crc16(tag(name)) % COUNT
}

fn tag(name: &[u8]) -> &[u8] {
    let braces = || {
        let open = name.iter().position(|byte| *byte == b'{')?;
        let inside = name.get(open + 1..)?;
        let end = inside.iter().position(|byte| *byte == b'}')?;
        inside.get(..end).filter(|tag| !tag.is_empty())
    };
    braces().unwrap_or(name)
}

/// CRC-16/XMODEM, a byte at a time without a table.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        let mixed = (crc >> 8) ^ u16::from(*byte);
        let mixed = mixed ^ (mixed >> 4);
        (crc << 8) ^ (mixed << 12) ^ (mixed << 5) ^ mixed
    })
}

/// The node of every slot.
#[derive(Clone, Debug)]
pub(super) struct SlotMap<N> {
    nodes: Vec<N>,
    /// Places in `nodes`; one past its end for a slot that nobody serves.
    owners: Box<[u16]>,
}

const NOBODY: u16 = u16::MAX;

impl<N: PartialEq> SlotMap<N> {
    pub(super) fn new(shards: impl IntoIterator<Item = (N, RangeInclusive<u16>)>) -> Self {
        let mut map = Self {
            nodes: Vec::new(),
            owners: vec![NOBODY; usize::from(COUNT)].into(),
        };
        for (node, slots) in shards {
            map.assign(node, slots);
        }
        map
    }

    /// Gives `slots` to `node`.
    pub(super) fn assign(&mut self, node: N, slots: RangeInclusive<u16>) {
        let known = self.nodes.iter().position(|other| *other == node);
        let place = known.unwrap_or_else(|| {
            self.nodes.push(node);
            self.nodes.len() - 1
        });
        let slots = usize::from(*slots.start())..=usize::from(*slots.end());
        if let (Some(owners), Ok(place)) = (self.owners.get_mut(slots), u16::try_from(place)) {
            owners.fill(place);
        }
    }

    pub(super) fn owner(&self, slot: u16) -> Option<&N> {
        let place = self.owners.get(usize::from(slot))?;
        self.nodes.get(usize::from(*place))
    }

    pub(super) fn nodes(&self) -> &[N] {
        &self.nodes
    }
}

/// Reads the answer of the server at `asked` to CLUSTER SLOTS: each primary and its slots.
pub(super) fn shards(answer: Value, asked: &Address) -> Option<Shards> {
    let shards = elements(answer)?.map(|shard| {
        // The first slot, the last one, the primary; and its replicas.
        let mut shard = elements(shard)?;
        let slots = number(shard.next()?)?..=number(shard.next()?)?;
        let mut primary = elements(shard.next()?)?;
        let host = match primary.next()? {
            Value::Nil => String::new(),
            host => host.text()?.to_owned(),
        };
        let port = number(primary.next()?)?;
        Some((address(&host, port, asked), slots))
    });
    shards.collect()
}

fn elements(value: Value) -> Option<std::vec::IntoIter<Value>> {
    match value {
        Value::Array(values) => Some(values.into_iter()),
        _ => None,
    }
}

fn number(value: Value) -> Option<u16> {
    match value {
        Value::Integer(number) => number.try_into().ok(),
        _ => None,
    }
}

/// What a server calls `host`, seen from here: one that does not know its own name leaves it out.
fn address(host: &str, port: u16, asked: &Address) -> Address {
    let host = match host {
        "" | "?" => &asked.host,
        host => host.trim_matches(['[', ']']),
    };
    Address {
        host: host.to_owned(),
        port,
    }
}

/// Where a node sends one who asked it for a name that it does not hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Redirect {
    pub(super) slot: u16,
    pub(super) to: Address,
    /// For this once, while the slot is on its way there.
    pub(super) once: bool,
}

/// The redirect that the server at `asked` answered with, if it is one.
pub(super) fn redirect(reply: &Reply, asked: &Address) -> Option<Redirect> {
    let error = refusal(reply)?;
    let once = match error.code() {
        "MOVED" => false,
        "ASK" => true,
        _ => return None,
    };
    let (slot, to) = error.detail().split_once(' ')?;
    let (host, port) = to.rsplit_once(':')?;
    Some(Redirect {
        slot: slot.parse().ok()?,
        to: address(host, port.parse().ok()?, asked),
        once,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::store::redis::commands::refused;
    use crate::wire::redis::ServerError;

    fn at(host: &str, port: u16) -> Address {
        Address {
            host: host.into(),
            port,
        }
    }

    #[test]
    fn slots_are_those_of_redis() {
        // By CLUSTER KEYSLOT; the behaviour suite asks a live server about many more.
        for (name, expected) in [
            ("", 0),
            ("foo", 12182),
            ("123456789", 12739),
            ("{user1000}.following", 3443),
            ("user1000", 3443),
            ("foo{}{bar}", 8363),
            ("foo{{bar}}zap", 4015),
            ("foo{bar}{zap}", 5061),
            ("{bar", 4015),
        ] {
            assert_eq!(slot(name.as_bytes()), expected, "{name}");
        }
    }

    #[test]
    fn a_map_tells_each_slot_s_owner() {
        let mut map = SlotMap::new([("a", 0..=99), ("b", 100..=199), ("a", 300..=300)]);
        let owners = |map: &SlotMap<_>| {
            let slots = [0, 99, 100, 150, 199, 200, 300, 16_383, u16::MAX];
            slots.map(|slot| map.owner(slot).copied())
        };
        let (a, b, c) = (Some("a"), Some("b"), Some("c"));
        assert_eq!(owners(&map), [a, a, b, b, b, None, a, None, None]);
        map.assign("c", 150..=150);
        assert_eq!(owners(&map), [a, a, b, c, b, None, a, None, None]);
        assert_eq!(map.nodes(), ["a", "b", "c"]);
    }

    fn array(values: impl IntoIterator<Item = Value>) -> Value {
        Value::Array(values.into_iter().collect())
    }

    fn text(text: &str) -> Value {
        Value::Bulk(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn the_answer_of_a_cluster_is_read() {
        let primary = |host, port| array([host, Value::Integer(port), text("id"), array([])]);
        let shard = |first, last, primary: Value| {
            array([
                Value::Integer(first),
                Value::Integer(last),
                primary.clone(),
                primary,
            ])
        };
        let answer = array([
            shard(0, 99, primary(text("10.0.0.1"), 7000)),
            shard(100, 199, primary(text(""), 7001)),
            shard(200, 200, primary(Value::Nil, 7002)),
            shard(300, 300, primary(text("?"), 7003)),
        ]);
        let shards = shards(answer, &at("here", 1)).unwrap();
        let expected = [
            (at("10.0.0.1", 7000), 0..=99),
            (at("here", 7001), 100..=199),
            (at("here", 7002), 200..=200),
            (at("here", 7003), 300..=300),
        ];
        assert_eq!(shards, expected);
    }

    #[test]
    fn what_is_no_map_is_not_read_as_one() {
        for answer in [
            Value::Status("OK".into()),
            array([Value::Integer(1)]),
            array([array([Value::Integer(-1), Value::Integer(5)])]),
            array([array([Value::Integer(0), Value::Integer(5), text("host")])]),
        ] {
            assert_eq!(shards(answer, &at("here", 1)), None);
        }
    }

    fn refusal(code: &str, detail: &str) -> Reply {
        let error = ServerError::new(format!("{code} {detail}").as_bytes());
        Reply::Failed(refused("redis://", error))
    }

    #[test]
    fn redirects_are_followed_and_other_errors_are_not() {
        let here = at("here", 1);
        let redirect = |code, detail| redirect(&refusal(code, detail), &here);
        let to = |to, once| {
            Some(Redirect {
                slot: 866,
                to,
                once,
            })
        };
        assert_eq!(redirect("MOVED", "866 h:7001"), to(at("h", 7001), false));
        assert_eq!(redirect("ASK", "866 h:7001"), to(at("h", 7001), true));
        assert_eq!(redirect("MOVED", "866 :7001"), to(at("here", 7001), false));
        assert_eq!(
            redirect("MOVED", "866 ::1:7001"),
            to(at("::1", 7001), false)
        );
        assert_eq!(redirect("MOVED", "866"), None);
        assert_eq!(redirect("NOPERM", "866 h:7001"), None);
    }
}
