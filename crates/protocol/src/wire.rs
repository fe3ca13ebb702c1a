//! Reading protobuf's wire format field by field, without copying. What a field means is decided elsewhere.
//!
//! It accepts exactly what `prost` accepts, but for groups: those are refused, at any depth that is parsed.

/// Why bytes are not a packet. The packet is dropped and counted; the connection stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A field reaches past the end of its message.
    #[error("a field is cut short")]
    Truncated,
    /// A number has more than 64 bits, or no end.
    #[error("a number is too long")]
    Number,
    /// A field's key has no valid field number or wire type.
    #[error("a field's key is not valid")]
    Key,
    /// A known field has another wire type than its own.
    #[error("a field has the wrong wire type")]
    WireType,
    /// A group, which no dialect has.
    #[error("a group is not accepted")]
    Group,
    /// A string field is not UTF-8.
    #[error("a text field is not UTF-8")]
    Text,
}

/// How a field's value is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Varint,
    Fixed64,
    Bytes,
    Fixed32,
}

/// One field's key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) number: u32,
    wire: Wire,
}

impl Field {
    #[inline]
    fn expect(self, wire: Wire) -> Result<(), Malformed> {
        if self.wire == wire { Ok(()) } else { Err(Malformed::WireType) }
    }
}

/// A message being read. After an error the position means nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// The next field's key; `None` at the end of the message. One of the value methods must follow.
    #[inline]
    pub(crate) fn field(&mut self) -> Result<Option<Field>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = u32::try_from(self.number()?).map_err(|_| Malformed::Key)?;
        let wire = match key & 7 {
            0 => Wire::Varint,
            1 => Wire::Fixed64,
            2 => Wire::Bytes,
            3 | 4 => return Err(Malformed::Group),
            5 => Wire::Fixed32,
            _ => return Err(Malformed::Key),
        };
        let number = key >> 3;
        if number == 0 {
            return Err(Malformed::Key);
        }
        Ok(Some(Field { number, wire }))
    }

    /// The value of an integer, `bool` or enum field; narrower types take its low bits, as every parser does.
    #[inline]
    pub(crate) fn varint(&mut self, field: Field) -> Result<u64, Malformed> {
        field.expect(Wire::Varint)?;
        self.number()
    }

    /// The value of a `bytes` or message field.
    #[inline]
    pub(crate) fn bytes(&mut self, field: Field) -> Result<&'a [u8], Malformed> {
        field.expect(Wire::Bytes)?;
        let length = self.number()?;
        self.take(length)
    }

    /// The value of a `string` field.
    #[inline]
    pub(crate) fn text(&mut self, field: Field) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes(field)?).map_err(|_| Malformed::Text)
    }

    /// Passes over the value of a `double` field.
    #[inline]
    pub(crate) fn double(&mut self, field: Field) -> Result<(), Malformed> {
        field.expect(Wire::Fixed64)?;
        self.take(8).map(drop)
    }

    /// Passes over the value of a `float` field.
    #[inline]
    pub(crate) fn float(&mut self, field: Field) -> Result<(), Malformed> {
        field.expect(Wire::Fixed32)?;
        self.take(4).map(drop)
    }

    /// Passes over the value of a field that this dialect does not have.
    #[inline]
    pub(crate) fn skip(&mut self, field: Field) -> Result<(), Malformed> {
        let length = match field.wire {
            Wire::Varint => return self.number().map(drop),
            Wire::Fixed64 => 8,
            Wire::Fixed32 => 4,
            Wire::Bytes => self.number()?,
        };
        self.take(length).map(drop)
    }

    #[inline]
    fn take(&mut self, length: u64) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(length).map_err(|_| Malformed::Truncated)?;
        let (value, rest) = self.rest.split_at_checked(length).ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(value)
    }

    #[inline]
    fn number(&mut self) -> Result<u64, Malformed> {
        match *self.rest {
            [low, ref rest @ ..] if low < 0x80 => {
                self.rest = rest;
                Ok(u64::from(low))
            }
            _ => self.long_number(),
        }
    }

    fn long_number(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for (index, &byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                // The tenth byte holds the 64th bit and no more.
                if index == 9 && byte > 1 {
                    return Err(Malformed::Number);
                }
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 { Malformed::Truncated } else { Malformed::Number })
    }
}
