//! "Did you mean": the valid name nearest to what was written. Pure.

/// Longer than any name that is meant, by far; comparing takes time and memory that grow with it.
const MAX_WRITTEN: usize = 200;

/// The nearest of the names, if it is near enough to be a slip.
pub(crate) fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if written.len() > MAX_WRITTEN {
        return None;
    }
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&written.to_lowercase(), &candidate.to_lowercase()), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 3)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_is_told_from_another_word() {
        let known = ["max_rooms", "max_room_members", "bus"];
        assert_eq!(nearest("max_romms", known), Some("max_rooms"));
        assert_eq!(nearest("MAX_ROOMS", known), Some("max_rooms"));
        assert_eq!(nearest("bsu", known), Some("bus"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("x", []), None);
    }
}
