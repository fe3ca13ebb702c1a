//! Numbered packets of a fixed size whose every byte is known, so that a receiver needs no copy of what was sent.

use bytes::Bytes;
use prost::Message;
use roomcast_protocol::seed::PacketWrapper;
use roomcast_protocol::seed::packet_wrapper::PacketType;

use crate::ledger::Numbered;

/// The size of every packet, as it leaves its sender.
pub const BYTES: usize = 1_200;
/// Before the room, the sender and the number, four bytes each.
const MARK: [u8; 4] = *b"SOAK";
const HEAD: usize = 16;

/// A packet of media that the router cannot read, as encrypted media is: what goes early when a queue is full.
#[must_use]
pub fn media(user: &str, packet: Numbered) -> Bytes {
    make(PacketType::Media, user, packet)
}

/// A packet of control, which goes last when a queue is full, and which a client keeps while it has no connection.
#[must_use]
pub fn control(user: &str, packet: Numbered) -> Bytes {
    make(PacketType::Connection, user, packet)
}

fn make(kind: PacketType, user: &str, packet: Numbered) -> Bytes {
    let mut data = Vec::with_capacity(BYTES);
    data.extend(MARK);
    for field in [packet.room, packet.sender, packet.number] {
        data.extend(field.to_le_bytes());
    }
    // The rest of the packet: a byte for the type, two for the user's key and length, three for those of the data.
    let length = BYTES.saturating_sub(2 + 2 + user.len() + 3).max(HEAD);
    data.extend_from_slice(&filling(packet)[HEAD..length]);
    let wrapper = PacketWrapper { packet_type: kind.into(), email: user.to_owned(), data, ..PacketWrapper::default() };
    wrapper.encode_to_vec().into()
}

/// A window on a pattern that repeats every 256 bytes: where it begins depends on the packet.
fn filling(packet: Numbered) -> &'static [u8] {
    const PATTERN: [u8; BYTES + 256] = {
        let mut pattern = [0; BYTES + 256];
        let mut at = 0;
        while at < pattern.len() {
            pattern[at] = (at % 256) as u8;
            at += 1;
        }
        pattern
    };
    static FILLING: [u8; BYTES + 256] = PATTERN;
    let start = packet.sender.wrapping_mul(31).wrapping_add(packet.number.wrapping_mul(7));
    &FILLING[usize::from(start as u8)..]
}

/// Reads a packet that was received. `None` where a single byte of it is not what its sender made.
#[must_use]
pub fn read(bytes: &[u8]) -> Option<Numbered> {
    let wrapper = PacketWrapper::decode(bytes).ok()?;
    let data = &wrapper.data;
    let field = |at: usize| Some(u32::from_le_bytes(data.get(at..at + 4)?.try_into().ok()?));
    let packet = Numbered { room: field(4)?, sender: field(8)?, number: field(12)? };
    let length = BYTES.saturating_sub(2 + 2 + wrapper.email.len() + 3).max(HEAD);
    let whole = data.starts_with(&MARK) && data.len() == length && data[HEAD..] == filling(packet)[HEAD..length];
    whole.then_some(packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_has_its_size_and_every_changed_byte_of_it_is_noticed() {
        let packet = Numbered { room: 3, sender: 70_000, number: 4_000_000_000 };
        for make in [media, control] {
            let bytes = make("r03m1", packet);
            assert_eq!(bytes.len(), BYTES);
            assert_eq!(read(&bytes), Some(packet));
            for at in 20..bytes.len() {
                let mut changed = bytes.to_vec();
                changed[at] ^= 0x10;
                assert_ne!(read(&changed), Some(packet), "byte {at}");
            }
            assert_eq!(read(&bytes[..BYTES - 1]), None);
        }
    }
}
