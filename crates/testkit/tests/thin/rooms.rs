//! Fairness: a room whose members send as much as they may does not hold up another.
