//! When a certificate ends: the few steps of DER that lead to `notAfter`, and nothing else of X.509.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const EXPLICIT_VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// `notBefore` and `notAfter` of a DER certificate; `None` where the bytes are not one.
pub(super) fn of(certificate: &[u8]) -> Option<(SystemTime, SystemTime)> {
    let (outer, _) = expect(certificate, SEQUENCE)?;
    let (mut fields, _) = expect(outer, SEQUENCE)?;
    if fields.first() == Some(&EXPLICIT_VERSION) {
        fields = expect(fields, EXPLICIT_VERSION)?.1;
    }
    // Serial number, signature algorithm, issuer.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        fields = expect(fields, tag)?.1;
    }
    let (validity, _) = expect(fields, SEQUENCE)?;
    let (from, rest) = time(validity)?;
    let (to, _) = time(rest)?;
    Some((from, to))
}

/// One element: its tag, its content and what follows it. Only the definite lengths of DER, up to four bytes.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, bytes) = bytes.split_first()?;
    let (&first, mut bytes) = bytes.split_first()?;
    let mut length = usize::from(first);
    if first >= 0x80 {
        let count = usize::from(first & 0x7f);
        if !(1..=4).contains(&count) {
            return None;
        }
        let (digits, rest) = bytes.split_at_checked(count)?;
        length = digits.iter().fold(0, |sum, &digit| (sum << 8) | usize::from(digit));
        bytes = rest;
    }
    let (content, rest) = bytes.split_at_checked(length)?;
    Some((tag, content, rest))
}

fn expect(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(bytes)?;
    (found == tag).then_some((content, rest))
}

fn time(bytes: &[u8]) -> Option<(SystemTime, &[u8])> {
    let (tag, content, rest) = element(bytes)?;
    let text = std::str::from_utf8(content).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, text) = match (tag, text.len()) {
        (UTC_TIME, 12) => {
            let short: i32 = text[..2].parse().ok()?;
            // RFC 5280, section 4.1.2.5.1.
            (if short >= 50 { 1900 + short } else { 2000 + short }, &text[2..])
        }
        (GENERALIZED_TIME, 14) => (text[..4].parse().ok()?, &text[4..]),
        _ => return None,
    };
    let pair = |at: usize| text[at..at + 2].parse::<u8>().ok();
    let month = time::Month::try_from(pair(0)?).ok()?;
    let date = time::Date::from_calendar_date(year, month, pair(2)?).ok()?;
    let at = date.with_hms(pair(4)?, pair(6)?, pair(8)?).ok()?.assume_utc().unix_timestamp();
    let magnitude = Duration::from_secs(at.unsigned_abs());
    let at = if at < 0 { UNIX_EPOCH.checked_sub(magnitude) } else { UNIX_EPOCH.checked_add(magnitude) };
    Some((at?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn certificate(from: i64, to: i64) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        params.not_before = time::OffsetDateTime::from_unix_timestamp(from).unwrap();
        params.not_after = time::OffsetDateTime::from_unix_timestamp(to).unwrap();
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn reads_both_forms_of_time() {
        // 2026 is written as UTCTime, 2066 as GeneralizedTime.
        let (from, to) = (1_790_000_000, 3_050_000_000);
        let found = of(&certificate(from, to)).unwrap();
        assert_eq!(found.0, UNIX_EPOCH + Duration::from_secs(from as u64));
        assert_eq!(found.1, UNIX_EPOCH + Duration::from_secs(to as u64));
    }

    #[test]
    fn every_truncation_is_refused_or_whole() {
        let whole = certificate(1_790_000_000, 1_800_000_000);
        for length in 0..whole.len() {
            assert_eq!(of(&whole[..length]), None, "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = of(&bytes);
        }

        #[test]
        fn never_panics_on_a_damaged_certificate(at in 0_usize..400, byte in any::<u8>()) {
            let mut damaged = certificate(1_790_000_000, 1_800_000_000);
            if let Some(place) = damaged.get_mut(at) {
                *place = byte;
            }
            let _ = of(&damaged);
        }
    }
}
