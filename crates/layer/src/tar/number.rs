//! Numbers of tar headers and PAX records.

use crate::attributes::Mtime;

/// Reads a header field: octal digits, or base-256 with the top bit set. `None` if it is neither.
pub(crate) fn field(bytes: &[u8]) -> Option<i128> {
    match bytes {
        [0x80, magnitude @ ..] => magnitude
            .iter()
            .try_fold(0_i128, |value, byte| value.checked_mul(256)?.checked_add(i128::from(*byte))),
        [0xff, magnitude @ ..] => magnitude.iter().try_fold(-1_i128, |value, byte| {
            value.checked_mul(256)?.checked_add(i128::from(*byte))
        }),
        _ => octal(bytes),
    }
}

/// Octal digits, spaces before them, NULs and spaces after them. Blank is 0, as all tools read it.
fn octal(bytes: &[u8]) -> Option<i128> {
    let start = bytes.iter().position(|byte| *byte != b' ').unwrap_or(bytes.len());
    let digits = &bytes[start..];
    let end = digits.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    if rest.iter().any(|byte| !matches!(byte, 0 | b' ')) {
        return None;
    }
    digits.iter().try_fold(0_i128, |value, digit| match digit {
        b'0'..=b'7' => Some(value * 8 + i128::from(digit - b'0')),
        _ => None,
    })
}

/// Decimal digits and nothing else.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// A PAX time: decimal seconds with an optional sign and fraction; digits below a nanosecond are cut off.
pub(crate) fn time(text: &[u8]) -> Option<Mtime> {
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    let secs = i64::try_from(decimal(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut nanos = 0;
    for place in 0..9 {
        nanos = nanos * 10 + fraction.get(place).map_or(0, |digit| u32::from(digit - b'0'));
    }
    Some(match (negative, nanos) {
        (false, _) => Mtime { secs, nanos },
        (true, 0) => Mtime { secs: -secs, nanos: 0 },
        (true, _) => Mtime { secs: -secs - 1, nanos: 1_000_000_000 - nanos },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_fields() {
        for (bytes, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"00000000017 ", Some(15)),
            (b"  1750 \0", Some(0o1750)),
            (b"77777777777\0", Some(0o77_777_777_777)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"777777777777", Some(0o777_777_777_777)),
            (b"0000648\0", None),
            (b"-000001\0", None),
            (b"0x00000\0", None),
            (b"12\0x\0\0\0\0", None),
            (b"\x80\0\0\0\0\0\0\x01", Some(1)),
            (b"\x80\0\0\0\0\0\0\x02\0\0\0\0", Some(1 << 33)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x81\0\0\0\0\0\0\0", None),
            (b"\xfe\xff\xff\xff\xff\xff\xff\xfe", None),
        ] {
            assert_eq!(field(bytes), value, "{bytes:?}");
        }
    }

    #[test]
    fn pax_numbers() {
        for (text, value) in [
            (&b"0"[..], Some(0)),
            (b"18446744073709551615", Some(u64::MAX)),
            (b"18446744073709551616", None),
            (b"", None),
            (b"-1", None),
            (b"+1", None),
            (b"1.0", None),
            (b" 1", None),
        ] {
            assert_eq!(decimal(text), value, "{text:?}");
        }
    }

    #[test]
    fn pax_times() {
        let at = |secs, nanos| Some(Mtime { secs, nanos });
        for (text, value) in [
            (&b"0"[..], at(0, 0)),
            (b"1700000000.123456789", at(1_700_000_000, 123_456_789)),
            (b"1.5", at(1, 500_000_000)),
            (b"1.", at(1, 0)),
            (b"1.0000000019", at(1, 1)),
            (b"-1", at(-1, 0)),
            (b"-1.25", at(-2, 750_000_000)),
            (b"-0.5", at(-1, 500_000_000)),
            (b"9223372036854775808", None),
            (b".5", None),
            (b"1.x", None),
            (b"1e3", None),
            (b"", None),
        ] {
            assert_eq!(time(text), value, "{}", String::from_utf8_lossy(text));
        }
    }
}
