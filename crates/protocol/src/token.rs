//! Percent-encoding as tokens and paths use it: strict, upper-case, reversible. What a token stands for is not known here.

use std::fmt::Write;

use percent_encoding::percent_decode_str;

/// Whether a byte stands for itself in a subject's token.
pub(crate) const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

/// Appends `text` with every byte that is not plain as `%XX`.
pub(crate) fn escape_into(out: &mut String, text: &str) {
    for &byte in text.as_bytes() {
        if is_plain(byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a String never fails");
        }
    }
}

/// `text` with every byte that is not plain as `%XX`.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    escape_into(&mut out, text);
    out
}

/// Undoes percent-encoding. `None` where a `%` is not followed by two hexadecimal digits, or the bytes are not UTF-8.
pub(crate) fn unescape(text: &str) -> Option<String> {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|&byte| byte == b'%') {
        match &rest[at + 1..] {
            [high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => rest = tail,
            _ => return None,
        }
    }
    Some(percent_decode_str(text).decode_utf8().ok()?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_all_but_plain_bytes() {
        assert_eq!(escape("alice@example.com"), "alice%40example%2Ecom");
        assert_eq!(escape("a b_c-D9"), "a%20b_c-D9");
        assert_eq!(escape("é"), "%C3%A9");
    }

    #[test]
    fn refuses_malformed_escapes_and_bytes_that_are_not_text() {
        for bad in ["%", "a%", "%4", "%zz", "%+1", "%4g", "%%41", "%FF", "%C3", "%é"] {
            assert_eq!(unescape(bad), None, "{bad}");
        }
        assert_eq!(unescape("%41%6a%2e%00é").as_deref(), Some("Aj.\0é"));
    }
}
