//! Where connections come from.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::os::unix::net::UnixListener as StdListener;
use std::path::PathBuf;

use tokio::net::UnixListener;

use crate::sys;

/// The socket to listen on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A listening socket that is open already.
    Inherited(RawFd),
    /// A socket to make.
    Path(PathBuf),
}

impl Source {
    pub(crate) fn parse(arguments: &[OsString]) -> Option<Self> {
        let [option, value] = arguments else { return None };
        match option.to_str()? {
            "--listen-fd" => {
                let number: RawFd = value.to_str()?.parse().ok()?;
                (number > 2).then_some(Self::Inherited(number))
            }
            "--listen" => Some(Self::Path(value.into())),
            _ => None,
        }
    }

    pub(crate) fn open(self) -> Result<UnixListener, String> {
        let listener = match self {
            Self::Inherited(number) => StdListener::from(
                sys::take_descriptor(number)
                    .map_err(|error| format!("descriptor {number} is not usable: {error}"))?,
            ),
            Self::Path(path) => StdListener::bind(&path)
                .map_err(|error| format!("could not listen on {}: {error}", path.display()))?,
        };
        let prepared = listener.set_nonblocking(true).and_then(|()| {
            listener.local_addr()?;
            UnixListener::from_std(listener)
        });
        prepared.map_err(|error| format!("the socket is not usable: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_exactly_one_option_and_its_value() {
        let cases: [(&[&str], Option<Source>); 7] = [
            (&["--listen-fd", "3"], Some(Source::Inherited(3))),
            (&["--listen", "/a"], Some(Source::Path("/a".into()))),
            (&["--listen-fd", "2"], None),
            (&["--listen-fd", "x"], None),
            (&["--listen"], None),
            (&[], None),
            (&["--other", "1"], None),
        ];
        for (arguments, expected) in cases {
            let arguments: Vec<OsString> = arguments.iter().map(Into::into).collect();
            assert_eq!(Source::parse(&arguments), expected, "{arguments:?}");
        }
    }
}
