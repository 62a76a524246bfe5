//! PAX extended header records (IEEE Std 1003.1, "pax Extended Header").

use crate::error::EntryProblem;
use crate::name::Printable;

/// Keyword and value.
pub(crate) type Record<'d> = (&'d [u8], &'d [u8]);

/// The records of one extended header, in order.
pub(crate) fn records(mut data: &[u8]) -> Result<Vec<Record<'_>>, EntryProblem> {
    let mut records = Vec::new();
    while !data.is_empty() {
        let (record, rest) = split(data).ok_or_else(|| {
            let start = Printable(&data[..data.len().min(40)]).to_string();
            EntryProblem::Extension(format!("no valid record at `{start}`"))
        })?;
        records.push(record);
        data = rest;
    }
    Ok(records)
}

/// Splits `LENGTH KEYWORD=VALUE\n` off; the value may hold any bytes, newlines too.
fn split(data: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let space = data.iter().take(20).position(|byte| *byte == b' ')?;
    let len = usize::try_from(super::number::decimal(&data[..space])?).ok()?;
    if len <= space + 1 || len > data.len() {
        return None;
    }
    let (record, rest) = data.split_at(len);
    let body = record[space + 1..].strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    // Tools written in C end a keyword at a NUL.
    if equals == 0 || body[..equals].contains(&0) {
        return None;
    }
    Some(((&body[..equals], &body[equals + 1..]), rest))
}

/// An xattr name as GNU tar spells it in a keyword: `=` as `%3D` and `%` as `%25`.
pub(crate) fn decode_xattr_name(name: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, tail)) = rest.split_first() {
        let (byte, tail) = match rest {
            [b'%', b'3', b'D', tail @ ..] => (b'=', tail),
            [b'%', b'2', b'5', tail @ ..] => (b'%', tail),
            _ => (*first, tail),
        };
        decoded.push(byte);
        rest = tail;
    }
    decoded
}

/// The reverse of [`decode_xattr_name`].
pub(crate) fn encode_xattr_name(name: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            b'=' => encoded.extend_from_slice(b"%3D"),
            b'%' => encoded.extend_from_slice(b"%25"),
            other => encoded.push(*other),
        }
    }
    encoded
}

/// Appends one record. The length counts its own digits.
pub(crate) fn push_record(data: &mut Vec<u8>, keyword: &[u8], value: &[u8]) {
    let body = keyword.len() + value.len() + 3;
    let mut len = body + 1;
    while body + len.to_string().len() != len {
        len = body + len.to_string().len();
    }
    data.extend_from_slice(len.to_string().as_bytes());
    data.push(b' ');
    data.extend_from_slice(keyword);
    data.push(b'=');
    data.extend_from_slice(value);
    data.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_records_are_read_back() {
        let long = vec![b'x'; 20_000];
        for len in (0..120).chain([990, 991, 992, 993, 994, 9_980, 9_990, 10_000]) {
            let mut data = Vec::new();
            push_record(&mut data, b"k", &long[..len]);
            push_record(&mut data, b"SCHILY.xattr.user.a", b"1\n2=3\0");
            let expected: Vec<Record<'_>> =
                vec![(b"k", &long[..len]), (b"SCHILY.xattr.user.a", b"1\n2=3\0")];
            assert_eq!(records(&data).unwrap(), expected, "{len}");
        }
    }

    #[test]
    fn refuse_malformed_records() {
        for data in [
            &b"6 a=b"[..],
            b"6 a=bc",
            b"5 a=b\n",
            b"7 a=b\n",
            b"6 =bc\n",
            b"6 \0=b\n",
            b"6 abc\n",
            b"0 a=b\n",
            b"-6 a=b\n",
            b" 6 a=b\n",
            b"a=b\n",
            b"99999999999999999999 a=b\n",
            b"6 a=b\n\0\0\0",
        ] {
            assert!(records(data).is_err(), "{}", String::from_utf8_lossy(data));
        }
    }

    #[test]
    fn xattr_names() {
        for (name, encoded) in
            [(&b"user.a"[..], &b"user.a"[..]), (b"user.a=b%c", b"user.a%3Db%25c")]
        {
            assert_eq!(encode_xattr_name(name), encoded);
            assert_eq!(decode_xattr_name(encoded), name);
        }
        assert_eq!(decode_xattr_name(b"user.%41%"), b"user.%41%");
    }
}
