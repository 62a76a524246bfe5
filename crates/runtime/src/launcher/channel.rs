//! Messages with descriptors over a pair of `SOCK_SEQPACKET` sockets.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest message. Below the default size of a socket's buffer, which bounds a packet.
pub(crate) const MESSAGE_MAX: usize = 160 * 1024;
/// The most descriptors of a message.
const FDS_MAX: usize = 8;

/// One end.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: OwnedFd,
}

impl Channel {
    /// Two ends, both close-on-exec.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (one, other) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self { socket: one }, Self { socket: other }))
    }

    /// The end that `socket` is.
    pub(crate) fn from_socket(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Sends one message. Never blocks for long: the buffers hold many.
    pub(crate) fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > MESSAGE_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a message of {} bytes, at most {MESSAGE_MAX} fit", bytes.len()),
            ));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            let fits = control.push(SendAncillaryMessage::ScmRights(fds));
            debug_assert!(fits, "no message has more than {FDS_MAX} descriptors");
        }
        let bytes = [IoSlice::new(&bytes)];
        rustix::io::retry_on_intr(|| {
            sendmsg(&self.socket, &bytes, &mut control, SendFlags::NOSIGNAL)
        })?;
        Ok(())
    }

    /// Receives one message; `None` when the other end is closed.
    pub(crate) fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; MESSAGE_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut slices = [IoSliceMut::new(&mut bytes)];
            match recvmsg(&self.socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                // The other end was closed with something unread in it.
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                other => break other?,
            }
        };
        let fds = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            })
            .flatten()
            .collect();
        if received.bytes == 0 {
            return Ok(None);
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message was cut off"));
        }
        Ok(Some((serde_json::from_slice(&bytes[..received.bytes])?, fds)))
    }

    /// As [`Self::receive`], at the latest at `deadline`: then the error is `TimedOut`.
    pub(crate) fn receive_until<T: DeserializeOwned>(
        &self,
        deadline: Instant,
    ) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left =
                Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            let mut polled = [PollFd::new(&self.socket, PollFlags::IN)];
            match poll(&mut polled, Some(&left)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => return self.receive(),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether the other end is closed.
    pub(crate) fn is_closed(&self) -> bool {
        let mut polled = [PollFd::new(&self.socket, PollFlags::empty())];
        matches!(poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Write as _};
    use std::time::Duration;

    use super::*;

    #[test]
    fn messages_arrive_whole_and_in_order_with_their_descriptors() {
        let (one, other) = Channel::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"content").unwrap();
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).unwrap();
        one.send(&"first", &[file.as_fd(), file.as_fd()]).unwrap();
        one.send(&vec!["second"; 10_000], &[]).unwrap();
        let (text, mut fds) = other.receive::<String>().unwrap().unwrap();
        assert_eq!((text.as_str(), fds.len()), ("first", 2));
        let mut content = String::new();
        let fd = fds.pop().unwrap();
        assert!(rustix::io::fcntl_getfd(&fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        File::from(fd).read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
        let (list, fds) = other.receive::<Vec<String>>().unwrap().unwrap();
        assert_eq!((list.len(), fds.len()), (10_000, 0));
    }

    #[test]
    fn too_much_is_refused_before_it_is_sent() {
        let (one, other) = Channel::pair().unwrap();
        let error = one.send(&"x".repeat(MESSAGE_MAX), &[]).unwrap_err();
        assert!(error.to_string().contains(&MESSAGE_MAX.to_string()), "{error}");
        one.send(&"x".repeat(MESSAGE_MAX - 2), &[]).unwrap();
        let (text, _) = other.receive::<String>().unwrap().unwrap();
        assert_eq!(text.len(), MESSAGE_MAX - 2);
    }

    #[test]
    fn the_end_and_silence_are_told_apart() {
        let (one, other) = Channel::pair().unwrap();
        let soon = Instant::now() + Duration::from_millis(20);
        let error = other.receive_until::<String>(soon).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(!other.is_closed());
        one.send(&"last", &[]).unwrap();
        drop(one);
        assert!(other.is_closed());
        let later = Instant::now() + Duration::from_secs(10);
        assert_eq!(other.receive_until::<String>(later).unwrap().unwrap().0, "last");
        assert!(other.receive_until::<String>(later).unwrap().is_none());
        assert_eq!(other.send(&"x", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
