//! Reading a file.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use kiln_protocol::{Channel, FileErrorKind, MAX_DATA, Reply};
use rustix::fs::{Mode, OFlags};

use super::failure::FileError;
use super::{blocking, done};
use crate::stream::Stream;

pub(super) async fn run(stream: &Rc<Stream>, path: PathBuf) -> Result<Reply, FileError> {
    let (mut file, size, mode) = blocking(move || open(&path)).await?;
    stream.reply(Reply::Opened { size, mode });
    loop {
        if stream.is_unwanted() {
            return Err(FileError::new(FileErrorKind::Aborted, "the host stopped reading"));
        }
        let (back, piece) = blocking(move || {
            let piece = piece(&mut file)?;
            Ok((file, piece))
        })
        .await?;
        file = back;
        if piece.is_empty() {
            return Ok(done());
        }
        stream.data(Channel::Output, piece.into()).await;
    }
}

/// Opens a regular file. Anything else could block for ever, or never end.
fn open(path: &Path) -> Result<(File, u64, u32), FileError> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(FileError::new(FileErrorKind::IsADirectory, "it is a directory"));
    }
    if !metadata.is_file() {
        return Err(FileError::not_regular());
    }
    Ok((file, metadata.size(), metadata.mode() & 0o7777))
}

fn piece(file: &mut File) -> Result<Vec<u8>, FileError> {
    let mut buffer = vec![0; MAX_DATA];
    loop {
        match file.read(&mut buffer) {
            Ok(size) => {
                buffer.truncate(size);
                return Ok(buffer);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}
