//! What the kernel sends back on a netlink socket, taken apart.

use std::io;

/// `NLMSG_ERROR`; an acknowledgement is one with code 0.
pub(super) const TYPE_ERROR: u16 = 2;
/// `NLMSG_DONE`
pub(super) const TYPE_DONE: u16 = 3;
/// `NLM_F_ACK_TLVS`: attributes follow the quoted request.
const FLAG_TLVS: u16 = 0x200;
/// `NLMSGERR_ATTR_MSG`
const ATTR_MESSAGE: u16 = 1;
const HEADER: usize = 16;

/// One message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    /// Its type.
    pub(super) kind: u16,
    /// The sequence number of the request that it answers.
    pub(super) sequence: u32,
    /// What follows its header.
    pub(super) body: &'a [u8],
    flags: u16,
}

impl Message<'_> {
    /// What an error message says; the kernel's own words are added to the code where it gives any.
    pub(super) fn outcome(&self) -> io::Result<()> {
        let code = self.body.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
        if code == 0 {
            return Ok(());
        }
        let error = io::Error::from_raw_os_error(-code);
        // With capped replies only the request's header is quoted, after the code.
        let tail = self.body.get(4 + HEADER..).filter(|_| self.flags & FLAG_TLVS != 0);
        let words = tail.and_then(|tail| attributes(tail).find(|(kind, _)| *kind == ATTR_MESSAGE));
        match words {
            Some((_, words)) => {
                let words = Explained { words: text(words), error };
                Err(io::Error::new(words.error.kind(), words))
            }
            None => Err(error),
        }
    }
}

/// An error code with the kernel's explanation.
#[derive(Debug, thiserror::Error)]
#[error("{error}: {words}")]
pub(super) struct Explained {
    words: String,
    error: io::Error,
}

/// The code of an error that came from [`Message::outcome`] or the system.
pub(super) fn code(error: &io::Error) -> Option<i32> {
    error.raw_os_error().or_else(|| {
        let inner = error.get_ref()?.downcast_ref::<Explained>()?;
        inner.error.raw_os_error()
    })
}

/// The messages of one datagram. What is malformed ends them.
pub(super) fn messages(mut rest: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header: &[u8; HEADER] = rest.first_chunk()?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let message = Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            body: rest.get(HEADER..length)?,
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in a piece of a message: type without flags, and value.
pub(super) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header: &[u8; 4] = rest.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Text that ends in a zero byte.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{attributes, code, messages};

    /// An answer to request 7: ENOENT, with the quoted header and the kernel's words.
    fn refusal() -> Vec<u8> {
        let mut bytes = vec![0; 16];
        bytes[4..6].copy_from_slice(&2_u16.to_ne_bytes());
        bytes[6..8].copy_from_slice(&0x300_u16.to_ne_bytes());
        bytes[8..12].copy_from_slice(&7_u32.to_ne_bytes());
        bytes.extend((-libc::ENOENT).to_ne_bytes());
        bytes.extend([0; 16]);
        bytes.extend([&11_u16.to_ne_bytes()[..], &1_u16.to_ne_bytes(), b"so far\0\0"].concat());
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_refusal_has_its_code_and_the_kernels_words() {
        let twice = [refusal(), refusal()].concat();
        let found: Vec<_> = messages(&twice).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].sequence, 7);
        let error = found[1].outcome().unwrap_err();
        assert_eq!(code(&error), Some(libc::ENOENT));
        assert!(error.to_string().ends_with(": so far"), "{error}");
    }

    #[test]
    fn what_is_cut_short_is_left_out() {
        let whole = refusal();
        for length in 0..whole.len() {
            assert_eq!(messages(&whole[..length]).count(), 0, "{length}");
        }
        let cases: [(&[u8], usize); 4] = [
            (&[], 0),
            (&[4, 0, 1], 0),
            (&[0, 0, 1, 0, 9, 9, 9, 9], 0),
            (&[4, 0, 1, 0, 5, 0, 2, 0, 9], 2),
        ];
        for (bytes, expected) in cases {
            assert_eq!(attributes(bytes).count(), expected, "{bytes:?}");
        }
    }
}
