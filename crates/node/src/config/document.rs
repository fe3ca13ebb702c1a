//! A text's document and its lines, bounded: whatever the text, looking through the document again and again is cheap, and
//! walking down it does not exhaust a stack.

use toml::de::{DeArray, DeTable, DeValue};

/// More values than any configuration has. A text with more is refused without a look at them.
pub(super) const MAX_VALUES: usize = 20_000;
/// No setting is this deep. What is deeper is emptied: a table in its place is as wrong as one with something in it.
const MAX_DEPTH: usize = 8;

/// A text as TOML: what can be made of it, and its syntax errors in the order in which they were found.
pub(super) struct Document<'a> {
    /// At most [`MAX_DEPTH`] deep.
    pub(super) table: DeTable<'a>,
    /// What is wrong with the syntax.
    pub(super) syntax: Vec<toml::de::Error>,
    /// How many values the text holds, at any depth.
    pub(super) values: usize,
}

impl<'a> Document<'a> {
    /// Reads a text.
    pub(super) fn new(text: &'a str) -> Self {
        let (document, syntax) = DeTable::parse_recoverable(text);
        let mut table = document.into_inner();
        let mut deep = Vec::new();
        let mut values = 0;
        for (_, value) in &mut table {
            empty_below(value.get_mut(), 1, &mut values, &mut deep);
        }
        // Dotted keys in inline tables nest thousands deep in a few kilobytes; taken apart one by one, not by recursion.
        while let Some(value) = deep.pop() {
            values += 1;
            match value {
                DeValue::Table(table) => deep.extend(table.into_iter().map(|(_, value)| value.into_inner())),
                DeValue::Array(array) => deep.extend(array.into_iter().map(toml::Spanned::into_inner)),
                _ => {}
            }
        }
        Self { table, syntax, values }
    }
}

/// Counts the values, and moves those that are too deep to `deep`, uncounted.
fn empty_below<'a>(value: &mut DeValue<'a>, depth: usize, values: &mut usize, deep: &mut Vec<DeValue<'a>>) {
    match value {
        DeValue::Table(_) if depth >= MAX_DEPTH => deep.push(std::mem::replace(value, DeValue::Table(DeTable::new()))),
        DeValue::Array(_) if depth >= MAX_DEPTH => deep.push(std::mem::replace(value, DeValue::Array(DeArray::new()))),
        DeValue::Table(table) => {
            *values += 1;
            for (_, value) in table {
                empty_below(value.get_mut(), depth + 1, values, deep);
            }
        }
        DeValue::Array(array) => {
            *values += 1;
            for value in array.iter_mut() {
                empty_below(value.get_mut(), depth + 1, values, deep);
            }
        }
        _ => *values += 1,
    }
}

/// Where a text's lines begin.
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    /// Looks through a text once.
    pub(super) fn new(text: &'a str) -> Self {
        let after = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(after).collect() }
    }

    /// The line, from 1, on which a byte is.
    pub(super) fn of(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    /// The text of a line, from 1.
    pub(super) fn text(&self, line: usize) -> &'a str {
        let start = line.checked_sub(1).and_then(|index| self.starts.get(index)).copied().unwrap_or(self.text.len());
        let end = self.starts.get(line).copied().unwrap_or(self.text.len());
        self.text.get(start..end).unwrap_or_default().trim_end_matches(['\n', '\r'])
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.starts.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_on_the_line_that_begins_before_it() {
        let lines = Lines::new("ab\r\n\ncd");
        let of: Vec<usize> = (0..8).map(|offset| lines.of(offset)).collect();
        assert_eq!(of, [1, 1, 1, 1, 2, 3, 3, 3]);
        assert_eq!([1, 2, 3].map(|line| lines.text(line)), ["ab", "", "cd"]);
        assert_eq!([0, 4, 99].map(|line| lines.text(line)), ["", "", ""]);
    }

    #[test]
    fn what_is_too_deep_is_emptied_and_counted() {
        let document = Document::new("a.b.c.d.e.f.g.h.i.j = [1, 2]\nx = [[1], {}]\n");
        assert!(document.syntax.is_empty());
        assert_eq!(document.values, 16);
        let mut depth = 0;
        let mut table = document.table;
        while let Some((_, value)) = table.into_iter().next() {
            depth += 1;
            table = match value.into_inner() {
                DeValue::Table(inner) => inner,
                other => panic!("{other:?}"),
            };
        }
        assert_eq!(depth, MAX_DEPTH);
    }
}
