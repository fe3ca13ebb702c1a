//! The two numberings of one protocol.

/// Which numbering a node speaks. A room never mixes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// The numbering of the seed document; the default.
    #[default]
    Seed,
    /// The numbering with server-assigned sessions and meeting events.
    Sessions,
}
